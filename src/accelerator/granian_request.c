/* A request for a WSGI application, from granian's scope: scheduler, environ_of and Exchange of
 * engines/granian/request.py are the specification. What streams is left to that file,
 * and every body to engines/granian/bodies.py. */

#include "granian.h"

#include <string.h>
#include <structmember.h>

#define KEYS 512 /* names of headers that are remembered */

/* -- the answer ------------------------------------------------------------------------------------ */

typedef struct {
    PyObject_HEAD
    PyObject *proto, *body, *scope; /* body: NULL where the request has none */
    PyObject *stream, *encode;      /* functions */
} Exchange;

static PyTypeObject Exchange_Type;

/* A text of a header as bytes; NULL: an error is set. */
static PyObject *bytes_in(PyObject *text) {
    if (PyUnicode_CheckExact(text) && PyUnicode_IS_COMPACT_ASCII(text))
        return PyBytes_FromStringAndSize((const char *)PyUnicode_1BYTE_DATA(text), PyUnicode_GET_LENGTH(text));
    return NULL;
}

/* The headers in bytes; what is uncommon is left to Python. */
static PyObject *encoded(const Exchange *self, PyObject *headers) {
    PyObject *made = PyList_CheckExact(headers) ? PyList_New(PyList_GET_SIZE(headers)) : NULL;
    for (Py_ssize_t index = 0; made != NULL && index < PyList_GET_SIZE(made); index++) {
        /* making a tuple may collect garbage, and so run code that empties the list */
        PyObject *pair = index < PyList_GET_SIZE(headers) ? PyList_GET_ITEM(headers, index) : NULL;
        PyObject *name = NULL, *value = NULL, *both = NULL;
        if (pair != NULL && PyTuple_CheckExact(pair) && PyTuple_GET_SIZE(pair) == 2) {
            name = bytes_in(PyTuple_GET_ITEM(pair, 0));
            value = name == NULL ? NULL : bytes_in(PyTuple_GET_ITEM(pair, 1));
            both = value == NULL ? NULL : PyTuple_Pack(2, name, value);
        }
        Py_XDECREF(name);
        Py_XDECREF(value);
        if (both == NULL)
            Py_CLEAR(made);
        else
            PyList_SET_ITEM(made, index, both);
    }
    if (made != NULL)
        return made;
    if (PyErr_Occurred())
        return NULL;
    return PyObject_CallOneArg(self->encode, headers);
}

/* Give granian a message; takes the reference to it. -1: an error is set. */
static int send(PyObject *proto, PyObject *message) {
    if (message == NULL)
        return -1;
    PyObject *given[] = {proto, message};
    PyObject *sent = PyObject_VectorcallMethod(t_send, given, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    Py_DECREF(message);
    Py_XDECREF(sent);
    return sent == NULL ? -1 : 0;
}

/* A message of that type with one or two more items. NULL: an error is set. */
static PyObject *message(PyObject *type, PyObject *key, PyObject *value, PyObject *more, PyObject *other) {
    PyObject *made = PyDict_New();
    if (made != NULL && (PyDict_SetItem(made, t_type, type) < 0 || PyDict_SetItem(made, key, value) < 0 ||
                         (more != NULL && PyDict_SetItem(made, more, other) < 0)))
        Py_CLEAR(made);
    return made;
}

static PyObject *Exchange_response_bytes(Exchange *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "response_bytes(status, headers, body)");
        return NULL;
    }
    if (self->body != NULL) { /* what was refused has an answer */
        PyObject *refused = PyObject_GetAttrString(self->body, "refused");
        int is = refused == NULL ? -1 : PyObject_IsTrue(refused);
        Py_XDECREF(refused);
        if (is < 0)
            return NULL;
        if (is)
            Py_RETURN_NONE;
    }
    PyObject *headers = encoded(self, args[1]);
    if (headers == NULL)
        return NULL;
    int sent = send(self->proto, message(t_response_start, t_status, args[0], t_headers, headers));
    Py_DECREF(headers);
    if (sent < 0 || send(self->proto, message(t_response_body, t_body, args[2], NULL, NULL)) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *Exchange_response_iter(Exchange *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "response_iter(status, headers, chunks)");
        return NULL;
    }
    return PyObject_CallFunctionObjArgs(self->stream, self, args[0], args[1], args[2], NULL);
}

