/* What the files of the WSGI half share: wsgi.c, wsgi_begin.c, wsgi_line.c, wsgi_report.c, wsgi_response.c. */

#ifndef MOORING_WSGI_H
#define MOORING_WSGI_H

#include "accelerator.h"

#include <stddef.h>

/* The wrapper around an application: what wrap_wsgi of instrument/wsgi.py returns. */
typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    Row *row;
    PyObject *application, *drain;
    PyObject *identify;                                    /* None: requests have no ids */
    PyObject *prepare;
    PyObject *bases, *other;                               /* a method's cells, and those of all others */
    PyObject *nothing;                                     /* the ids of a request that has none */
    PyObject *target_of, *code, *with_headers, *closing, *watch; /* functions for what is no common case */
    PyObject *log;                                         /* None: no access log */
    PyObject *wanted, *nameless;                           /* None: every request has a line */
    PyObject *methods;
    bool always;                                           /* prepare is for every request */
    Form form;                                             /* without a date: not one of ours */
} Wsgi;

/* One request: what the application gets as its start_response. */
typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    Wsgi *wsgi;
    PyObject *environ, *start_response, *ids, *target;
    PyObject *status, *headers;                            /* NULL before the application has called it */
    PyObject *write;
    double began;
    Py_ssize_t base, place, written;
} Request;

extern PyTypeObject Wsgi_Type, Request_Type, Stream_Type;

#define PCHAR "/!$&'()*+,;=:@" /* as in instrument/wsgi_line.py */

/* Count a request and make its line; without a status the application has failed. -1: an error is set. */
int wsgi_report(Request *request, PyObject *status, Py_ssize_t size);

/* As wsgi_report, where an error is set that is to stay, whatever happens here. */
void wsgi_report_failed(Request *request, PyObject *status, Py_ssize_t size);

/* A request that has come: it has its place among those in flight. NULL: an error is set. */
Request *wsgi_request(Wsgi *self, PyObject *environ, PyObject *start_response);

/* What a call of the request does: PEP 3333's start_response. */
PyObject *Request_call(Request *self, PyObject *const *args, size_t count, PyObject *names);

/* The body as the server is to have it; takes the reference. NULL: an error is set. */
PyObject *wsgi_body(Request *request, PyObject *body);

/* Have the line of a request written, where it has one. -1: an error is set. */
int wsgi_line(Request *request, long status, Py_ssize_t size, double seconds, double now);

#endif
