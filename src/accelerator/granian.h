/* Declarations that granian_wsgi.c, granian_request.c, granian_answer.c and granian_response.c share. */

#ifndef MOORING_GRANIAN_H
#define MOORING_GRANIAN_H

#include "accelerator.h"

#include <stddef.h>

/* What handler of engines/granian/wsgi.py returns. */
typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    PyObject *application, *base, *running, *empty; /* base: in each environ; running: requests; empty: an input */
    PyObject *handle, *body_of, *closing, *join, *cut, *stream, *rest, *log, *status_of, *again; /* functions */
} Granian;

/* One call of the application: its start_response, and the arguments that it was called with. */
typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    PyObject *body;                  /* the request's input, if the connection must end where it is unread; or NULL */
    PyObject *headers, *written;     /* NULL before start_response, and before write() */
    PyObject *status_of, *again;     /* functions for uncommon cases */
    long status;                     /* 0 before start_response */
    char sent;
} Response;

extern PyTypeObject Granian_Type, Requests_Type, Response_Type;

/* Send what the application returned. -1: an error is set. */
int granian_answer(const Granian *self, PyObject *proto, PyObject *environ, Response *response, PyObject *result);

Response *granian_response(PyObject *status_of, PyObject *again);

#endif