#define EXCHANGE(DO) DO(proto) DO(body) DO(scope) DO(stream) DO(encode)

static int Exchange_traverse(Exchange *self, visitproc visit, void *arg) {
    EXCHANGE(VISIT)
    return 0;
}

static int Exchange_clear(Exchange *self) {
    Py_CLEAR(self->body); /* the others are in a cycle only with objects that are cleared themselves */
    return 0;
}

static void Exchange_dealloc(Exchange *self) {
    PyObject_GC_UnTrack(self);
    EXCHANGE(CLEAR)
    PyObject_GC_Del(self);
}

static PyMethodDef Exchange_methods[] = {
    {"response_bytes", (PyCFunction)(void (*)(void))Exchange_response_bytes, METH_FASTCALL, "Send a complete response."},
    {"response_iter", (PyCFunction)(void (*)(void))Exchange_response_iter, METH_FASTCALL, "Send a response of chunks."},
    {NULL},
};

static PyMemberDef Exchange_members[] = {
    {"proto", T_OBJECT, offsetof(Exchange, proto), READONLY, "Granian's object."},
    {"body", T_OBJECT, offsetof(Exchange, body), READONLY, "The request's body, or None."},
    {"scope", T_OBJECT, offsetof(Exchange, scope), READONLY, "Granian's scope."},
    {NULL},
};

static PyTypeObject Exchange_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "mooring._accelerator.Exchange",
    .tp_doc = "Where a request's answer goes.",
    .tp_basicsize = sizeof(Exchange),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_dealloc = (destructor)Exchange_dealloc,
    .tp_traverse = (traverseproc)Exchange_traverse,
    .tp_clear = (inquiry)Exchange_clear,
    .tp_methods = Exchange_methods,
    .tp_members = Exchange_members,
};

/* -- the environ ----------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    PyObject *handle, *waiting, *served, *parked, *look, *environ_of, *body_of, *stream, *encode, *failed;
    PyObject *keys; /* the environ's key of each header's name seen; None: the header is dropped */
    Py_ssize_t threads, active, fields;
} Requests;

/* The environ's key of a header's name; borrowed. NULL: it is dropped, or an error is set. */
static PyObject *key_of(Requests *self, PyObject *name) {
    PyObject *known = PyDict_GetItemWithError(self->keys, name);
    if (known != NULL || PyErr_Occurred())
        return known == Py_None ? NULL : known;
    const char *text = PyBytes_AS_STRING(name);
    Py_ssize_t size = PyBytes_GET_SIZE(name);
    PyObject *key;
    if (memchr(text, '_', size) != NULL) {
        key = Py_NewRef(Py_None);
    } else if (size == 12 && !memcmp(text, "content-type", 12)) {
        key = Py_NewRef(t_CONTENT_TYPE);
    } else if (size == 14 && !memcmp(text, "content-length", 14)) {
        key = Py_NewRef(t_CONTENT_LENGTH);
    } else {
        key = PyUnicode_New(size + 5, 127);
        if (key == NULL)
            return NULL;
        Py_UCS1 *to = PyUnicode_1BYTE_DATA(key);
        memcpy(to, "HTTP_", 5);
        for (Py_ssize_t at = 0; at < size; at++) /* a header's name is ASCII: hyper takes no other */
            to[5 + at] = text[at] == '-' ? '_' : (Py_UCS1)Py_TOUPPER((unsigned char)text[at] & 127);
    }
    if (PyDict_GET_SIZE(self->keys) >= KEYS)
        PyDict_Clear(self->keys); /* a client made them up */
    int kept = PyDict_SetItem(self->keys, name, key);
    bool dropped = key == Py_None;
    Py_DECREF(key); /* the table holds it */
    return kept < 0 || dropped ? NULL : key;
}

