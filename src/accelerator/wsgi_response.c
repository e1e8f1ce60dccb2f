/* One request on WSGI: its start_response (`started` of _wrapped in instrument/wsgi.py), and its body where the body is
 * not a list (Stream of instrument/wsgi_response.py, and is_watched_file).
 *
 * A stream holds its request, but a request never holds its stream, so that there is no cycle of references: the frame
 * of a body that is a generator mostly holds start_response, which is the request. */

#include "wsgi.h"

#include <string.h>

/* -- start_response --------------------------------------------------------------------------------- */

/* The headers that `make` returns for these and, where it is not NULL, `more`: takes the reference to `headers`. */
static PyObject *replaced(PyObject *headers, PyObject *make, PyObject *more) {
    PyObject *found = PyObject_CallFunctionObjArgs(make, headers, more, NULL);
    Py_DECREF(headers);
    return found;
}

/* Whether to tell the client that this response is its connection's last. HTTP/2 has no header for that. -1: an error
 * is set. */
static int is_last(const Request *self) {
    PyObject *begun = PyObject_GetAttr(self->wsgi->drain, t_begun);
    int found = begun == NULL ? -1 : PyObject_IsTrue(begun);
    Py_XDECREF(begun);
    if (found <= 0)
        return found;
    PyObject *protocol = PyDict_GetItemWithError(self->environ, t_SERVER_PROTOCOL);
    if (protocol == NULL || !PyUnicode_Check(protocol)) {
        if (!PyErr_Occurred())
            PyErr_SetObject(PyExc_KeyError, t_SERVER_PROTOCOL);
        return -1;
    }
    Py_ssize_t length;
    const char *text = PyUnicode_AsUTF8AndSize(protocol, &length);
    return text == NULL ? -1 : !strncmp(text, "HTTP/1", 6);
}

/* The response's headers with mooring's own; a new reference. */
static PyObject *headers_of(const Request *self, PyObject *headers) {
    PyObject *more = PyTuple_GET_ITEM(self->ids, ID_HEADERS);
    Py_INCREF(headers);
    int some = PyObject_IsTrue(more);
    if (some > 0)
        headers = replaced(headers, self->wsgi->with_headers, more);
    int last = headers == NULL || some < 0 ? -1 : is_last(self);
    if (last < 0)
        Py_CLEAR(headers);
    else if (last)
        headers = replaced(headers, self->wsgi->closing, NULL);
    return headers;
}

static PyObject *Request_write(Request *self, PyObject *data) {
    Py_ssize_t size = PyBytes_CheckExact(data) ? PyBytes_GET_SIZE(data) : PyObject_Size(data);
    if (size < 0)
        return NULL;
    self->written = sum_of(self->written, size);
    PyObject *write = Py_NewRef(self->write), *done = PyObject_CallOneArg(write, data);
    Py_DECREF(write);
    return done;
}

static PyMethodDef write_method = {"write", (PyCFunction)Request_write, METH_O, "PEP 3333's write()"};

PyObject *Request_call(Request *self, PyObject *const *args, size_t count, PyObject *names) {
    Py_ssize_t given = PyVectorcall_NARGS(count), named = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    if (given < 2 || given + named > 3 || (named && !is_text(PyTuple_GET_ITEM(names, 0), t_exc_info))) {
        PyErr_SetString(PyExc_TypeError, "start_response(status, headers, exc_info=None)");
        return NULL;
    }
    PyObject *exc_info = given + named == 3 ? args[2] : Py_None, *status = args[0];
    int failed = PyObject_IsTrue(exc_info);
    PyObject *headers = failed < 0 ? NULL : headers_of(self, args[1]);
    if (headers == NULL)
        return NULL;
    PyObject *passed[] = {NULL, status, headers, exc_info}; /* the headers are held until the call has ended */
    Py_INCREF(headers);
    Py_XSETREF(self->status, Py_NewRef(status));
    Py_XSETREF(self->headers, headers);
    size_t passing = (failed ? 3 : 2) | PY_VECTORCALL_ARGUMENTS_OFFSET;
    PyObject *write = PyObject_Vectorcall(self->start_response, passed + 1, passing, NULL);
    Py_DECREF(headers);
    if (write == NULL || write == Py_None) /* hypercorn has no write() */
        return write;
    Py_XSETREF(self->write, write);
    return PyCFunction_New(&write_method, (PyObject *)self);
}

