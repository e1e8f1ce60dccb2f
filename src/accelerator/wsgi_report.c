/* The end of a request, on WSGI: its counts, and its access log line. Has no twin of its name: `report` of _recorder
 * and _code, both in instrument/wsgi.py, are the specification. And the change of an error that would end the process. */

#include "wsgi.h"

/* The number of a status such as "200 OK"; -1: an error is set. */
static long code_of(const Wsgi *self, PyObject *status) {
    if (status == NULL)
        return FAILED;
    if (PyUnicode_CheckExact(status) && PyUnicode_IS_ASCII(status) && PyUnicode_GET_LENGTH(status) >= 3) {
        const char *text = (const char *)PyUnicode_1BYTE_DATA(status);
        long number = 0;
        int digits = 0;
        for (; digits < 3 && text[digits] >= '0' && text[digits] <= '9'; digits++)
            number = number * 10 + (text[digits] - '0');
        return digits == 3 ? number : FAILED;
    }
    PyObject *found = PyObject_CallOneArg(self->code, status);
    long number = found == NULL ? -1 : PyLong_AsLong(found);
    Py_XDECREF(found);
    return number;
}

int wsgi_report(Request *request, PyObject *status, Py_ssize_t size) {
    const Wsgi *self = request->wsgi;
    row_end(self->row, request->place); /* first, since the rest may fail because of what the application has sent */
    Py_XINCREF(status); /* its own methods may call start_response, which replaces it */
    int said = status == NULL ? 0 : PyObject_IsTrue(status);
    long code = said < 0 ? -1 : code_of(self, status);
    Py_XDECREF(status);
    if (code == -1 && PyErr_Occurred())
        return -1;
    double now = monotonic(), seconds = now - request->began;
    row_count(self->row, request->base, code, seconds);
    if (!said)
        self->row->cells[self->row->raised] += 1.0;
    return self->log == Py_None ? 0 : wsgi_line(request, code, size, seconds, now);
}

void wsgi_report_failed(Request *request, PyObject *status, Py_ssize_t size) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (wsgi_report(request, status, size) < 0)
        PyErr_WriteUnraisable((PyObject *)request->wsgi);
    PyErr_Restore(type, value, traceback);
}

void wsgi_keep_process(const Request *request) {
    if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_Exception))
        return;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL)
        PyException_SetTraceback(value, traceback);
    PyObject *found = PyObject_CallFunctionObjArgs(request->wsgi->failure, request->environ, value, NULL);
    if (found == NULL)
        PyErr_WriteUnraisable((PyObject *)request->wsgi);
    if (found == NULL || found == Py_None) {
        Py_XDECREF(found);
        PyErr_Restore(type, value, traceback);
        return;
    }
    PyException_SetCause(found, value); /* takes the reference */
    Py_DECREF(type);
    Py_XDECREF(traceback);
    PyErr_SetObject((PyObject *)Py_TYPE(found), found);
    Py_DECREF(found);
}