/* Add a header. -1: an error is set. */
static int add(Requests *self, PyObject *environ, PyObject *name, PyObject *value) {
    PyObject *key = key_of(self, name);
    if (key == NULL)
        return PyErr_Occurred() ? -1 : 0;
    Py_INCREF(key); /* another thread may clear the table */
    int outcome = -1;
    PyObject *text = PyUnicode_DecodeLatin1(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), NULL);
    PyObject *before = text == NULL ? NULL : PyDict_GetItemWithError(environ, key);
    if (before == NULL) {
        outcome = text == NULL || PyErr_Occurred() ? -1 : PyDict_SetItem(environ, key, text);
    } else if (key == t_CONTENT_TYPE || key == t_CONTENT_LENGTH) {
        outcome = 0; /* the first counts */
    } else if (PyUnicode_GET_LENGTH(key) == 9 && !memcmp(PyUnicode_1BYTE_DATA(key), "HTTP_HOST", 9)) {
        outcome = -1; /* Python refuses a second Host */
    } else { /* cookies cannot be joined by commas */
        bool cookie = PyUnicode_GET_LENGTH(key) == 11 && !memcmp(PyUnicode_1BYTE_DATA(key), "HTTP_COOKIE", 11);
        PyObject *both = PyUnicode_FromFormat(cookie ? "%U; %U" : "%U,%U", before, text);
        outcome = both == NULL ? -1 : PyDict_SetItem(environ, key, both);
        Py_XDECREF(both);
    }
    Py_XDECREF(text);
    Py_DECREF(key);
    return outcome;
}

