/* Texts: the names that requests are asked for, and what a text is. Not for the access log's escapes, which are left
 * to logs/escape.py. Has no twin: Python has its own names and comparisons. */

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

bool is_text(PyObject *text, PyObject *other) {
    if (text == other)
        return true;
    return PyUnicode_Check(text) && PyUnicode_GET_LENGTH(text) == PyUnicode_GET_LENGTH(other) &&
           PyUnicode_KIND(text) == PyUnicode_1BYTE_KIND &&
           !memcmp(PyUnicode_1BYTE_DATA(text), PyUnicode_1BYTE_DATA(other), PyUnicode_GET_LENGTH(text));
}

bool is_address(PyObject *host) {
    if (!PyUnicode_IS_COMPACT_ASCII(host) || PyUnicode_GET_LENGTH(host) > 253)
        return false;
    const Py_UCS1 *text = PyUnicode_1BYTE_DATA(host);
    for (Py_ssize_t index = 0; index < PyUnicode_GET_LENGTH(host); index++)
        if (!Py_ISALNUM(text[index]) && (!text[index] || !strchr("._:%-", text[index])))
            return false;
    return true;
}
