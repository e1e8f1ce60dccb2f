/* The interned texts that other files look for, and three checks: whether a text equals one of them, how many bytes a
 * part of a body has, and whether a text is an address that host_field of logs/escape.py would not change.
 * Has no twin of its name: Python needs none. Not for escaping: logs/escape.py. */

#include "accelerator.h"

#include <string.h>

#define DEFINE(name, text) PyObject *t_##name;
TEXTS(DEFINE)

int text_intern(void) {
#define NAMED(name, text) {&t_##name, text},
    struct { PyObject **place; const char *text; } texts[] = {TEXTS(NAMED)};
    for (size_t index = 0; index < sizeof texts / sizeof *texts; index++)
        if (*texts[index].place == NULL && (*texts[index].place = PyUnicode_InternFromString(texts[index].text)) == NULL)
            return -1;
    return 0;
}

Py_ssize_t bytes_of(PyObject *part) {
    if (PyBytes_CheckExact(part))
        return PyBytes_GET_SIZE(part);
    Py_buffer view;
    if (PyObject_GetBuffer(part, &view, PyBUF_FULL_RO) < 0)
        return -1;
    Py_ssize_t size = view.len;
    PyBuffer_Release(&view);
    return size;
}

bool is_text(PyObject *text, PyObject *other) {
    if (text == other)
        return true;
    return PyUnicode_Check(text) && PyUnicode_GET_LENGTH(text) == PyUnicode_GET_LENGTH(other) &&
           PyUnicode_KIND(text) == PyUnicode_1BYTE_KIND &&
           !memcmp(PyUnicode_1BYTE_DATA(text), PyUnicode_1BYTE_DATA(other), PyUnicode_GET_LENGTH(text));
}

bool is_address(PyObject *host) {
    if (!PyUnicode_IS_COMPACT_ASCII(host) || PyUnicode_GET_LENGTH(host) > HOST_LIMIT)
        return false;
    const Py_UCS1 *text = PyUnicode_1BYTE_DATA(host);
    for (Py_ssize_t index = 0; index < PyUnicode_GET_LENGTH(host); index++)
        if (!Py_ISALNUM(text[index]) && (!text[index] || !strchr(HOST_OTHERS, text[index])))
            return false;
    return true;
}