#define REQUEST(DO) DO(wsgi) DO(environ) DO(start_response) DO(ids) DO(target) DO(status) DO(headers) DO(write)
#define VISIT(name) Py_VISIT(self->name);
#define CLEAR(name) Py_CLEAR(self->name);

static int Request_traverse(Request *self, visitproc visit, void *arg) {
    REQUEST(VISIT)
    return 0;
}

/* Clear only what a later call does not need. Each other member is in a cycle only with objects that are cleared
 * themselves. */
static int Request_clear(Request *self) {
    Py_CLEAR(self->headers);
    Py_CLEAR(self->status);
    return 0;
}

static void Request_dealloc(Request *self) {
    PyObject_GC_UnTrack(self);
    REQUEST(CLEAR)
    PyObject_GC_Del(self);
}

PyTypeObject Request_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "mooring._accelerator.Request",
    .tp_doc = "A request's start_response.",
    .tp_basicsize = sizeof(Request),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(Request, call),
    .tp_call = PyVectorcall_Call,
    .tp_dealloc = (destructor)Request_dealloc,
    .tp_traverse = (traverseproc)Request_traverse,
    .tp_clear = (inquiry)Request_clear,
};

/* -- a body that is not a list -------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    Request *request;
    PyObject *body, *close_body, *iterator; /* NULL means: closed; no close(); not begun */
    Py_ssize_t size;
    bool failed, done, begun;
} Stream;

static PyObject *advance(Stream *self) {
    if (self->iterator == NULL) {
        PyObject *body = Py_XNewRef(self->body), *iterator = body == NULL ? NULL : PyObject_GetIter(body);
        Py_XDECREF(body);
        if (iterator == NULL)
            return NULL;
        Py_XSETREF(self->iterator, iterator);
    }
    PyObject *iterator = Py_NewRef(self->iterator);
    PyObject *chunk = Py_TYPE(iterator)->tp_iternext(iterator);
    Py_DECREF(iterator);
    return chunk;
}

static PyObject *Stream_next(Stream *self) {
    PyObject *chunk = advance(self);
    if (chunk != NULL) {
        Py_ssize_t size = bytes_of(chunk);
        if (size >= 0) {
            row_move(self->request->wsgi->row);
            if (!self->begun) {
                self->begun = true;
                row_stream(self->request->wsgi->row, 1);
            }
            self->size = sum_of(self->size, size);
            return chunk;
        }
        Py_DECREF(chunk);
    }
    wsgi_keep_process(self->request);
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_StopIteration) && PyErr_ExceptionMatches(PyExc_Exception))
        self->failed = self->size == 0;
    return NULL;
}

static PyObject *Stream_close(Stream *self, PyObject *Py_UNUSED(none)) {
    if (self->done)
        Py_RETURN_NONE;
    self->done = true;
    if (self->begun)
        row_stream(self->request->wsgi->row, -1);
    PyObject *close_body = self->close_body;
    self->close_body = NULL;
    PyObject *closed = close_body == NULL ? Py_NewRef(Py_None) : PyObject_CallNoArgs(close_body);
    Py_XDECREF(close_body);
    if (closed == NULL)
        wsgi_keep_process(self->request);
    /* Read after close(), which may have changed it. */
    PyObject *status = self->failed && !self->request->written ? NULL : self->request->status;
    Py_ssize_t size = sum_of(self->size, self->request->written);
    Py_XINCREF(status);
    if (closed == NULL)
        wsgi_report_failed(self->request, status, size);
    else if (wsgi_report(self->request, status, size) < 0)
        Py_CLEAR(closed);
    Py_XDECREF(status);
    Py_CLEAR(self->body);
    if (closed == NULL)
        return NULL;
    Py_DECREF(closed);
    Py_RETURN_NONE;
}

