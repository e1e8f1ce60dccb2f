/* An application's response on granian: Response of engines/granian/response.py is the specification. */

#include "granian.h"

#include <structmember.h>

/* The list of the chunks that were given to write(); borrowed. NULL: an error is set. */
static PyObject *written_of(Response *self) {
    if (self->written == NULL)
        self->written = PyList_New(0);
    return self->written;
}

static PyObject *Response_write(Response *self, PyObject *data) {
    PyObject *written = written_of(self);
    if (written == NULL || PyList_Append(written, data) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef write_method = {"write", (PyCFunction)Response_write, METH_O, "PEP 3333's write()"};

/* The number of a status such as "200 OK"; -1: an error is set. */
static long number_of(const Response *self, PyObject *status) {
    if (PyUnicode_CheckExact(status) && PyUnicode_IS_ASCII(status) && PyUnicode_GET_LENGTH(status) > 3) {
        const Py_UCS1 *text = PyUnicode_1BYTE_DATA(status);
        if (text[0] >= '1' && text[0] <= '9' && text[1] >= '0' && text[1] <= '9' && text[2] >= '0' && text[2] <= '9' &&
            text[3] == ' ')
            return (text[0] - '0') * 100 + (text[1] - '0') * 10 + (text[2] - '0');
    }
    PyObject *found = PyObject_CallOneArg(self->status_of, status);
    long number = found == NULL ? -1 : PyLong_AsLong(found);
    Py_XDECREF(found);
    return number;
}

/* Whether start_response may be called: the first time, or with an error before the headers are out. */
static bool may_start(const Response *self, PyObject *exc_info) {
    if (exc_info != Py_None) {
        if (!self->sent) /* what was given to write() was for the head that this one replaces */
            return self->written == NULL || PyList_SetSlice(self->written, 0, PY_SSIZE_T_MAX, NULL) == 0;
        PyObject *raised = PyObject_CallOneArg(self->again, exc_info);
        Py_XDECREF(raised);
        if (raised != NULL)
            PyErr_SetString(PyExc_AssertionError, "the headers are out");
        return false;
    }
    if (self->status)
        PyErr_SetString(PyExc_AssertionError, "start_response was called twice, without exc_info");
    return !self->status;
}

static PyObject *Response_vectorcall(Response *self, PyObject *const *args, size_t count, PyObject *names) {
    Py_ssize_t given = PyVectorcall_NARGS(count), named = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    if (given < 2 || given + named > 3 || (named && !is_text(PyTuple_GET_ITEM(names, 0), t_exc_info))) {
        PyErr_SetString(PyExc_TypeError, "start_response(status, headers, exc_info=None)");
        return NULL;
    }
    if (!may_start(self, given + named == 3 ? args[2] : Py_None))
        return NULL;
    long status = number_of(self, args[0]);
    if (status == -1 && PyErr_Occurred())
        return NULL;
    self->status = status;
    Py_XSETREF(self->headers, Py_NewRef(args[1]));
    return PyCFunction_New(&write_method, (PyObject *)self);
}

Response *granian_response(PyObject *status_of, PyObject *again) {
    Response *self = PyObject_GC_New(Response, &Response_Type);
    if (self == NULL)
        return NULL;
    self->call = (vectorcallfunc)Response_vectorcall;
    self->body = self->headers = self->written = NULL;
    self->status_of = Py_NewRef(status_of);
    self->again = Py_NewRef(again);
    self->status = 0;
    self->sent = 0;
    PyObject_GC_Track(self);
    return self;
}

static PyObject *Response_written(Response *self, void *Py_UNUSED(closure)) { return Py_XNewRef(written_of(self)); }

static PyGetSetDef Response_properties[] = {
    {"written", (getter)Response_written, NULL, "What was given to write().", NULL},
    {NULL},
};

static PyMemberDef Response_members[] = {
    {"body", T_OBJECT, offsetof(Response, body), READONLY, "The request's input, or None."},
    {"headers", T_OBJECT, offsetof(Response, headers), READONLY, "What start_response was given."},
    {"status", T_LONG, offsetof(Response, status), READONLY, "Its number; 0 before start_response."},
    {"sent", T_BOOL, offsetof(Response, sent), 0, "Whether the headers are out."},
    {NULL},
};

static int Response_traverse(Response *self, visitproc visit, void *arg) {
    Py_VISIT(self->body);
    Py_VISIT(self->headers);
    Py_VISIT(self->written);
    Py_VISIT(self->status_of);
    Py_VISIT(self->again);
    return 0;
}

static int Response_clear(Response *self) {
    self->status = 0;
    Py_CLEAR(self->headers);
    Py_CLEAR(self->written);
    return 0;
}

static void Response_dealloc(Response *self) {
    PyObject_GC_UnTrack(self);
    Response_clear(self);
    Py_CLEAR(self->body);
    Py_CLEAR(self->status_of);
    Py_CLEAR(self->again);
    PyObject_GC_Del(self);
}

PyTypeObject Response_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "mooring._accelerator.Response",
    .tp_doc = "A start_response, and what it was given.",
    .tp_basicsize = sizeof(Response),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(Response, call),
    .tp_call = PyVectorcall_Call,
    .tp_dealloc = (destructor)Response_dealloc,
    .tp_traverse = (traverseproc)Response_traverse,
    .tp_clear = (inquiry)Response_clear,
    .tp_members = Response_members,
    .tp_getset = Response_properties,
};
