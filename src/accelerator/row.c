/* A worker's row of the scoreboard: counts, histogram, requests in flight. scoreboard/row.py, and `table` of
 * instrument/meter.py, are the specification. The interpreter's lock makes each of these functions atomic
 * for threads. */

#include "accelerator.h"

#include <string.h>

#define MOST 9007199254740992 /* 2**53: no count is higher */
#define CLASSES 8 /* cells of each method: one for each first digit of a status */

/* A request in flight, in the form of Python's struct: when it began, its method's first cell, its path. */
#define PATH_BYTES 112
#define QUOTED(number) #number
#define IN_QUOTES(number) QUOTED(number)
#define RECORD "dd" IN_QUOTES(PATH_BYTES) "s"
#define RECORD_CELLS (2 + PATH_BYTES / 8)

const Constant row_constants[] = {NUMBER(CLASSES), TEXT(RECORD), {NULL}};

double monotonic(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Store a cell. A process that reads the row at the same time sees whole values, and sees the stores in order. */
static void put(Row *self, Py_ssize_t cell, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    __atomic_store_n((uint64_t *)self->cells + cell, bits, __ATOMIC_RELEASE);
}

static void add(Row *self, Py_ssize_t cell, double value) { put(self, cell, self->cells[cell] + value); }

/* Record a request in flight. Returns its place; 0: the table is full. */
Py_ssize_t row_begin(Row *self, double base, const char *path, Py_ssize_t length, double now) {
    Py_ssize_t place = self->hint;
    do {
        Py_ssize_t next = place + self->stride < self->stop ? place + self->stride : self->first;
        if (self->cells[place] == 0.0) {
            self->hint = next;
            put(self, place + 1, 0.0); /* tells a reader that the record is being written */
            put(self, place, now);
            char *data = (char *)(self->cells + place + 2);
            Py_ssize_t most = PATH_BYTES, size = length < most ? length : most;
            memcpy(data, path, size);
            memset(data + size, 0, most - size);
            put(self, place + 1, base);
            return place;
        }
        place = next;
    } while (place != self->hint);
    add(self, self->overflow, 1.0);
    return 0;
}

/* A place that is in no table is ignored: the place of an exchange, which is a list, may have been changed. */
void row_end(Row *self, Py_ssize_t place) {
    if (!place) {
        add(self, self->overflow, -1.0);
    } else if (place >= self->first && place < self->stop && (place - self->first) % self->stride == 0) {
        put(self, place, 0.0);
        self->hint = place; /* use this place next: it is still in the processor's cache */
    }
}

void row_move(Row *self) { add(self, self->moves, 1.0); }

void row_stream(Row *self, int change) { add(self, self->streams, change); }

void row_count(Row *self, Py_ssize_t base, long status, double seconds) {
    Py_ssize_t low = 0, high = self->bound_count;
    while (low < high) { /* find the first bound that is not below `seconds` */
        Py_ssize_t middle = (low + high) / 2;
        if (self->bounds[middle] < seconds)
            low = middle + 1;
        else
            high = middle;
    }
    if (base >= 0 && base <= self->histogram - CLASSES) /* the methods' cells are before it */
        add(self, base + (status / 100 & (CLASSES - 1)), 1.0);
    add(self, self->histogram + low, 1.0);
    add(self, self->durations, seconds);
}

static PyObject *Row_begin(Row *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 3 || !PyBytes_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "begin(base, path, now): path is bytes");
        return NULL;
    }
    double base = PyFloat_AsDouble(args[0]);
    double now = base == -1.0 && PyErr_Occurred() ? -1.0 : PyFloat_AsDouble(args[2]);
    if (PyErr_Occurred())
        return NULL;
    return PyLong_FromSsize_t(row_begin(self, base, PyBytes_AS_STRING(args[1]), PyBytes_GET_SIZE(args[1]), now));
}

static PyObject *Row_end(Row *self, PyObject *place) {
    Py_ssize_t number = PyLong_AsSsize_t(place);
    if (number == -1 && PyErr_Occurred())
        return NULL;
    row_end(self, number);
    Py_RETURN_NONE;
}

