/* mooring._accelerator: what mooring does for each request, in C. Optional: without it, the same is done by
 * instrument/asgi.py, instrument/wsgi.py, instrument/meter.py, instrument/asgi_line.py, scoreboard/ring.py and engines/granian/wsgi.py, which specify it;
 * the tests run both.
 * Why there is one: docs/decisions.md. */

#include "asgi.h"
#include "granian.h"
#include "wsgi.h"

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "mooring._accelerator",
    .m_doc = "What mooring does for each request, in C.",
    .m_size = -1,
};

PyMODINIT_FUNC PyInit__accelerator(void) {
    PyTypeObject *types[] = {&Writer_Type, &Row_Type, &Apache_Type, &Asgi_Type, &Wsgi_Type, &Granian_Type};
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL)
        return NULL;
    bool failed = text_intern() < 0;
    for (size_t index = 0; !failed && index < sizeof types / sizeof *types; index++)
        failed = PyModule_AddType(module, types[index]) < 0;
    if (failed)
        Py_CLEAR(module);
    return module;
}
