/* What granian_wsgi.c, granian_answer.c and granian_response.c share. */

#ifndef MOORING_GRANIAN_H
#define MOORING_GRANIAN_H

#include "accelerator.h"

#include <stddef.h>

/* What handler of engines/granian/wsgi.py returns. */
typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    PyObject *application, *base, *running, *empty; /* what each environ has; requests; the input without a body */
    PyObject *handle, *body_of, *closing, *join, *cut, *stream, *rest, *log, *status_of, *again; /* functions */
} Granian;

/* One call of the application: its start_response, and what it gave there. */
typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    PyObject *body;                  /* the request's input, where an unread one ends the connection; or NULL */
    PyObject *headers, *written;     /* NULL before start_response, and before write() */
    PyObject *status_of, *again;     /* functions for what is no common case */
    long status;                     /* 0 before start_response */
    char sent;
} Response;

extern PyTypeObject Granian_Type, Response_Type;

/* Answer with what the application returned. -1: an error is set. */
int granian_answer(const Granian *self, PyObject *proto, PyObject *environ, Response *response, PyObject *result);

Response *granian_response(PyObject *status_of, PyObject *again);

#endif
