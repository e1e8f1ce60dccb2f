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

/* Write the line of a finished exchange, where it has one. -1: an error is set. */
int asgi_line(Asgi *self, PyObject *exchange, long status, double seconds, double now);

#endif
