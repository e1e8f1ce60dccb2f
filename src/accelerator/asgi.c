/* The work for each request on ASGI: _recorder of instrument/asgi.py is the specification. An exchange is the list that
 * wrap_asgi makes for a request. Its access log line: asgi_line.c. */

#include "asgi.h"

const Constant asgi_constants[] = {NUMBER(FAILED), NUMBER(ID_COUNT), {NULL}};

/* A mapping's value for a key; NULL without an error: it has none; NULL with an error: looking failed. */
static PyObject *look(PyObject *mapping, PyObject *key) {
    if (PyDict_CheckExact(mapping)) {
        PyObject *value = PyDict_GetItemWithError(mapping, key);
        return Py_XNewRef(value);
    }
    PyObject *value = PyObject_GetItem(mapping, key);
    if (value == NULL && PyErr_ExceptionMatches(PyExc_KeyError))
        PyErr_Clear();
    return value;
}

static PyObject *must(PyObject *mapping, PyObject *key) {
    PyObject *value = look(mapping, key);
    if (value == NULL && !PyErr_Occurred())
        PyErr_SetObject(PyExc_KeyError, key);
    return value;
}

static bool grow(PyObject *exchange, Py_ssize_t more) {
    if (!more)
        return true;
    Py_ssize_t size = number_of(exchange, SIZE);
    if (size < 0) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "an exchange was changed");
        return false;
    }
    PyObject *sum = PyLong_FromSsize_t(sum_of(size, more));
    return sum != NULL && PyList_SetItem(exchange, SIZE, sum) == 0;
}

/* -- a response's messages ------------------------------------------------------------------------ */

/* -1: an error is set; the message is invalid. */
static int status_of(const Asgi *self, PyObject *opening, long *status) {
    PyObject *value = must(opening, t_status);
    if (value == NULL)
        return -1;
    int overflow = 0;
    long number = PyLong_CheckExact(value) ? PyLong_AsLongAndOverflow(value, &overflow) : -1;
    if (number < 0 || number > 999) {
        PyObject *found = PyObject_CallOneArg(self->status_of, value);
        number = found == NULL ? -1 : PyLong_AsLong(found);
        Py_XDECREF(found);
    }
    Py_DECREF(value);
    if (number == -1 && PyErr_Occurred())
        return -1;
    *status = number;
    return 0;
}

/* An invalid message raises nothing in the application's send() here: the engine decides what to do with it. */
static int forgive(void) {
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return -1;
    PyErr_Clear();
    return 0;
}

/* Free the exchange's place among the requests in flight. Called before everything else at a response's end, since the
 * rest may fail because of what the application has sent. */
static int leave(Asgi *self, PyObject *exchange) {
    Py_ssize_t place = number_of(exchange, PLACE);
    if (place == -1 && PyErr_Occurred())
        return -1;
    if (PyList_SetItem(exchange, DONE, Py_NewRef(Py_True)) < 0) /* bytes that are sent later are not counted */
        return -1;
    row_end(self->row, place);
    return 0;
}

/* Count the exchange, and write its access log line. */
static int end(Asgi *self, PyObject *exchange, long status, bool failed) {
    PyObject *item = item_of(exchange, BEGAN);
    double now = monotonic(), began = item == NULL ? -1.0 : PyFloat_AsDouble(item), seconds = now - began;
    Py_XDECREF(item);
    if (began == -1.0 && PyErr_Occurred())
        return -1;
    Py_ssize_t base = number_of(exchange, BASE);
    if (base == -1 && PyErr_Occurred())
        return -1;
    row_count(self->row, base, status, seconds);
    if (failed)
        self->row->cells[self->row->raised] += 1.0;
    return asgi_line(self, exchange, status, seconds, now);
}

