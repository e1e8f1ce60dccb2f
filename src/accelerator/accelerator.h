/* Declarations that the files of mooring._accelerator share. What the module is for: module.c. */

#ifndef MOORING_ACCELERATOR_H
#define MOORING_ACCELERATOR_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

/* -- constants of the Python twins ---------------------------------------------------------------- */

/* A constant that a C file and its Python twin both have. The twin is the specification: a change there has to be made
 * here too. The twin compares them: `agrees` of scoreboard/accelerator.py. It is a text, or where `text` is NULL a
 * number. */
typedef struct {
    const char *name; /* NULL: the table's end */
    long long number;
    const char *text;
} Constant;

#define NUMBER(name) {#name, name, NULL}
#define TEXT(name) {#name, 0, name}

extern const Constant ring_constants[], row_constants[], line_constants[], asgi_constants[], asgi_line_constants[],
    wsgi_constants[], wsgi_line_constants[];

#define FAILED 500 /* the status of a request without a response: instrument/meter.py */

/* Places of a request's ids, which are a tuple: AsgiIds of instrument/request_id.py. */
enum { ID_REQUEST, ID_TRACE, ID_HEADERS, ID_COUNT };

/* -- texts: text.c ------------------------------------------------------------------------------- */

/* The texts that are looked for: keys and values of scopes, messages and environs, and names of attributes. */
#define TEXTS(DO)                                                                                                  \
    DO(type, "type") DO(body, "body") DO(more_body, "more_body") DO(status, "status") DO(path, "path")             \
    DO(client, "client") DO(method, "method") DO(headers, "headers") DO(http_version, "http_version")              \
    DO(response_start, "http.response.start") DO(response_body, "http.response.body")                              \
    DO(response_pathsend, "http.response.pathsend") DO(RAW_URI, "RAW_URI") DO(REQUEST_URI, "REQUEST_URI")          \
    DO(SCRIPT_NAME, "SCRIPT_NAME")                                                                                 \
    DO(PATH_INFO, "PATH_INFO") DO(QUERY_STRING, "QUERY_STRING") DO(REQUEST_METHOD, "REQUEST_METHOD")               \
    DO(SERVER_PROTOCOL, "SERVER_PROTOCOL") DO(REMOTE_ADDR, "REMOTE_ADDR") DO(CONTENT_LENGTH, "CONTENT_LENGTH")     \
    DO(HTTP_HOST, "HTTP_HOST") DO(HTTP_REFERER, "HTTP_REFERER") DO(HTTP_USER_AGENT, "HTTP_USER_AGENT")             \
    DO(HTTP_TRANSFER_ENCODING, "HTTP_TRANSFER_ENCODING") DO(HTTP_X_FORWARDED_FOR, "HTTP_X_FORWARDED_FOR")          \
    DO(HTTP_X_FORWARDED_PROTO, "HTTP_X_FORWARDED_PROTO") DO(file_wrapper, "wsgi.file_wrapper")                     \
    DO(input, "wsgi.input") DO(HEAD, "HEAD") DO(http_1_1, "HTTP/1.1") DO(1_1, "1.1") DO(dash, "-")                 \
    DO(begun, "begun") DO(ended, "ended") DO(close, "close") DO(exc_info, "exc_info")                              \
    DO(response_bytes, "response_bytes") DO(CONTENT_TYPE, "CONTENT_TYPE") DO(REMOTE_PORT, "REMOTE_PORT")           \
    DO(SERVER_NAME, "SERVER_NAME") DO(SERVER_PORT, "SERVER_PORT") DO(url_scheme, "wsgi.url_scheme")                \
    DO(scheme, "scheme") DO(server, "server") DO(raw_path, "raw_path") DO(query_string, "query_string")            \
    DO(http_2, "HTTP/2") DO(proto, "proto") DO(scope, "scope") DO(send, "send") DO(append, "append")               \
    DO(popleft, "popleft")
#define DECLARE(name, text) extern PyObject *t_##name;
TEXTS(DECLARE)
#undef DECLARE

/* The bytes of a part of a body; -1: an error is set, since the object has no bytes. It may run Python code. */
Py_ssize_t bytes_of(PyObject *part);

/* The sum of two sizes, which are not negative; at most PY_SSIZE_T_MAX: a part may say that it has 2**63-1 bytes. */
static inline Py_ssize_t sum_of(Py_ssize_t size, Py_ssize_t more) {
    return more > PY_SSIZE_T_MAX - size ? PY_SSIZE_T_MAX : size + more;
}

/* Whether memory begins where a double may, and its cells are so read and written whole. */
static inline bool is_aligned(const void *memory) { return (uintptr_t)memory % sizeof(double) == 0; }

/* Intern the texts. -1: an error is set. */
int text_intern(void);

/* A dictionary's value for a key; a new reference, since the next lookup may run Python code where a key is of a type of
 * its own. NULL without an error: there is none. */
static inline PyObject *value_of(PyObject *dict, PyObject *key) {
    PyObject *value = PyDict_GetItemWithError(dict, key);
    Py_XINCREF(value);
    return value;
}

/* Whether `text`, which may be any object, equals `other`, which is an ASCII text. */
bool is_text(PyObject *text, PyObject *other);

/* An address: its most characters, and those that it may have besides letters and digits: logs/escape.py. */
#define HOST_LIMIT 253
#define HOST_OTHERS "._:%-"

/* Whether a str is an address that needs no escaping; others are left to host_field of logs/escape.py. */
bool is_address(PyObject *host);

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

/* Put whole lines into the ring; false: there is no room for them. Never waits. */
bool ring_write(Writer *self, const char *lines, Py_ssize_t length, double now);

/* -- the worker's row: row.c ---------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    Py_buffer row;
    double *cells;
    Py_ssize_t cell_count;
    double *bounds;
    Py_ssize_t bound_count;
    Py_ssize_t histogram, durations, overflow, raised, dropped, moves, streams; /* cells */
    Py_ssize_t first, stop, stride, hint;                       /* the table of requests in flight */
    Writer *writer;                                             /* NULL: no access log */
} Row;

extern PyTypeObject Row_Type;

double monotonic(void);
Py_ssize_t row_begin(Row *self, double base, const char *path, Py_ssize_t length, double now);
void row_end(Row *self, Py_ssize_t place);

/* A part of a body has passed. */
void row_move(Row *self);

/* A response that is no list has begun (1), or ended (-1). */
void row_stream(Row *self, int change);
void row_count(Row *self, Py_ssize_t base, long status, double seconds);

/* -- a line of the default forms: line.c ---------------------------------------------------------- */

typedef struct {
    PyObject *host, *method, *target, *version, *referer, *agent; /* borrowed */
    long status;
    Py_ssize_t size;
    double seconds;
} Parts;

typedef struct {
    PyObject *date;     /* a callable: from seconds since the epoch to that second's text */
    bool timed;         /* whether the duration is at the line's end */
    char text[64];      /* the date, as the text of `second` */
    int length;
    time_t second;
} Form;

/* Make the line and write it. 1: written, or dropped and counted; 0: an uncommon line, left to Python; -1: an error is
 * set. */
int line_put(Row *row, Form *form, const Parts *parts, double now);

extern PyTypeObject Apache_Type;

#endif
