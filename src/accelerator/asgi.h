/* What the files of the ASGI half share: asgi.c, asgi_line.c. */

#ifndef MOORING_ASGI_H
#define MOORING_ASGI_H

#include "accelerator.h"

/* Places of an exchange's list: instrument/asgi_line.py. */
enum { SEND, SCOPE, PATH, QUERY, BEGAN, BASE, PLACE, IDS, SIZE, OPENING, DONE, EXCHANGE };

/* The functions of a worker: what _recorder of instrument/asgi.py returns. */
typedef struct {
    PyObject_HEAD
    Row *row;
    PyObject *drain, *closing, *with_headers, *file_size, *status_of;
    PyObject *entries;                                /* None: no access log */
    PyObject *wanted, *nameless;                      /* None: every request has a line */
    PyObject *methods, *targets, *target_field, *agents, *agent_field;
    Form form;                                        /* without a date: not one of ours */
} Asgi;

extern PyTypeObject Asgi_Type;

/* Have the line of a finished exchange written, where it has one. -1: an error is set. */
int asgi_line(Asgi *self, PyObject *exchange, long status, double seconds, double now);

#endif
