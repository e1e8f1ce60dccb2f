/* A line of Apache's combined form, as _apache of logs/access/line.py makes it. Uncommon lines are left to that
 * function. */

#include "accelerator.h"

#include <string.h>

#define LONGEST 4095 /* bytes: below PIPE_BUF, so that a pipe takes it whole */

/* Places of an entry, which is a tuple: logs/access/parts.py. */
enum { HOST, PORT, METHOD, TARGET, VERSION, STATUS, SIZE, SECONDS, REFERER, AGENT, REQUEST_ID, TRACE_ID, EXTRA, ENTRY };

const Constant line_constants[] = {
    NUMBER(LONGEST), NUMBER(HOST), NUMBER(PORT), NUMBER(METHOD), NUMBER(TARGET), NUMBER(VERSION), NUMBER(STATUS),
    NUMBER(SIZE), NUMBER(SECONDS), NUMBER(REFERER), NUMBER(AGENT), NUMBER(REQUEST_ID),
    NUMBER(TRACE_ID), NUMBER(EXTRA), NUMBER(ENTRY), {NULL},
};

typedef struct {
    char text[LONGEST];
    Py_ssize_t length;
    bool failed; /* the line is too long, or a text cannot be encoded */
} Line;

static void put(Line *line, const char *text, Py_ssize_t length) {
    if (line->failed || length > LONGEST - line->length) {
        line->failed = true;
        return;
    }
    memcpy(line->text + line->length, text, length);
    line->length += length;
}

#define LITERAL(line, text) put(line, text, sizeof(text) - 1)

static void put_text(Line *line, PyObject *text) {
    Py_ssize_t length;
    if (line->failed || !PyUnicode_Check(text)) {
        line->failed = true;
        return;
    }
    const char *bytes = PyUnicode_AsUTF8AndSize(text, &length); /* cached in the text object where it is not ASCII */
    if (bytes == NULL) {
        PyErr_Clear(); /* a lone surrogate cannot be encoded */
        line->failed = true;
        return;
    }
    put(line, bytes, length);
}

static void put_number(Line *line, unsigned long long number) {
    char digits[20];
    int at = sizeof digits;
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    put(line, digits + at, sizeof digits - at);
}

/* Render the date again where the second has changed. -1: an error is set. */
static int new_second(Form *form) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now); /* may lag by one tick, 4 ms; a line shows seconds only */
    if (now.tv_sec == form->second && form->length)
        return 0;
    PyObject *text = PyObject_CallFunction(form->date, "L", (long long)now.tv_sec);
    if (text == NULL)
        return -1;
    Py_ssize_t length;
    const char *bytes = PyUnicode_AsUTF8AndSize(text, &length);
    if (bytes != NULL && length < (Py_ssize_t)sizeof form->text) {
        memcpy(form->text, bytes, length);
        form->length = (int)length;
        form->second = now.tv_sec;
    }
    Py_DECREF(text);
    return bytes == NULL ? -1 : 0;
}

int line_put(Row *row, Form *form, const Parts *parts, double now) {
    Line line;
    line.length = 0;
    line.failed = parts->status < 0 || parts->size < 0 || !(parts->seconds >= 0 && parts->seconds < 1e9);
    if (line.failed || row->writer == NULL)
        return 0;
    if (new_second(form) < 0)
        return -1;
    put_text(&line, parts->host);
    LITERAL(&line, " - - ");
    put(&line, form->text, form->length);
    LITERAL(&line, " \"");
    put_text(&line, parts->method);
    LITERAL(&line, " ");
    put_text(&line, parts->target);
    LITERAL(&line, " HTTP/");
    put_text(&line, parts->version);
    LITERAL(&line, "\" ");
    put_number(&line, (unsigned long long)parts->status);
    LITERAL(&line, " ");
    put_number(&line, (unsigned long long)parts->size);
    LITERAL(&line, " \"");
    put_text(&line, parts->referer);
    LITERAL(&line, "\" \"");
    put_text(&line, parts->agent);
    LITERAL(&line, "\"");
    if (form->timed) {
        LITERAL(&line, " ");
        put_number(&line, (unsigned long long)(parts->seconds * 1000000.0));
        LITERAL(&line, "us");
    }
    LITERAL(&line, "\n");
    if (line.failed)
        return 0;
    if (!ring_write(row->writer, line.text, line.length, now))
        row->cells[row->dropped] += 1.0;
    return 1;
}

/* -- for entries, whose parts are texts already --------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    Row *row;
    Form form;
} Apache;

static PyObject *Apache_put(Apache *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 2 || !PyTuple_CheckExact(args[0]) || PyTuple_GET_SIZE(args[0]) != ENTRY) {
        PyErr_SetString(PyExc_TypeError, "put(entry, now)");
        return NULL;
    }
    PyObject **entry = &PyTuple_GET_ITEM(args[0], 0);
    if (!PyLong_Check(entry[STATUS]) || !PyLong_Check(entry[SIZE]) || !PyFloat_Check(entry[SECONDS]))
        Py_RETURN_FALSE;
    int wide = 0, wider = 0;
    Parts parts = {.host = entry[HOST], .method = entry[METHOD], .target = entry[TARGET], .version = entry[VERSION],
                   .status = PyLong_AsLongAndOverflow(entry[STATUS], &wide),
                   .size = PyLong_AsLongAndOverflow(entry[SIZE], &wider), /* Linux: a long has the bits of a size */
                   .seconds = PyFloat_AS_DOUBLE(entry[SECONDS]), .referer = entry[REFERER], .agent = entry[AGENT]};
    double now = PyFloat_AsDouble(args[1]);
    if (now == -1.0 && PyErr_Occurred())
        return NULL;
    if (wide || wider)
        Py_RETURN_FALSE; /* Python has numbers of any length */
    int outcome = line_put(self->row, &self->form, &parts, now);
    return outcome < 0 ? NULL : PyBool_FromLong(outcome);
}

static PyMethodDef Apache_methods[] = {
    {"put", (PyCFunction)(void (*)(void))Apache_put, METH_FASTCALL,
     "put(entry, now): False means that logs/access/line.py is to make this line."},
    {NULL},
};

static PyObject *Apache_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"row", "date", "timed", NULL};
    PyObject *row, *date;
    int timed;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!Op", names, &Row_Type, &row, &date, &timed))
        return NULL;
    Apache *self = (Apache *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->row = (Row *)Py_NewRef(row);
    self->form.date = Py_NewRef(date);
    self->form.timed = timed;
    return (PyObject *)self;
}

static int Apache_traverse(Apache *self, visitproc visit, void *arg) {
    Py_VISIT(self->row);
    Py_VISIT(self->form.date);
    return 0;
}

static void Apache_dealloc(Apache *self) {
    PyObject_GC_UnTrack(self);
    Py_XDECREF(self->row);
    Py_XDECREF(self->form.date);
    Py_TYPE(self)->tp_free(self);
}

PyTypeObject Apache_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "mooring._accelerator.Apache",
    .tp_doc = "Apache(row, date, timed): writes lines of Apache's combined form.",
    .tp_basicsize = sizeof(Apache),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = Apache_new,
    .tp_dealloc = (destructor)Apache_dealloc,
    .tp_traverse = (traverseproc)Apache_traverse,
    .tp_methods = Apache_methods,
};
