/* Sends the response to a request on granian. Has no twin of its name: `stream`, `begun`, `joined`, `cut` and head_of of
 * engines/granian/response.py are the specification. Responses that are neither a list nor one complete chunk are left
 * to that file. */

#include "granian.h"

#include <string.h>

/* Send a complete response. */
static int send(const Granian *self, PyObject *proto, Response *response, PyObject *body) {
    PyObject *headers = Py_NewRef(response->headers), *ended = NULL;
    if (response->body != NULL) { /* the request has a body, which the application may have read to its end or not */
        ended = PyObject_GetAttr(response->body, t_ended);
        if (ended == NULL) {
            Py_DECREF(headers);
            return -1;
        }
        if (ended != Py_True)
            Py_SETREF(headers, PyObject_CallOneArg(self->closing, headers));
        Py_DECREF(ended);
    }
    PyObject *status = headers == NULL ? NULL : PyLong_FromLong(response->status), *sent = NULL;
    if (status != NULL) {
        PyObject *given[] = {proto, status, headers, body};
        sent = PyObject_VectorcallMethod(t_response_bytes, given, 4 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    }
    Py_XDECREF(headers);
    Py_XDECREF(status);
    Py_XDECREF(sent);
    return sent == NULL ? -1 : 0;
}

enum { NONE = -1, OTHER = -2 };

/* The Content-Length of a response; NONE: it has none; OTHER: an uncommon case, which is left to Python. */
static Py_ssize_t declared(PyObject *headers) {
    static const char wanted[] = "content-length";
    if (!PyList_CheckExact(headers))
        return OTHER;
    for (Py_ssize_t index = 0; index < PyList_GET_SIZE(headers); index++) {
        PyObject *pair = PyList_GET_ITEM(headers, index);
        if (!PyTuple_CheckExact(pair) || PyTuple_GET_SIZE(pair) != 2)
            return OTHER;
        PyObject *name = PyTuple_GET_ITEM(pair, 0), *value = PyTuple_GET_ITEM(pair, 1);
        if (!PyUnicode_CheckExact(name) || !PyUnicode_CheckExact(value) || !PyUnicode_IS_ASCII(name))
            return OTHER;
        if (PyUnicode_GET_LENGTH(name) != sizeof wanted - 1)
            continue;
        const char *text = (const char *)PyUnicode_1BYTE_DATA(name); /* the usual spelling first: it costs a tenth */
        if (memcmp(text, "Content-Length", sizeof wanted - 1) && PyOS_strnicmp(text, wanted, sizeof wanted - 1))
            continue;
        Py_ssize_t digits = PyUnicode_GET_LENGTH(value), length = 0;
        if (!PyUnicode_IS_ASCII(value) || !digits || digits > 15)
            return OTHER;
        for (Py_ssize_t at = 0; at < digits; at++) {
            Py_UCS1 digit = PyUnicode_1BYTE_DATA(value)[at];
            if (digit < '0' || digit > '9')
                return OTHER;
            length = length * 10 + (digit - '0');
        }
        return length;
    }
    return NONE;
}

/* The body, cut to its declared length; takes the reference. */
static PyObject *cut(const Granian *self, Response *response, PyObject *body) {
    if (!PyBytes_Check(body)) {
        PyErr_SetString(PyExc_TypeError, "a response's body is bytes");
        Py_DECREF(body);
        return NULL;
    }
    Py_ssize_t length = declared(response->headers);
    if (length == NONE || length >= PyBytes_GET_SIZE(body))
        return body;
    PyObject *part = length >= 0 ? PyBytes_FromStringAndSize(PyBytes_AS_STRING(body), length)
                                 : PyObject_CallFunctionObjArgs(self->cut, response, body, NULL);
    Py_DECREF(body);
    return part;
}

/* Call the result's close(), if it has one, even where an error is set; an error of close() replaces that error. */
static int finish(PyObject *result) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *close = PyObject_GetAttr(result, t_close), *closed = NULL;
    if (close == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        closed = Py_NewRef(Py_None);
    } else if (close != NULL) {
        closed = PyObject_CallNoArgs(close);
        Py_DECREF(close);
    }
    if (closed == NULL) {
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
        return -1;
    }
    Py_DECREF(closed);
    PyErr_Restore(type, value, traceback);
    return type == NULL ? 0 : -1;
}

/* The response is sent: let the rest of the iterable run. An error that it raises can only be logged. */
static int run_out(const Granian *self, PyObject *chunks, PyObject *result) {
    PyObject *more;
    while ((more = PyIter_Next(chunks)) != NULL) /* bytes beyond the declared length are not sent */
        Py_DECREF(more);
    if (finish(result) == 0)
        return 0;
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return -1;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL)
        PyException_SetTraceback(value, traceback);
    PyObject *logged = PyObject_CallOneArg(self->log, value);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    Py_XDECREF(logged);
    return logged == NULL ? -1 : 0;
}

/* Send an iterable. In the common case, its first chunk has all bytes of the declared length. */
static int iterate(const Granian *self, PyObject *proto, Response *response, PyObject *result, Py_ssize_t length) {
    PyObject *headers = Py_NewRef(response->headers); /* until the first byte, start_response may be called again */
    PyObject *chunks = PyObject_GetIter(result), *chunk = chunks == NULL ? NULL : PyIter_Next(chunks);
    int outcome = -1;
    if (chunk == NULL && PyErr_Occurred()) {
        finish(result);
    } else if (chunk != NULL && PyBytes_CheckExact(chunk) && PyBytes_GET_SIZE(chunk) == length &&
               response->written == NULL && response->headers == headers) {
        response->sent = 1;
        outcome = send(self, proto, response, chunk);
        outcome = outcome == 0 ? run_out(self, chunks, result) : finish(result);
    } else {
        PyObject *first = chunk == NULL ? PyList_New(0) : Py_BuildValue("[O]", chunk);
        PyObject *done = first == NULL ? NULL
                                       : PyObject_CallFunctionObjArgs(self->rest, proto, response, result, chunks, first, NULL);
        outcome = done == NULL ? -1 : 0;
        Py_XDECREF(first);
        Py_XDECREF(done);
    }
    Py_XDECREF(chunk);
    Py_XDECREF(chunks);
    Py_DECREF(headers);
    return outcome;
}

int granian_answer(const Granian *self, PyObject *proto, PyObject *environ, Response *response, PyObject *result) {
    PyObject *method = PyDict_GetItemWithError(environ, t_REQUEST_METHOD);
    if (method == NULL && PyErr_Occurred())
        PyErr_Clear(); /* a key that the application has put there; Python's half looks on its own */
    bool head = method != NULL && is_text(method, t_HEAD);
    if (!head && response->status && PyList_Check(result)) {
        bool one = PyList_CheckExact(result) && PyList_GET_SIZE(result) == 1 && response->written == NULL;
        PyObject *body = one ? PyList_GET_ITEM(result, 0) : NULL;
        body = body != NULL && PyBytes_CheckExact(body)
                   ? Py_NewRef(body)
                   : PyObject_CallFunctionObjArgs(self->join, response, result, NULL);
        body = body == NULL ? NULL : cut(self, response, body);
        int outcome = body == NULL ? -1 : send(self, proto, response, body);
        Py_XDECREF(body);
        return outcome;
    }
    Py_ssize_t length = !head && response->status && response->written == NULL ? declared(response->headers) : -1;
    if (length > 0)
        return iterate(self, proto, response, result, length);
    PyObject *done =
        PyObject_CallFunctionObjArgs(self->stream, proto, response, result, head ? Py_True : Py_False, NULL);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}
