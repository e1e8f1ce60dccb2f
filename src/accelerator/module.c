/* mooring._accelerator: the work that mooring does for each request, in C. Optional: without it, Python does the same.
 * Each file has the name of its Python twin, which is its specification, or names the functions that are. Paths are
 * below src/mooring. The tests run both.
 *
 *     ring.c, row.c              scoreboard/ring.py, scoreboard/row.py
 *     line.c                     logs/access/line.py
 *     asgi.c, asgi_line.c        instrument/asgi.py, instrument/asgi_line.py
 *     wsgi.c and wsgi_*.c        instrument/wsgi.py, instrument/wsgi_line.py, instrument/wsgi_response.py
 *     granian_*.c                engines/granian/wsgi.py, engines/granian/request.py, engines/granian/response.py
 *
 * No two files need each other. Why there is an accelerator: docs/decisions.md. */

#include "asgi.h"
#include "granian.h"
#include "wsgi.h"

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "mooring._accelerator",
    .m_doc = "What mooring does for each request, in C.",
    .m_size = -1,
};

/* The constants of all files, by their twins: {"ring": {"HEAD": 0, ...}, ...}. NULL: an error is set. */
static PyObject *constants(void) {
    static const struct { const char *twin; const Constant *table; } twins[] = {
        {"ring", ring_constants}, {"row", row_constants}, {"line", line_constants}, {"asgi", asgi_constants},
        {"asgi_line", asgi_line_constants}, {"wsgi", wsgi_constants}, {"wsgi_line", wsgi_line_constants},
    };
    PyObject *all = PyDict_New();
    bool failed = all == NULL;
    for (size_t index = 0; !failed && index < sizeof twins / sizeof *twins; index++) {
        PyObject *made = PyDict_New();
        failed = made == NULL || PyDict_SetItemString(all, twins[index].twin, made) < 0;
        for (const Constant *each = twins[index].table; !failed && each->name != NULL; each++) {
            PyObject *value = each->text == NULL ? PyLong_FromLongLong(each->number) : PyUnicode_FromString(each->text);
            failed = value == NULL || PyDict_SetItemString(made, each->name, value) < 0;
            Py_XDECREF(value);
        }
        Py_XDECREF(made);
    }
    if (failed)
        Py_CLEAR(all);
    return all;
}

PyMODINIT_FUNC PyInit__accelerator(void) {
    PyTypeObject *types[] = {&Writer_Type, &Row_Type, &Apache_Type, &Asgi_Type, &Wsgi_Type, &Granian_Type,
                             &Requests_Type};
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL)
        return NULL;
    bool failed = text_intern() < 0;
    for (size_t index = 0; !failed && index < sizeof types / sizeof *types; index++)
        failed = PyModule_AddType(module, types[index]) < 0;
    PyObject *compared = failed ? NULL : constants();
    if (compared == NULL || PyModule_AddObjectRef(module, "constants", compared) < 0)
        Py_CLEAR(module);
    Py_XDECREF(compared);
    return module;
}
