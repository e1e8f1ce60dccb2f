/* The work for each request on WSGI: wrap_wsgi of instrument/wsgi.py is the specification. Any thread may call the
 * wrapper: it keeps no data of a request, and runs with the interpreter's lock. */

#include "wsgi.h"

const Constant wsgi_constants[] = {NUMBER(FAILED), NUMBER(ID_COUNT), {NULL}};

/* The number of bytes in a list of chunks. -1: an error is set. */
static Py_ssize_t size_of(PyObject *list) {
    Py_ssize_t size = 0;
    for (Py_ssize_t index = 0; index < PyList_GET_SIZE(list); index++) {
        PyObject *part = Py_NewRef(PyList_GET_ITEM(list, index));
        Py_ssize_t more = bytes_of(part);
        Py_DECREF(part);
        if (more < 0)
            return -1;
        size = sum_of(size, more);
    }
    return size;
}

/* Set the request's ids; apply proxy headers and the root path to its environ. -1: an error is set. */
static int prepare(const Wsgi *self, Request *request) {
    PyObject *environ = request->environ;
    if (self->identify != Py_None) {
        PyObject *ids = PyObject_CallOneArg(self->identify, environ);
        if (ids == NULL)
            return -1;
        if (!PyTuple_CheckExact(ids) || PyTuple_GET_SIZE(ids) != ID_COUNT) {
            Py_DECREF(ids);
            PyErr_SetString(PyExc_TypeError, "identify() returns three ids");
            return -1;
        }
        Py_SETREF(request->ids, ids);
    }
    bool forwarded = self->always || PyDict_GetItemWithError(environ, t_HTTP_X_FORWARDED_FOR) != NULL;
    if (!forwarded && !PyErr_Occurred())
        forwarded = PyDict_GetItemWithError(environ, t_HTTP_X_FORWARDED_PROTO) != NULL;
    if (!forwarded)
        return PyErr_Occurred() ? -1 : 0;
    PyObject *done = PyObject_CallOneArg(self->prepare, environ);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static PyObject *Wsgi_vectorcall(Wsgi *self, PyObject *const *args, size_t count, PyObject *names) {
    if (PyVectorcall_NARGS(count) != 2 || (names != NULL && PyTuple_GET_SIZE(names)) || !PyDict_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "a WSGI application takes an environ, which is a dict, and start_response");
        return NULL;
    }
    Request *request = wsgi_request(self, args[0], args[1]);
    if (request == NULL)
        return NULL;
    PyObject *body = NULL;
    if (prepare(self, request) == 0) {
        PyObject *given[] = {NULL, args[0], (PyObject *)request};
        body = PyObject_Vectorcall(self->application, given + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        if (body == NULL)
            wsgi_keep_process(request);
    }
    if (body == NULL) {
        wsgi_report_failed(request, NULL, 0);
    } else if (PyList_Check(body)) {
        Py_ssize_t size = size_of(body);
        if (size < 0) {
            Py_CLEAR(body);
            wsgi_report_failed(request, NULL, 0);
        } else if (wsgi_report(request, request->status, sum_of(size, request->written)) < 0) {
            Py_CLEAR(body);
        }
    } else {
        body = wsgi_body(request, body);
    }
    Py_DECREF(request);
    return body;
}

#define MEMBERS(DO)                                                                                               \
    DO(row) DO(application) DO(drain) DO(identify) DO(prepare) DO(bases) DO(other) DO(nothing) DO(target_of) DO(code) \
        DO(with_headers) DO(closing) DO(watch) DO(failure) DO(log) DO(wanted) DO(nameless) DO(methods)

static int Wsgi_traverse(Wsgi *self, visitproc visit, void *arg) {
#define VISIT(name) Py_VISIT(self->name);
    MEMBERS(VISIT)
    Py_VISIT(self->form.date);
    return 0;
}

static int Wsgi_clear(Wsgi *self) {
#define CLEAR(name) Py_CLEAR(self->name);
    MEMBERS(CLEAR)
    Py_CLEAR(self->form.date);
    return 0;
}

static void Wsgi_dealloc(Wsgi *self) {
    PyObject_GC_UnTrack(self);
    Wsgi_clear(self);
    Py_TYPE(self)->tp_free(self);
}

/* Leave all lines to Python: the application has set something on a server's access logger. */
static PyObject *Wsgi_renew(Wsgi *self, PyObject *log) {
    Py_SETREF(self->log, Py_NewRef(log));
    Py_CLEAR(self->form.date);
    Py_RETURN_NONE;
}

static PyMethodDef Wsgi_methods[] = {
    {"renew", (PyCFunction)Wsgi_renew, METH_O, "renew(log): have this function make every line"},
    {NULL},
};

/* Prepare the types of a request's own objects. The module does not export them: only this code makes such objects. */
static int ready(void) { return PyType_Ready(&Request_Type) < 0 ? -1 : PyType_Ready(&Stream_Type); }

static PyObject *Wsgi_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"row",       "application", "drain",        "identify", "prepare", "always", "bases",
                            "other",     "nothing",     "target_of",    "code",     "with_headers", "closing", "watch",
                            "failure",   "log",         "wanted",      "nameless",     "methods",  "date",    "timed",  NULL};
    Wsgi given = {0}; /* borrowed: parsing may run Python code, and the collector must not see these references */
    PyObject *date;
    int always, timed;
    if (ready() < 0 ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "O!OOOOpO!O!O!OOOOOOOOUO!Op", names, &Row_Type, &given.row,
                                     &given.application, &given.drain, &given.identify, &given.prepare, &always,
                                     &PyDict_Type, &given.bases, &PyLong_Type, &given.other, &PyTuple_Type, &given.nothing,
                                     &given.target_of, &given.code, &given.with_headers, &given.closing, &given.watch,
                                     &given.failure, &given.log, &given.wanted, &given.nameless, &PyFrozenSet_Type, &given.methods,
                                     &date, &timed))
        return NULL;
    if (PyTuple_GET_SIZE(given.nothing) != ID_COUNT) {
        PyErr_SetString(PyExc_TypeError, "nothing: expected three ids");
        return NULL;
    }
    Wsgi *self = (Wsgi *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
#define HOLD(name) self->name = (void *)Py_NewRef(given.name);
    MEMBERS(HOLD)
    self->call = (vectorcallfunc)Wsgi_vectorcall;
    self->always = always;
    self->form.date = date == Py_None || self->row->writer == NULL ? NULL : Py_NewRef(date);
    self->form.timed = timed;
    return (PyObject *)self;
}

PyTypeObject Wsgi_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "mooring._accelerator.Wsgi",
    .tp_doc = "Wsgi(row, application, ...): what wrap_wsgi of instrument/wsgi.py returns.",
    .tp_basicsize = sizeof(Wsgi),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(Wsgi, call),
    .tp_call = PyVectorcall_Call,
    .tp_new = Wsgi_new,
    .tp_dealloc = (destructor)Wsgi_dealloc,
    .tp_traverse = (traverseproc)Wsgi_traverse,
    .tp_clear = (inquiry)Wsgi_clear,
    .tp_methods = Wsgi_methods,
};