static int hex(unsigned char digit) {
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    digit |= 32;
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

/* The path, decoded; a new reference. */
static PyObject *unquoted(const char *raw, Py_ssize_t size) {
    if (memchr(raw, '%', size) == NULL)
        return PyUnicode_DecodeLatin1(raw, size, NULL);
    char *text = PyMem_Malloc(size);
    if (text == NULL)
        return PyErr_NoMemory();
    Py_ssize_t length = 0;
    for (Py_ssize_t at = 0; at < size; at++) {
        int high = raw[at] == '%' && at + 2 < size ? hex(raw[at + 1]) : -1, low = high < 0 ? -1 : hex(raw[at + 2]);
        text[length++] = low < 0 ? raw[at] : (char)(high << 4 | low);
        at += low < 0 ? 0 : 2;
    }
    PyObject *made = PyUnicode_DecodeLatin1(text, length, NULL);
    PyMem_Free(text);
    return made;
}

/* Set a key to a new reference, which is taken. -1: an error is set. */
static int set(PyObject *environ, PyObject *key, PyObject *value) {
    int outcome = value == NULL ? -1 : PyDict_SetItem(environ, key, value);
    Py_XDECREF(value);
    return outcome;
}

static int set_address(PyObject *environ, PyObject *scope, PyObject *key, PyObject *host, PyObject *port) {
    PyObject *pair = PyDict_GetItemWithError(scope, key);
    if (pair == NULL || !PyTuple_CheckExact(pair) || PyTuple_GET_SIZE(pair) != 2)
        return -1;
    return PyDict_SetItem(environ, host, PyTuple_GET_ITEM(pair, 0)) < 0 ||
                   PyDict_SetItem(environ, port, PyTuple_GET_ITEM(pair, 1)) < 0
               ? -1
               : 0;
}

static int copy(PyObject *environ, PyObject *to, PyObject *scope, PyObject *from) {
    PyObject *value = PyDict_GetItemWithError(scope, from);
    return value == NULL ? -1 : PyDict_SetItem(environ, to, value);
}

/* What is not as it always is. */
static int fill(Requests *self, PyObject *environ, PyObject *scope) {
    PyObject *version = PyDict_GetItemWithError(scope, t_http_version), *raw = PyDict_GetItemWithError(scope, t_raw_path);
    PyObject *query = PyDict_GetItemWithError(scope, t_query_string), *headers = PyDict_GetItemWithError(scope, t_headers);
    if (version == NULL || raw == NULL || query == NULL || headers == NULL || !is_text(version, t_1_1) ||
        !PyBytes_CheckExact(raw) || !PyBytes_CheckExact(query) || !PyList_CheckExact(headers) ||
        PyList_GET_SIZE(headers) > self->fields)
        return -1;
    const char *path = PyBytes_AS_STRING(raw), *after = PyBytes_AS_STRING(query);
    Py_ssize_t length = PyBytes_GET_SIZE(raw), more = PyBytes_GET_SIZE(query);
    if (PyDict_SetItem(environ, t_SERVER_PROTOCOL, t_http_1_1) < 0 ||
        set_address(environ, scope, t_server, t_SERVER_NAME, t_SERVER_PORT) < 0 ||
        set_address(environ, scope, t_client, t_REMOTE_ADDR, t_REMOTE_PORT) < 0 ||
        copy(environ, t_REQUEST_METHOD, scope, t_method) < 0 || copy(environ, t_url_scheme, scope, t_scheme) < 0 ||
        set(environ, t_PATH_INFO, unquoted(path, length)) < 0 ||
        set(environ, t_QUERY_STRING, PyUnicode_DecodeLatin1(after, more, NULL)) < 0)
        return -1;
    PyObject *target = NULL;
    if (more) {
        PyObject *bytes = PyBytes_FromStringAndSize(NULL, length + 1 + more);
        if (bytes != NULL) {
            memcpy(PyBytes_AS_STRING(bytes), path, length);
            PyBytes_AS_STRING(bytes)[length] = '?';
            memcpy(PyBytes_AS_STRING(bytes) + length + 1, after, more);
            target = PyUnicode_DecodeLatin1(PyBytes_AS_STRING(bytes), length + 1 + more, NULL);
            Py_DECREF(bytes);
        }
    } else {
        target = PyUnicode_DecodeLatin1(path, length, NULL);
    }
    if (set(environ, t_RAW_URI, target) < 0)
        return -1;
    for (Py_ssize_t index = 0; index < PyList_GET_SIZE(headers); index++) {
        PyObject *pair = PyList_GET_ITEM(headers, index);
        if (!PyTuple_CheckExact(pair) || PyTuple_GET_SIZE(pair) != 2 || !PyBytes_CheckExact(PyTuple_GET_ITEM(pair, 0)) ||
            !PyBytes_CheckExact(PyTuple_GET_ITEM(pair, 1)) ||
            add(self, environ, PyTuple_GET_ITEM(pair, 0), PyTuple_GET_ITEM(pair, 1)) < 0)
            return -1;
    }
    return 0;
}

/* The environ; what is uncommon is left to Python. NULL: an error is set. */
static PyObject *environ_of(Requests *self, PyObject *scope) {
    PyObject *environ = PyDict_CheckExact(scope) ? PyDict_New() : NULL;
    if (environ != NULL && fill(self, environ, scope) == 0)
        return environ;
    Py_XDECREF(environ);
    return PyErr_Occurred() ? NULL : PyObject_CallOneArg(self->environ_of, scope);
}

/* -- the threads ----------------------------------------------------------------------------------- */

/* Give the request its body. -1: an error is set. */
static int give_body(Requests *self, PyObject *environ, Exchange *exchange) {
    PyObject *protocol = PyDict_GetItemWithError(environ, t_SERVER_PROTOCOL);
    bool has = PyDict_GetItemWithError(environ, t_CONTENT_LENGTH) != NULL ||
               PyDict_GetItemWithError(environ, t_HTTP_TRANSFER_ENCODING) != NULL ||
               (protocol != NULL && is_text(protocol, t_http_2));
    if (PyErr_Occurred())
        return -1;
    if (!has)
        return 0;
    PyObject *given[] = {NULL, exchange->proto, exchange->scope};
    exchange->body = PyObject_Vectorcall(self->body_of, given + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    return exchange->body == NULL ? -1 : PyDict_SetItem(environ, t_input, exchange->body);
}

/* Serve one request. -1: an error is set. */
static int serve(Requests *self, PyObject *watcher) {
    PyObject *proto = PyObject_GetAttr(watcher, t_proto), *scope = proto == NULL ? NULL : PyObject_GetAttr(watcher, t_scope);
    PyObject *environ = scope == NULL ? NULL : environ_of(self, scope);
    Exchange *exchange = environ == NULL ? NULL : PyObject_GC_New(Exchange, &Exchange_Type);
    int outcome = -1;
    if (exchange == NULL) {
        Py_XDECREF(proto);
        Py_XDECREF(scope);
    } else {
        exchange->proto = proto;
        exchange->scope = scope;
        exchange->body = NULL;
        exchange->stream = Py_NewRef(self->stream);
        exchange->encode = Py_NewRef(self->encode);
        PyObject_GC_Track(exchange);
        if (give_body(self, environ, exchange) == 0) {
            PyObject *given[] = {NULL, (PyObject *)exchange, environ};
            PyObject *done = PyObject_Vectorcall(self->handle, given + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
            outcome = done == NULL ? -1 : 0;
            Py_XDECREF(done);
        }
        if (exchange->body != NULL) {
            PyObject *type, *value, *traceback;
            PyErr_Fetch(&type, &value, &traceback);
            if (PySet_Discard(self->served, exchange->body) < 0)
                PyErr_Clear();
            if (PyObject_Size(self->parked) > 0) { /* one of those may have its place */
                PyObject *looked = PyObject_CallNoArgs(self->look);
                Py_XDECREF(looked);
            }
            PyErr_Clear();
            PyErr_Restore(type, value, traceback);
        }
        Py_DECREF(exchange);
    }
    Py_XDECREF(environ);
    return outcome;
}

/* Have the error that is set logged, and the request answered. */
static void fail(Requests *self, PyObject *watcher) {
    PyObject *error = take_error(), *done = PyObject_CallFunctionObjArgs(self->failed, watcher, error, NULL);
    if (done == NULL)
        PyErr_Clear();
    Py_XDECREF(done);
    Py_DECREF(error);
}

/* The next request that waits, a new reference; NULL: none does, and this thread is no longer counted. */
static PyObject *next(Requests *self) {
    PyObject *found = NULL;
    if (PyObject_Size(self->waiting) > 0)
        found = PyObject_CallMethodNoArgs(self->waiting, t_popleft);
    PyErr_Clear();
    self->active -= found == NULL; /* the interpreter's lock is held since the look: nothing was added */
    return found;
}

static PyObject *Requests_vectorcall(Requests *self, PyObject *const *args, size_t count, PyObject *names) {
    if (PyVectorcall_NARGS(count) != 1 || names != NULL) {
        PyErr_SetString(PyExc_TypeError, "schedule(watcher)");
        return NULL;
    }
    if (self->active >= self->threads)
        return PyObject_CallMethodOneArg(self->waiting, t_append, args[0]);
    self->active++;
    PyObject *watcher = Py_NewRef(args[0]);
    while (watcher != NULL) {
        if (serve(self, watcher) < 0)
            fail(self, watcher);
        Py_DECREF(watcher);
        watcher = next(self);
    }
    Py_RETURN_NONE;
}

#define MEMBERS(DO) DO(handle) DO(waiting) DO(served) DO(parked) DO(look) DO(environ_of) DO(body_of) DO(stream) DO(encode) DO(failed) DO(keys)

static int Requests_traverse(Requests *self, visitproc visit, void *arg) {
    MEMBERS(VISIT)
    return 0;
}

static int Requests_clear(Requests *self) {
    MEMBERS(CLEAR)
    return 0;
}

static void Requests_dealloc(Requests *self) {
    PyObject_GC_UnTrack(self);
    Requests_clear(self);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *Requests_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"handle", "threads", "fields", "waiting", "served", "parked", "look", "environ_of", "body_of", "stream", "encode", "failed", NULL};
    Requests given = {0}; /* borrowed: parsing may run Python code, and the collector must not see these references */
    if (PyType_Ready(&Exchange_Type) < 0 ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "OnnOOOOOOOOO", names, &given.handle, &given.threads, &given.fields,
                                     &given.waiting, &given.served, &given.parked, &given.look,
                                     &given.environ_of, &given.body_of, &given.stream, &given.encode, &given.failed))
        return NULL;
    Requests *self = (Requests *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->threads = given.threads;
    self->fields = given.fields;
    MEMBERS(HOLD)
    self->keys = PyDict_New();
    if (self->keys == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    self->call = (vectorcallfunc)Requests_vectorcall;
    return (PyObject *)self;
}

PyTypeObject Requests_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "mooring._accelerator.Requests",
    .tp_doc = "Requests(handle, threads, ...): what scheduler of engines/granian/request.py returns.",
    .tp_basicsize = sizeof(Requests),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(Requests, call),
    .tp_call = PyVectorcall_Call,
    .tp_new = Requests_new,
    .tp_dealloc = (destructor)Requests_dealloc,
    .tp_traverse = (traverseproc)Requests_traverse,
    .tp_clear = (inquiry)Requests_clear,
};
