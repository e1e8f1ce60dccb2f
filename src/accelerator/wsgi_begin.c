/* The beginning of a request, on WSGI: its target, and its place among the requests in flight. Has no twin of its name:
 * `start` of _recorder in instrument/wsgi.py and target_of of instrument/wsgi_line.py are the specification. */

#include "wsgi.h"

#include <string.h>

/* Whether the text is the same when percent-encoded, as the client sent it: instrument/wsgi_line.py. */
static bool is_plain(PyObject *text) {
    static const char others[] = "-._~" PCHAR;
    static bool plain[128];
    if (!plain['/']) {
        for (int c = 0; c < 128; c++)
            plain[c] = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        for (const char *c = others; *c; c++)
            plain[(int)*c] = true;
    }
    if (!PyUnicode_CheckExact(text) || !PyUnicode_IS_ASCII(text))
        return false;
    const unsigned char *data = PyUnicode_1BYTE_DATA(text);
    bool found = true;
    for (Py_ssize_t index = 0; found && index < PyUnicode_GET_LENGTH(text); index++)
        found = plain[data[index]];
    return found;
}

/* Path and query of their parts, as they were requested; a new reference to a text. Py_None: an uncommon case. */
static PyObject *joined(PyObject *script, PyObject *path, PyObject *query) {
    if (script == NULL || path == NULL || !is_plain(script) || !is_plain(path) ||
        (query != NULL && !(PyUnicode_CheckExact(query) && PyUnicode_IS_ASCII(query))))
        return Py_NewRef(Py_None);
    Py_ssize_t before = PyUnicode_GET_LENGTH(script), middle = PyUnicode_GET_LENGTH(path);
    Py_ssize_t after = query == NULL ? 0 : PyUnicode_GET_LENGTH(query);
    if (!before && !after)
        return Py_NewRef(path);
    PyObject *target = PyUnicode_New(before + middle + (after ? after + 1 : 0), 127);
    if (target == NULL)
        return NULL;
    Py_UCS1 *text = PyUnicode_1BYTE_DATA(target);
    memcpy(text, PyUnicode_1BYTE_DATA(script), before);
    memcpy(text + before, PyUnicode_1BYTE_DATA(path), middle);
    if (after) {
        text[before + middle] = '?';
        memcpy(text + before + middle + 1, PyUnicode_1BYTE_DATA(query), after);
    }
    return target;
}

/* Path and query as they were requested; a new reference to a text. */
static PyObject *target_of(const Wsgi *self, PyObject *environ) {
    PyObject *raw = value_of(environ, t_RAW_URI);
    if (raw != NULL && PyUnicode_CheckExact(raw))
        return raw;
    bool uncommon = raw != NULL;
    Py_XDECREF(raw);
    PyObject *target = NULL;
    if (!uncommon && !PyErr_Occurred()) {
        PyObject *script = value_of(environ, t_SCRIPT_NAME);
        PyObject *path = script == NULL ? NULL : value_of(environ, t_PATH_INFO);
        PyObject *query = path == NULL ? NULL : value_of(environ, t_QUERY_STRING);
        if (!PyErr_Occurred())
            target = joined(script, path, query);
        Py_XDECREF(script);
        Py_XDECREF(path);
        Py_XDECREF(query);
    }
    if (PyErr_Occurred() || (target != NULL && target != Py_None))
        return target;
    Py_XDECREF(target);
    target = PyObject_CallOneArg(self->target_of, environ);
    if (target != NULL && !PyUnicode_Check(target)) {
        PyErr_SetString(PyExc_TypeError, "target_of() returns a text");
        Py_CLEAR(target);
    }
    return target;
}

/* Give the request its place among those in flight. */
static int begin(const Wsgi *self, Request *request) {
    PyObject *method = value_of(request->environ, t_REQUEST_METHOD);
    if (method == NULL) {
        if (!PyErr_Occurred())
            PyErr_SetObject(PyExc_KeyError, t_REQUEST_METHOD);
        return -1;
    }
    PyObject *base = PyDict_GetItemWithError(self->bases, method);
    if (base == NULL && !PyErr_Occurred())
        base = self->other;
    request->base = base == NULL ? -1 : PyLong_AsSsize_t(base);
    Py_DECREF(method);
    if (request->base == -1 && PyErr_Occurred())
        return -1;
    PyObject *target = request->target;
    Py_ssize_t length = PyUnicode_GET_LENGTH(target);
    if (PyUnicode_KIND(target) == PyUnicode_1BYTE_KIND) {
        const char *text = (const char *)PyUnicode_1BYTE_DATA(target);
        const char *end = memchr(text, '?', length);
        request->place =
            row_begin(self->row, (double)request->base, text, end == NULL ? length : end - text, request->began);
        return 0;
    }
    Py_ssize_t end = PyUnicode_FindChar(target, '?', 0, length, 1);
    PyObject *text = end < -1 ? NULL : PyUnicode_AsEncodedString(target, "latin-1", "replace");
    if (text == NULL)
        return -1;
    request->place = row_begin(self->row, (double)request->base, PyBytes_AS_STRING(text),
                               end < 0 ? PyBytes_GET_SIZE(text) : end, request->began);
    Py_DECREF(text);
    return 0;
}

Request *wsgi_request(Wsgi *self, PyObject *environ, PyObject *start_response) {
    double now = monotonic();
    PyObject *target = target_of(self, environ);
    if (target == NULL)
        return NULL;
    if (PyDict_SetDefault(environ, t_RAW_URI, target) == NULL || PyDict_SetDefault(environ, t_REQUEST_URI, target) == NULL) {
        Py_DECREF(target);
        return NULL;
    }
    Request *request = PyObject_GC_New(Request, &Request_Type);
    if (request == NULL) {
        Py_DECREF(target);
        return NULL;
    }
    request->wsgi = (Wsgi *)Py_NewRef(self);
    request->environ = Py_NewRef(environ);
    request->start_response = Py_NewRef(start_response);
    request->ids = Py_NewRef(self->nothing);
    request->target = target;
    request->status = request->headers = request->write = NULL;
    request->began = now;
    request->written = 0;
    request->call = (vectorcallfunc)Request_call;
    if (begin(self, request) < 0)
        Py_CLEAR(request);
    else
        PyObject_GC_Track(request);
    return request;
}
