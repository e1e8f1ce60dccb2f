"""The part of the build that pyproject.toml has no stable words for: the optional accelerator."""

from setuptools import Extension, setup

NAMES = (
    *("module", "text", "ring", "row", "line", "asgi", "asgi_line"),
    *("wsgi", "wsgi_begin", "wsgi_line", "wsgi_report", "wsgi_response"),
    *("granian_wsgi", "granian_request", "granian_answer", "granian_response"),
)

setup(
    ext_modules=[
        Extension(
            "mooring._accelerator",
            [f"src/accelerator/{name}.c" for name in NAMES],
            depends=[f"src/accelerator/{name}.h" for name in ("accelerator", "asgi", "wsgi", "granian")],
            extra_compile_args=[
                "-O2",
                "-Wall",
                "-Wextra",
                "-Wno-missing-field-initializers",
                "-Wno-cast-function-type",
            ],
            optional=True,  # where there is no compiler, mooring does without: scoreboard/accelerator.py
        )
    ]
)
