/* The writer's end of a ring in shared memory. scoreboard/ring.py is the specification, and is used without this. */

#include "accelerator.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define HEAD 0 /* cells of a ring */
#define TAIL 8
#define MOST 9007199254740992 /* 2**53: no count is higher */

const Constant ring_constants[] = {NUMBER(HEAD), NUMBER(TAIL), NUMBER(MOST), {NULL}};

static double cell(const Writer *self, int index) {
    uint64_t bits = __atomic_load_n((uint64_t *)self->memory.buf + index, __ATOMIC_ACQUIRE);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Make the lines visible to the reader: their bytes before the new HEAD. */
static void publish(Writer *self) {
    double head = (double)(self->lap + self->at);
    uint64_t bits;
    memcpy(&bits, &head, sizeof bits);
    __atomic_store_n((uint64_t *)self->memory.buf + HEAD, bits, __ATOMIC_RELEASE);
}

static long long count(double value) { return value >= 0 && value < MOST ? (long long)value : 0; }

static bool careful(Writer *self, const char *lines, long long length, double now) {
    const uint64_t one = 1;
    int before = errno;
    while (write(self->wake, &one, sizeof one) < 0 && errno == EINTR) {
    } /* EAGAIN: the eventfd is full, so the reader is awake already */
    errno = before;
    self->due = now + self->delay;
    long long room = count(cell(self, TAIL)) + self->size - self->lap - self->at;
    if (room > self->size)
        room = self->size;
    if (length > room) {
        publish(self); /* unchanged, unless another process has overwritten the cell: then this repairs it */
        self->limit = 0;
        return false;
    }
    char *memory = self->memory.buf;
    long long ring = self->page + self->size, rest = ring - self->at;
    memcpy(memory + self->at, lines, length < rest ? length : rest);
    self->at += length;
    if (length >= rest) {
        self->at -= self->size;
        self->lap += self->size;
        memcpy(memory + self->page, lines + rest, length - rest);
    }
    publish(self);
    long long ahead = room - length < self->full ? room - length : self->full;
    self->limit = self->at + ahead < ring ? self->at + ahead : ring;
    return true;
}

bool ring_write(Writer *self, const char *lines, Py_ssize_t length, double now) {
    if (length > self->limit - self->at || now >= self->due)
        return careful(self, lines, length, now);
    memcpy((char *)self->memory.buf + self->at, lines, length);
    self->at += length;
    publish(self);
    return true;
}

static PyObject *Writer_call(Writer *self, PyObject *args, PyObject *kwargs) {
    const char *lines;
    Py_ssize_t length;
    double now;
    static char *names[] = {"lines", "now", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "y#d", names, &lines, &length, &now))
        return NULL;
    return PyBool_FromLong(ring_write(self, lines, length, now));
}

static PyObject *Writer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"memory", "wake", "page", "size", "full", "delay", NULL};
    PyObject *memory;
    int wake;
    long long page, size, full;
    double delay;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OiLLLd", names, &memory, &wake, &page, &size, &full, &delay))
        return NULL;
    Writer *self = (Writer *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    if (PyObject_GetBuffer(memory, &self->memory, PyBUF_WRITABLE) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    if (page < (TAIL + 1) * 8 || size <= 0 || full < 0 || page > self->memory.len || size > self->memory.len - page ||
        !is_aligned(self->memory.buf)) {
        PyErr_SetString(PyExc_ValueError, "the memory is smaller than a ring");
        Py_DECREF(self);
        return NULL;
    }
    self->wake = wake, self->page = page, self->size = size, self->full = full, self->delay = delay;
    long long head = count(cell(self, HEAD));
    self->lap = head - head % size - page;
    self->at = head - self->lap;
    return (PyObject *)self;
}

static void Writer_dealloc(Writer *self) {
    if (self->memory.obj != NULL)
        PyBuffer_Release(&self->memory);
    Py_TYPE(self)->tp_free(self);
}

PyTypeObject Writer_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "mooring._accelerator.Writer",
    .tp_doc = "Writer(memory, wake, page, size, full, delay): what ring.writer() returns.",
    .tp_basicsize = sizeof(Writer),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = Writer_new,
    .tp_dealloc = (destructor)Writer_dealloc,
    .tp_call = (ternaryfunc)Writer_call,
};
