/* What the files of mooring._accelerator share. See module.c for what it is. */

#ifndef MOORING_ACCELERATOR_H
#define MOORING_ACCELERATOR_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <time.h>

/* -- the access log's ring: ring.c --------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    Py_buffer memory;
    long long at, lap, limit; /* as in scoreboard/ring.py */
    long long page, size, full;
    double due, delay;
    int wake;
} Writer;

extern PyTypeObject Writer_Type;

/* Put whole lines into the ring; false where there is no room. Never waits. */
bool ring_write(Writer *self, const char *lines, Py_ssize_t length, double now);

/* -- the worker's row: row.c ---------------------------------------------------------------------- */

/* Places of an exchange's list: instrument/asgi_line.py. */
enum { SEND, SCOPE, PATH, QUERY, BEGAN, BASE, PLACE, IDS, SIZE, OPENING, DONE, EXCHANGE };

typedef struct {
    PyObject_HEAD
    Py_buffer row;
    double *cells;
    Py_ssize_t cell_count;
    double *bounds;
    Py_ssize_t bound_count;
    Py_ssize_t histogram, durations, overflow, raised, dropped; /* cells */
    Py_ssize_t first, stop, stride, hint;                       /* the table of requests in flight */
    Writer *writer;                                             /* NULL: no access log */
} Row;

extern PyTypeObject Row_Type;

double monotonic(void);
Py_ssize_t row_begin(Row *self, double base, const char *path, Py_ssize_t length, double now);
void row_end(Row *self, Py_ssize_t place);
void row_count(Row *self, Py_ssize_t base, long status, double seconds);

/* -- a line of the default forms: line.c ---------------------------------------------------------- */

typedef struct {
    PyObject *host, *method, *target, *version, *referer, *agent; /* borrowed */
    long status;
    Py_ssize_t size;
    double seconds;
} Parts;

typedef struct {
    PyObject *date;     /* a callable: seconds since the epoch, to the text of that second */
    bool timed;         /* with the duration at the end */
    char text[64];      /* this second's */
    int length;
    time_t second;
} Form;

/* Make the line and write it. 1: done, or dropped and counted; 0: not a case for here; -1: an error is set. */
int line_put(Row *row, Form *form, const Parts *parts, double now);

extern PyTypeObject Apache_Type;

/* -- asgi.c, asgi_line.c --------------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    Row *row;
    PyObject *drain, *closing, *with_headers, *file_size;
    PyObject *entries;                                /* None: no access log */
    PyObject *wanted, *nameless;                      /* None: every request has a line */
    PyObject *methods, *targets, *target_field, *agents, *agent_field;
    Form form;                                        /* without a date: not one of ours */
} Asgi;

extern PyTypeObject Asgi_Type;
extern PyObject *s_client, *s_method, *s_headers, *s_http_version, *s_head;

/* Whether a text is that one, which is ASCII. */
bool is_text(PyObject *text, PyObject *other);

/* Whether it is one as escape.host_field wants it; what is none is that one's to escape. A str. */
bool is_address(PyObject *host);

/* Have the line of a finished exchange written, where it has one. -1: an error is set. */
int asgi_line(Asgi *self, PyObject *exchange, long status, double seconds, double now);

extern PyObject *dash; /* "-" */

#endif
