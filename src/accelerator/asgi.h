/* Declarations that the files for ASGI share: asgi.c, asgi_line.c. */

#ifndef MOORING_ASGI_H
#define MOORING_ASGI_H

#include "accelerator.h"

/* Places of an exchange's list: instrument/asgi_line.py. */
enum { SEND, SCOPE, PATH, QUERY, BEGAN, BASE, PLACE, IDS, SIZE, OPENING, DONE, EXCHANGE };

/* An object with the functions that a worker calls for each request: what _recorder of instrument/asgi.py returns. */
typedef struct {
    PyObject_HEAD
    Row *row;
    PyObject *drain, *closing, *with_headers, *file_size, *status_of;
    PyObject *entries;                                /* None: no access log */
    PyObject *wanted, *nameless;                      /* None: every request has a line */
    PyObject *methods, *targets, *target_field, *agents, *agent_field;
    Form form;                                        /* date is NULL: the form is left to Python */
} Asgi;

extern PyTypeObject Asgi_Type;

/* An item of an exchange; a new reference. NULL: an error is set. The application has the list, as the `__self__` of its
 * send(): it may have changed or emptied it, and any call of Python code may do so. */
static inline PyObject *item_of(PyObject *exchange, Py_ssize_t index) {
    if (PyList_GET_SIZE(exchange) == EXCHANGE)
        return Py_NewRef(PyList_GET_ITEM(exchange, index));
    PyErr_SetString(PyExc_IndexError, "an exchange was changed");
    return NULL;
}

/* An item of an exchange that is a number. -1 with an error set: it is none. */
static inline Py_ssize_t number_of(PyObject *exchange, Py_ssize_t index) {
    PyObject *item = item_of(exchange, index);
    Py_ssize_t number = item == NULL ? -1 : PyLong_AsSsize_t(item);
    Py_XDECREF(item);
    return number;
}

/* Write the line of a finished exchange, where it has one. -1: an error is set. */
int asgi_line(Asgi *self, PyObject *exchange, long status, double seconds, double now);

#endif