static int body(Asgi *self, PyObject *exchange, PyObject *message) {
    PyObject *data = look(message, t_body);
    if (data != NULL) {
        Py_ssize_t size = bytes_of(data);
        Py_DECREF(data);
        if (size < 0 || !grow(exchange, size))
            return -1;
    } else if (PyErr_Occurred()) {
        return -1;
    }
    PyObject *more = look(message, t_more_body);
    if (more == NULL && PyErr_Occurred())
        return -1;
    int last = more == NULL ? 1 : PyObject_Not(more);
    Py_XDECREF(more);
    if (last <= 0)
        return last;
    PyObject *opening = item_of(exchange, OPENING);
    if (opening == NULL)
        return -1;
    if (PyList_GET_ITEM(exchange, DONE) == Py_True) {
        Py_DECREF(opening);
        return 0;
    }
    long status = FAILED;
    int known = opening == Py_None ? 0 : status_of(self, opening, &status);
    Py_DECREF(opening);
    if (known < 0)
        return -1; /* if it was the last one, finish() counts the request */
    if (leave(self, exchange) < 0)
        return -1;
    return end(self, exchange, status, false);
}

/* What `make` makes of the message takes its place; an invalid one is not changed. -1: an error is set. */
static int replace(PyObject **message, PyObject *make, PyObject *with) {
    PyObject *made = PyObject_CallFunctionObjArgs(make, *message, with, NULL);
    if (made == NULL)
        return forgive();
    Py_SETREF(*message, made);
    return 0;
}

/* The message as it is to be sent takes the place of the reference given. -1: an error is set. */
static int start(Asgi *self, PyObject *exchange, PyObject **message) {
    PyObject *ids = item_of(exchange, IDS);
    if (ids == NULL)
        return -1;
    PyObject *extra = PyTuple_Check(ids) && PyTuple_GET_SIZE(ids) == ID_COUNT ? PyTuple_GET_ITEM(ids, ID_HEADERS) : NULL;
    int some = extra == NULL ? 0 : PyObject_IsTrue(extra);
    if (some > 0)
        some = replace(message, self->with_headers, extra);
    Py_DECREF(ids);
    PyObject *begun = some < 0 ? NULL : PyObject_GetAttr(self->drain, t_begun);
    if (begun == NULL)
        return -1;
    bool last = begun == Py_True;
    Py_DECREF(begun);
    if (last) {
        PyObject *scope = item_of(exchange, SCOPE);
        int replaced = scope == NULL ? -1 : replace(message, self->closing, scope);
        Py_XDECREF(scope);
        if (replaced < 0)
            return -1;
    }
    return PyList_SetItem(exchange, OPENING, Py_NewRef(*message));
}

static int path_sent(Asgi *self, PyObject *exchange, PyObject *message) {
    PyObject *path = must(message, t_path);
    PyObject *found = path == NULL ? NULL : PyObject_CallOneArg(self->file_size, path);
    Py_ssize_t size = found == NULL ? -1 : PyLong_AsSsize_t(found);
    Py_XDECREF(path);
    Py_XDECREF(found);
    return size < 0 || !grow(exchange, size) ? -1 : 0;
}

static bool is_exchange(PyObject *exchange) {
    if (PyList_CheckExact(exchange) && PyList_GET_SIZE(exchange) == EXCHANGE)
        return true;
    PyErr_SetString(PyExc_TypeError, "expected an exchange");
    return false;
}

static PyObject *Asgi_sending(Asgi *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "send() takes one message");
        return NULL;
    }
    PyObject *exchange = args[0], *message = args[1];
    if (!is_exchange(exchange))
        return NULL;
    PyObject *kind = must(message, t_type);
    Py_INCREF(message);
    int outcome = kind == NULL ? -1 : 0;
    if (kind == NULL)
        ;
    else if (is_text(kind, t_response_body))
        outcome = body(self, exchange, message);
    else if (is_text(kind, t_response_start))
        outcome = start(self, exchange, &message);
    else if (is_text(kind, t_response_pathsend))
        outcome = path_sent(self, exchange, message);
    Py_XDECREF(kind);
    PyObject *passed = NULL, *send = outcome == 0 || forgive() == 0 ? item_of(exchange, SEND) : NULL;
    if (send != NULL)
        passed = PyObject_CallOneArg(send, message);
    Py_XDECREF(send);
    Py_DECREF(message);
    return passed;
}