static PyObject *Row_count(Row *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 5) {
        PyErr_SetString(PyExc_TypeError, "count(base, status, seconds, failed, place)");
        return NULL;
    }
    Py_ssize_t base = PyLong_AsSsize_t(args[0]), place;
    long status;
    double seconds;
    if ((base == -1 && PyErr_Occurred()) || ((place = PyLong_AsSsize_t(args[4])) == -1 && PyErr_Occurred()) ||
        ((status = PyLong_AsLong(args[1])) == -1 && PyErr_Occurred()) ||
        ((seconds = PyFloat_AsDouble(args[2])) == -1.0 && PyErr_Occurred()))
        return NULL;
    row_count(self, base, status, seconds);
    if (args[3] == Py_True)
        self->cells[self->raised] += 1.0;
    row_end(self, place);
    Py_RETURN_NONE;
}

static PyObject *Row_in_flight(Row *self, PyObject *Py_UNUSED(none)) {
    long long found = 0;
    for (Py_ssize_t place = self->first; place < self->stop; place += self->stride)
        found += self->cells[place] != 0.0;
    double more = self->cells[self->overflow]; /* any process that has the row's memory may have written it */
    return PyLong_FromLongLong(found + (more > 0 && more < MOST ? (long long)more : 0));
}

static PyMethodDef Row_methods[] = {
    {"in_flight", (PyCFunction)Row_in_flight, METH_NOARGS, "in_flight(): how many requests are."},
    {"count", (PyCFunction)(void (*)(void))Row_count, METH_FASTCALL, "count(base, status, seconds, failed, place)"},
    {"begin", (PyCFunction)(void (*)(void))Row_begin, METH_FASTCALL, "begin(base, path, now): the place, 0 if full."},
    {"end", (PyCFunction)Row_end, METH_O, "end(place)"},
    {NULL},
};

static bool fits(const Row *self, Py_ssize_t cell, Py_ssize_t more) {
    return cell >= 0 && more <= self->cell_count && cell <= self->cell_count - more;
}

static PyObject *Row_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"data",  "bounds",  "histogram", "durations", "overflow", "raised", "dropped",
                            "moves", "streams", "first",     "stop",      "stride",   "writer", NULL};
    PyObject *data, *bounds, *writer;
    Row *self = (Row *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO!nnnnnnnnnnO", names, &data, &PyTuple_Type, &bounds, &self->histogram,
                                     &self->durations, &self->overflow, &self->raised, &self->dropped, &self->moves,
                                     &self->streams, &self->first, &self->stop, &self->stride, &writer) ||
        PyObject_GetBuffer(data, &self->row, PyBUF_WRITABLE) < 0)
        goto failed;
    self->cells = self->row.buf;
    self->cell_count = self->row.len / 8;
    self->hint = self->first;
    self->bound_count = PyTuple_GET_SIZE(bounds);
    if (!fits(self, self->histogram, self->bound_count + 1) || !fits(self, self->durations, 1) ||
        !fits(self, self->overflow, 1) || !fits(self, self->raised, 1) || !fits(self, self->dropped, 1) ||
        !fits(self, self->moves, 1) || !fits(self, self->streams, 1) ||
        self->first < 1 || self->stride < RECORD_CELLS || self->stop <= self->first || !fits(self, self->stop, 0) ||
        (self->stop - self->first) % self->stride || !is_aligned(self->cells)) {
        PyErr_SetString(PyExc_ValueError, "these cells are not in that row");
        goto failed;
    }
    if (writer != Py_None && !PyObject_TypeCheck(writer, &Writer_Type)) {
        PyErr_SetString(PyExc_TypeError, "writer: expected a Writer or None");
        goto failed;
    }
    self->writer = writer == Py_None ? NULL : (Writer *)Py_NewRef(writer);
    self->bounds = PyMem_Calloc(self->bound_count + 1, sizeof(double));
    if (self->bounds == NULL) {
        PyErr_NoMemory();
        goto failed;
    }
    Py_ssize_t index = 0;
    while (index < self->bound_count && !PyErr_Occurred()) {
        self->bounds[index] = PyFloat_AsDouble(PyTuple_GET_ITEM(bounds, index));
        index++;
    }
    if (!PyErr_Occurred())
        return (PyObject *)self;
failed:
    Py_DECREF(self);
    return NULL;
}

static void Row_dealloc(Row *self) {
    if (self->row.obj != NULL)
        PyBuffer_Release(&self->row);
    PyMem_Free(self->bounds);
    Py_XDECREF(self->writer);
    Py_TYPE(self)->tp_free(self);
}

PyTypeObject Row_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "mooring._accelerator.Row",
    .tp_doc = "Row(data, bounds, <cells>, writer): what the wrappers write to.",
    .tp_basicsize = sizeof(Row),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = Row_new,
    .tp_dealloc = (destructor)Row_dealloc,
    .tp_methods = Row_methods,
};
