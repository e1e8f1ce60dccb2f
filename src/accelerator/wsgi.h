/* Declarations that the files for WSGI share: wsgi.c, wsgi_begin.c, wsgi_line.c, wsgi_report.c, wsgi_response.c. */

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
    PyObject *bases, *other;                               /* the first cell of each method; of all other methods */
    PyObject *nothing;                                     /* the ids of a request without ids */
    PyObject *target_of, *code, *with_headers, *closing, *watch; /* functions for uncommon cases */
    PyObject *failure;                                     /* makes what a request raises to end its process a failure */
    PyObject *log;                                         /* None: no access log */
    PyObject *wanted, *nameless;                           /* None: every request has a line */
    PyObject *methods;
    bool always;                                           /* whether prepare is called for every request */
    Form form;                                             /* date is NULL: the form is left to Python */
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

/* Count a request and write its line; `status` is NULL where the application has failed. -1: an error is set. */
int wsgi_report(Request *request, PyObject *status, Py_ssize_t size);

/* As wsgi_report, for where an error is set already: that error stays set. */
void wsgi_report_failed(Request *request, PyObject *status, Py_ssize_t size);

/* Where the error that is set would end the process (SystemExit), replace it: failure_in of instrument/wsgi_response.py. */
void wsgi_keep_process(const Request *request);

/* Make a request and give it its place among those in flight. NULL: an error is set. */
Request *wsgi_request(Wsgi *self, PyObject *environ, PyObject *start_response);

/* Calling a request: PEP 3333's start_response. */
PyObject *Request_call(Request *self, PyObject *const *args, size_t count, PyObject *names);

/* The body that the server gets; takes the reference to `body`. NULL: an error is set. */
PyObject *wsgi_body(Request *request, PyObject *body);

/* Write the line of a request, where it has one. -1: an error is set. */
int wsgi_line(Request *request, long status, Py_ssize_t size, double seconds, double now);

#endif