/* Engines send the response's head with the first part of its body: where no body was sent, a failure is a 500. */
static PyObject *Asgi_finish(Asgi *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 3 || !is_exchange(args[0])) {
        PyErr_SetString(PyExc_TypeError, "finish(exchange, unanswered, raised)");
        return NULL;
    }
    PyObject *exchange = args[0];
    long status = PyLong_AsLong(args[1]);
    bool raised = args[2] == Py_True;
    if (status == -1 && PyErr_Occurred())
        return NULL;
    if (leave(self, exchange) < 0)
        return NULL;
    PyObject *opening = item_of(exchange, OPENING), *size = opening == NULL ? NULL : item_of(exchange, SIZE);
    int sized = size == NULL ? -1 : PyObject_IsTrue(size);
    Py_XDECREF(size);
    bool failed = raised || (status == FAILED && opening == Py_None);
    int known = sized < 0 ? -1 : 0;
    if (!known && opening != Py_None && (sized || !raised) && status_of(self, opening, &status) < 0) {
        known = forgive();
        status = FAILED; /* the engine may have changed the message: there is no usable status */
    }
    Py_XDECREF(opening);
    if (known < 0 || end(self, exchange, status, failed) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* Leave all lines to Python: the application has set something on a server's access logger. */
static PyObject *Asgi_renew(Asgi *self, PyObject *entries) {
    Py_SETREF(self->entries, Py_NewRef(entries));
    Py_CLEAR(self->form.date);
    Py_RETURN_NONE;
}

static PyMethodDef Asgi_methods[] = {
    {"renew", (PyCFunction)Asgi_renew, METH_O, "renew(entries): have this function make every line"},
    {"sending", (PyCFunction)(void (*)(void))Asgi_sending, METH_FASTCALL, "sending(exchange, message)"},
    {"finish", (PyCFunction)(void (*)(void))Asgi_finish, METH_FASTCALL, "finish(exchange, unanswered, raised)"},
    {NULL},
};

#define MEMBERS(DO)                                                                                              \
    DO(row) DO(drain) DO(closing) DO(with_headers) DO(file_size) DO(status_of) DO(entries) DO(wanted) DO(nameless) DO(methods) \
        DO(targets) DO(target_field) DO(agents) DO(agent_field)

static int Asgi_traverse(Asgi *self, visitproc visit, void *arg) {
#define VISIT(name) Py_VISIT(self->name);
    MEMBERS(VISIT)
    Py_VISIT(self->form.date);
    return 0;
}

static int Asgi_clear(Asgi *self) {
#define CLEAR(name) Py_CLEAR(self->name);
    MEMBERS(CLEAR)
    Py_CLEAR(self->form.date);
    return 0;
}

static void Asgi_dealloc(Asgi *self) {
    PyObject_GC_UnTrack(self);
    Asgi_clear(self);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *Asgi_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"row",      "drain",   "closing", "with_headers", "file_size", "status_of",   "entries", "wanted",
                            "nameless", "methods", "targets", "target_field", "agents",    "agent_field", "date",    "timed",
                            NULL};
    Asgi given = {0}; /* borrowed: parsing may run Python code, and the collector must not see these references */
    PyObject *date;
    int timed;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!OOOOOOOUO!O!OO!OOp", names, &Row_Type, &given.row, &given.drain,
                                     &given.closing, &given.with_headers, &given.file_size, &given.status_of, &given.entries,
                                     &given.wanted, &given.nameless, &PyFrozenSet_Type, &given.methods, &PyDict_Type, &given.targets,
                                     &given.target_field, &PyDict_Type, &given.agents, &given.agent_field, &date, &timed))
        return NULL;
    Asgi *self = (Asgi *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
#define HOLD(name) self->name = (void *)Py_NewRef(given.name);
    MEMBERS(HOLD)
    self->form.date = date == Py_None || self->row->writer == NULL ? NULL : Py_NewRef(date);
    self->form.timed = timed;
    return (PyObject *)self;
}

PyTypeObject Asgi_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "mooring._accelerator.Asgi",
    .tp_doc = "Asgi(row, ...): the functions of _recorder in instrument/asgi.py.",
    .tp_basicsize = sizeof(Asgi),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = Asgi_new,
    .tp_dealloc = (destructor)Asgi_dealloc,
    .tp_traverse = (traverseproc)Asgi_traverse,
    .tp_clear = (inquiry)Asgi_clear,
    .tp_methods = Asgi_methods,
};
