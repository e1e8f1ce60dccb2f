/* WSGI on granian, for the common request: handler of engines/granian/wsgi.py is the specification, and
 * serves all other requests. */

#include "granian.h"

/* Whether this request is a common one, which is served here. */
static bool is_common(PyObject *environ) {
    if (!PyDict_CheckExact(environ))
        return false;
    PyObject *protocol = PyDict_GetItemWithError(environ, t_SERVER_PROTOCOL);
    if (protocol == NULL || !is_text(protocol, t_http_1_1))
        return false;
    PyObject *host = PyDict_GetItemWithError(environ, t_HTTP_HOST);
    return host == NULL ? !PyErr_Occurred() : PyUnicode_CheckExact(host) && PyUnicode_GET_LENGTH(host);
}

/* Complete granian's environ as PEP 3333 demands. */
static int mend(const Granian *self, PyObject *environ, Response *response) {
    if (PyDict_Merge(environ, self->base, 0) < 0)
        return -1;
    bool bodiless = PyDict_GetItemWithError(environ, t_CONTENT_LENGTH) == NULL && !PyErr_Occurred() &&
                    PyDict_GetItemWithError(environ, t_HTTP_TRANSFER_ENCODING) == NULL;
    if (PyErr_Occurred())
        return -1;
    if (bodiless)
        return PyDict_SetItem(environ, t_input, self->empty);
    response->body = PyObject_CallOneArg(self->body_of, environ);
    return response->body == NULL ? -1 : PyDict_SetItem(environ, t_input, response->body);
}

static PyObject *Granian_vectorcall(Granian *self, PyObject *const *args, size_t count, PyObject *names) {
    if (PyVectorcall_NARGS(count) != 2 || names != NULL || !is_common(args[1])) {
        PyErr_Clear();
        return PyObject_Vectorcall(self->handle, args, count, names);
    }
    PyObject *proto = args[0], *environ = args[1];
    Response *response = granian_response(self->status_of, self->again);
    if (response == NULL || PySet_Add(self->running, args[0]) < 0) {
        Py_XDECREF(response);
        return NULL;
    }
    PyObject *result = NULL;
    if (mend(self, environ, response) == 0) {
        PyObject *given[] = {NULL, environ, (PyObject *)response};
        result = PyObject_Vectorcall(self->application, given + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    }
    int outcome = result == NULL ? -1 : granian_answer(self, proto, environ, response, result);
    Py_XDECREF(result);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (PySet_Discard(self->running, proto) < 0)
        PyErr_Clear();
    PyErr_Restore(type, value, traceback);
    Py_DECREF(response);
    if (outcome < 0)
        return NULL;
    Py_RETURN_NONE;
}

#define MEMBERS(DO)                                                                                           \
    DO(application) DO(base) DO(running) DO(empty) DO(handle) DO(body_of) DO(closing) DO(join) DO(cut) DO(stream) \
        DO(rest) DO(log) DO(status_of) DO(again)

static int Granian_traverse(Granian *self, visitproc visit, void *arg) {
    MEMBERS(VISIT)
    return 0;
}

static int Granian_clear(Granian *self) {
    MEMBERS(CLEAR)
    return 0;
}

static void Granian_dealloc(Granian *self) {
    PyObject_GC_UnTrack(self);
    Granian_clear(self);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *Granian_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"application", "base",   "running", "empty", "handle",    "body_of", "closing",
                            "join",        "cut",    "stream",  "rest",  "log",       "status_of", "again", NULL};
    Granian given = {0}; /* borrowed: the collector must not see these references */
    if (PyType_Ready(&Response_Type) < 0 ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "OO!O!OOOOOOOOOOO", names, &given.application, &PyDict_Type, &given.base,
                                     &PySet_Type, &given.running, &given.empty, &given.handle, &given.body_of,
                                     &given.closing, &given.join, &given.cut, &given.stream, &given.rest,
                                     &given.log, &given.status_of, &given.again))
        return NULL;
    Granian *self = (Granian *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    MEMBERS(HOLD)
    self->call = (vectorcallfunc)Granian_vectorcall;
    return (PyObject *)self;
}

PyTypeObject Granian_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "mooring._accelerator.Granian",
    .tp_doc = "Granian(application, ...): what handler of engines/granian/wsgi.py returns.",
    .tp_basicsize = sizeof(Granian),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(Granian, call),
    .tp_call = PyVectorcall_Call,
    .tp_new = Granian_new,
    .tp_dealloc = (destructor)Granian_dealloc,
    .tp_traverse = (traverseproc)Granian_traverse,
    .tp_clear = (inquiry)Granian_clear,
};
