/* The access log line of a finished exchange, on ASGI: asgi_entries of instrument/asgi_line.py is the specification.
 * Uncommon lines, and all forms but Apache's, are left to that function. */

#include "asgi.h"

#include <string.h>

const Constant asgi_line_constants[] = {
    NUMBER(SEND), NUMBER(SCOPE), NUMBER(PATH), NUMBER(QUERY), NUMBER(BEGAN), NUMBER(BASE), NUMBER(PLACE),
    NUMBER(IDS), NUMBER(SIZE), NUMBER(OPENING), NUMBER(DONE), NUMBER(EXCHANGE), NUMBER(HOST_LIMIT), TEXT(HOST_OTHERS),
    {NULL},
};

/* The text for a client's bytes, from a cache or else from `make`; a new reference. */
static PyObject *shown(PyObject *cache, PyObject *make, PyObject *value) {
    PyObject *text = PyDict_GetItemWithError(cache, value);
    if (text != NULL)
        return Py_NewRef(text);
    return PyErr_Occurred() ? NULL : PyObject_CallOneArg(make, value);
}

static bool named(PyObject *name, const char *wanted, Py_ssize_t length) {
    return PyBytes_GET_SIZE(name) == length && !memcmp(PyBytes_AS_STRING(name), wanted, length);
}

/* Find referer and user agent in a scope's headers, borrowed; false: the headers have an uncommon form. */
static bool find(PyObject *headers, PyObject **referer, PyObject **agent) {
    if (!PyList_CheckExact(headers) && !PyTuple_CheckExact(headers))
        return false;
    for (Py_ssize_t index = 0; index < PySequence_Fast_GET_SIZE(headers); index++) {
        PyObject *pair = PySequence_Fast_GET_ITEM(headers, index);
        if (!PyTuple_CheckExact(pair) || PyTuple_GET_SIZE(pair) != 2)
            return false;
        PyObject *name = PyTuple_GET_ITEM(pair, 0), *value = PyTuple_GET_ITEM(pair, 1);
        if (!PyBytes_CheckExact(name) || !PyBytes_CheckExact(value))
            return false;
        if (named(name, "user-agent", 10))
            *agent = value;
        else if (named(name, "referer", 7))
            *referer = value;
    }
    return true;
}

/* Path and query as they were requested; a new reference. */
static PyObject *target_of(PyObject *exchange) {
    if (PyList_GET_SIZE(exchange) != EXCHANGE)
        return NULL;
    PyObject *path = PyList_GET_ITEM(exchange, PATH), *query = PyList_GET_ITEM(exchange, QUERY);
    if (!PyBytes_CheckExact(path) || !(query == Py_None || PyBytes_CheckExact(query)))
        return NULL;
    if (query == Py_None || !PyBytes_GET_SIZE(query))
        return Py_NewRef(path);
    Py_ssize_t before = PyBytes_GET_SIZE(path), after = PyBytes_GET_SIZE(query);
    PyObject *target = PyBytes_FromStringAndSize(NULL, before + 1 + after);
    if (target != NULL) {
        char *text = PyBytes_AS_STRING(target);
        memcpy(text, PyBytes_AS_STRING(path), before);
        text[before] = '?';
        memcpy(text + before + 1, PyBytes_AS_STRING(query), after);
    }
    return target;
}

static PyObject *host_of(const Asgi *self, PyObject *scope) {
    PyObject *client = PyDict_GetItemWithError(scope, t_client);
    PyObject *host = NULL;
    if (client == NULL || client == Py_None)
        return PyErr_Occurred() ? NULL : self->nameless;
    if (PyTuple_CheckExact(client) && PyTuple_GET_SIZE(client))
        host = PyTuple_GET_ITEM(client, 0);
    else if (PyList_CheckExact(client) && PyList_GET_SIZE(client))
        host = PyList_GET_ITEM(client, 0);
    if (host == NULL || !PyUnicode_Check(host))
        return NULL;
    if (!PyUnicode_GET_LENGTH(host))
        return self->nameless;
    return is_address(host) ? host : NULL;
}

/* Returns what line_put returns. It calls Python functions, so it holds a reference to each object of the line. */
static int fast_line(Asgi *self, PyObject *exchange, long status, double seconds, double now) {
    PyObject *scope = item_of(exchange, SCOPE), *referer = NULL, *agent = NULL;
    PyObject *headers = scope != NULL && PyDict_CheckExact(scope) ? PyDict_GetItemWithError(scope, t_headers) : NULL;
    if (headers == NULL || !find(headers, &referer, &agent)) {
        Py_XDECREF(scope);
        return 0;
    }
    Parts parts = {.status = status, .seconds = seconds};
    Py_XINCREF(referer);
    Py_XINCREF(agent);
    parts.host = Py_XNewRef(host_of(self, scope));
    parts.method = Py_XNewRef(PyDict_GetItemWithError(scope, t_method));
    parts.version = Py_XNewRef(PyDict_GetItemWithError(scope, t_http_version));
    PyObject *target = target_of(exchange);
    int outcome = 0;
    if (target != NULL && parts.host != NULL && parts.version != NULL && parts.method != NULL &&
        PySet_Contains(self->methods, parts.method) == 1) {
        parts.size = is_text(parts.method, t_HEAD) ? 0 : number_of(exchange, SIZE);
        if (parts.size >= 0)
            parts.target = shown(self->targets, self->target_field, target);
        if (parts.target != NULL)
            parts.referer = referer == NULL ? Py_NewRef(t_dash) : shown(self->agents, self->agent_field, referer);
        if (parts.referer != NULL)
            parts.agent = agent == NULL ? Py_NewRef(t_dash) : shown(self->agents, self->agent_field, agent);
        if (parts.agent != NULL)
            outcome = line_put(self->row, &self->form, &parts, now);
    }
    PyObject *held[] = {parts.host, parts.method, parts.version, parts.target, parts.referer,
                        parts.agent, referer, agent, target, scope};
    for (size_t index = 0; index < sizeof held / sizeof *held; index++)
        Py_XDECREF(held[index]);
    return outcome;
}

/* Whether the rules, a Python function, leave this request's line out. -1: an error is set. */
static int unwanted(Asgi *self, PyObject *exchange, long status) {
    if (self->wanted == Py_None)
        return 0;
    PyObject *path = item_of(exchange, PATH);
    PyObject *found = path == NULL ? NULL : PyObject_CallFunction(self->wanted, "Ol", path, status);
    Py_XDECREF(path);
    int outcome = found == NULL ? -1 : PyObject_Not(found);
    Py_XDECREF(found);
    return outcome;
}

int asgi_line(Asgi *self, PyObject *exchange, long status, double seconds, double now) {
    if (self->entries == Py_None)
        return 0;
    int left_out = unwanted(self, exchange, status);
    if (left_out)
        return left_out < 0 ? -1 : 0;
    if (self->form.date != NULL) {
        if (fast_line(self, exchange, status, seconds, now) > 0)
            return 0;
        PyErr_Clear(); /* entries() fails in the same way, and its error is the one to report */
    }
    PyObject *found = PyObject_CallFunction(self->entries, "Oldd", exchange, status, seconds, now);
    Py_XDECREF(found);
    return found == NULL ? -1 : 0;
}
