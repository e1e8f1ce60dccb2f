/* The access log line of a finished request, on WSGI: describer of instrument/wsgi_line.py is the specification.
 * Uncommon lines, and all forms but Apache's, are left to that function. */

#include "wsgi.h"

#define TARGET_LIMIT 2048 /* characters: logs/escape.py */
#define AGENT_LIMIT 512

const Constant wsgi_line_constants[] = {
    NUMBER(TARGET_LIMIT), NUMBER(AGENT_LIMIT), TEXT(PCHAR), NUMBER(HOST_LIMIT), TEXT(HOST_OTHERS), {NULL},
};

/* Whether a text needs no escaping in a line: it is printable ASCII without quotes and backslashes. */
static bool is_clean(PyObject *text, Py_ssize_t limit) {
    if (!PyUnicode_CheckExact(text) || !PyUnicode_IS_ASCII(text) || PyUnicode_GET_LENGTH(text) > limit)
        return false;
    const unsigned char *data = PyUnicode_1BYTE_DATA(text), *end = data + PyUnicode_GET_LENGTH(text);
    bool clean = true;
    for (; data < end; data++)
        clean &= (*data >= ' ') & (*data <= '~') & (*data != '"') & (*data != '\\');
    return clean;
}

/* A header's value in an environ, `-` without one; a new reference. NULL: an uncommon value, or an error is set. */
static PyObject *header(PyObject *environ, PyObject *name) {
    PyObject *value = PyDict_GetItemWithError(environ, name);
    if (value == NULL)
        return PyErr_Occurred() ? NULL : Py_NewRef(t_dash);
    return is_clean(value, AGENT_LIMIT) ? Py_NewRef(value) : NULL;
}

/* A new reference. NULL: an uncommon value, or an error is set. */
static PyObject *host_of(const Wsgi *self, PyObject *environ) {
    PyObject *host = PyDict_GetItemWithError(environ, t_REMOTE_ADDR);
    if (host == NULL)
        return PyErr_Occurred() ? NULL : Py_NewRef(self->nameless);
    if (!PyUnicode_CheckExact(host))
        return NULL;
    if (!PyUnicode_GET_LENGTH(host))
        return Py_NewRef(self->nameless);
    return is_address(host) ? Py_NewRef(host) : NULL;
}

/* The part after the slash of a protocol such as "HTTP/1.1"; a new reference. */
static PyObject *version_of(PyObject *environ) {
    PyObject *protocol = PyDict_GetItemWithError(environ, t_SERVER_PROTOCOL);
    if (protocol == NULL || !PyUnicode_CheckExact(protocol))
        return NULL;
    return is_text(protocol, t_http_1_1) ? Py_NewRef(t_1_1)
                                         : PyUnicode_Substring(protocol, 5, PyUnicode_GET_LENGTH(protocol));
}

/* Returns what line_put returns. It may call a Python function, so it holds references to the parts of the line. */
static int fast_line(Request *request, long status, Py_ssize_t size, double seconds, double now) {
    Wsgi *self = request->wsgi;
    PyObject *environ = request->environ;
    Parts parts = {.status = status, .seconds = seconds};
    if (!is_clean(request->target, TARGET_LIMIT))
        return 0;
    parts.target = request->target;
    int outcome = 0;
    if ((parts.host = host_of(self, environ)) != NULL && (parts.method = value_of(environ, t_REQUEST_METHOD)) != NULL &&
        (parts.referer = header(environ, t_HTTP_REFERER)) != NULL &&
        (parts.agent = header(environ, t_HTTP_USER_AGENT)) != NULL && PyUnicode_CheckExact(parts.method) &&
        PySet_Contains(self->methods, parts.method) == 1 && (parts.version = version_of(environ)) != NULL) {
        parts.size = is_text(parts.method, t_HEAD) ? 0 : size;
        outcome = line_put(self->row, &self->form, &parts, now);
    }
    PyObject *held[] = {parts.host, parts.method, parts.referer, parts.agent, parts.version};
    for (size_t index = 0; index < sizeof held / sizeof *held; index++)
        Py_XDECREF(held[index]);
    return outcome;
}

/* Whether the rules, a Python function, leave this request's line out. -1: an error is set. */
static int unwanted(Request *request, long status) {
    Wsgi *self = request->wsgi;
    if (self->wanted == Py_None)
        return 0;
    PyObject *target = request->target;
    Py_ssize_t length = PyUnicode_GET_LENGTH(target), end = PyUnicode_FindChar(target, '?', 0, length, 1);
    PyObject *path = end < -1 ? NULL : PyUnicode_Substring(target, 0, end < 0 ? length : end);
    PyObject *found = path == NULL ? NULL : PyObject_CallFunction(self->wanted, "Ol", path, status);
    Py_XDECREF(path);
    int outcome = found == NULL ? -1 : PyObject_Not(found);
    Py_XDECREF(found);
    return outcome;
}

int wsgi_line(Request *request, long status, Py_ssize_t size, double seconds, double now) {
    Wsgi *self = request->wsgi;
    int left_out = unwanted(request, status);
    if (left_out)
        return left_out < 0 ? -1 : 0;
    if (self->form.date != NULL) {
        if (fast_line(request, status, size, seconds, now) > 0)
            return 0;
        PyErr_Clear(); /* the function below fails in the same way, and its error is the one to report */
    }
    /* borrowed: the call makes a tuple first */
    PyObject *headers = request->headers == NULL ? PyTuple_GET_ITEM(self->nothing, ID_HEADERS) : request->headers;
    PyObject *done = PyObject_CallFunction(self->log, "OOlnOdOd", request->environ, request->target, status, size,
                                           headers, seconds, request->ids, now);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}