#define STREAM(DO) DO(request) DO(body) DO(close_body) DO(iterator)

static int Stream_traverse(Stream *self, visitproc visit, void *arg) {
    STREAM(VISIT)
    return 0;
}

static int Stream_clear(Stream *self) {
    Py_CLEAR(self->body);
    Py_CLEAR(self->close_body);
    Py_CLEAR(self->iterator);
    return 0;
}

static void Stream_dealloc(Stream *self) {
    PyObject_GC_UnTrack(self);
    STREAM(CLEAR)
    PyObject_GC_Del(self);
}

static PyMethodDef Stream_methods[] = {
    {"close", (PyCFunction)Stream_close, METH_NOARGS, "What the server calls when it is done with the response."},
    {NULL},
};

static PyObject *Stream_size(Stream *self, void *Py_UNUSED(closure)) { return PyLong_FromSsize_t(self->size); }

static int Stream_set_size(Stream *self, PyObject *value, void *Py_UNUSED(closure)) {
    int wide = 0;
    Py_ssize_t size = value == NULL || !PyLong_Check(value) ? -1 : PyLong_AsLongAndOverflow(value, &wide);
    if (size < 0 && wide <= 0) {
        PyErr_SetString(PyExc_ValueError, "size: expected a number of bytes");
        return -1;
    }
    self->size = wide > 0 ? PY_SSIZE_T_MAX : size; /* the application may declare any length */
    return 0;
}

static PyGetSetDef Stream_properties[] = {
    {"size", (getter)Stream_size, (setter)Stream_set_size, "Bytes that have passed.", NULL},
    {NULL},
};

PyTypeObject Stream_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "mooring._accelerator.Stream",
    .tp_doc = "An application's iterable on its way to the server.",
    .tp_basicsize = sizeof(Stream),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_dealloc = (destructor)Stream_dealloc,
    .tp_traverse = (traverseproc)Stream_traverse,
    .tp_clear = (inquiry)Stream_clear,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = (iternextfunc)Stream_next,
    .tp_methods = Stream_methods,
    .tp_getset = Stream_properties,
};

/* Whether the body is the server's own file wrapper; then its close() becomes the stream's. -1: an error is set. */
static int is_watched(Request *request, PyObject *body, Stream *stream) {
    PyObject *wrapper = value_of(request->environ, t_file_wrapper);
    if (wrapper == NULL)
        return PyErr_Occurred() ? -1 : 0;
    int found = PyType_Check(wrapper) ? PyObject_IsInstance(body, wrapper) : 0;
    Py_DECREF(wrapper);
    if (found <= 0)
        return found;
    PyObject *headers = Py_NewRef(request->headers == NULL ? Py_None : request->headers);
    PyObject *done = PyObject_CallFunctionObjArgs(request->wsgi->watch, stream, body, headers, NULL);
    Py_DECREF(headers);
    found = done == NULL ? -1 : PyObject_IsTrue(done);
    Py_XDECREF(done);
    return found;
}

PyObject *wsgi_body(Request *request, PyObject *body) {
    PyObject *close = PyObject_GetAttr(body, t_close);
    if (close == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError))
            goto failed;
        PyErr_Clear();
    }
    Stream *stream = PyObject_GC_New(Stream, &Stream_Type);
    if (stream == NULL) {
        Py_XDECREF(close);
        goto failed;
    }
    stream->request = (Request *)Py_NewRef(request);
    stream->body = body;
    stream->close_body = close;
    stream->iterator = NULL;
    stream->size = 0;
    stream->failed = stream->done = stream->begun = false;
    PyObject_GC_Track(stream);
    int watched = is_watched(request, body, stream);
    if (watched == 0)
        return (PyObject *)stream;
    Py_INCREF(body);
    Py_DECREF(stream);
    if (watched > 0)
        return body;
failed:
    wsgi_report_failed(request, NULL, 0);
    Py_DECREF(body);
    return NULL;
}
