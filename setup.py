"""The part of the build that pyproject.toml has no stable words for: the optional accelerator."""

from setuptools import Extension, setup

NAMES = ("module", "asgi", "asgi_line", "line", "ring", "row")

setup(
    ext_modules=[
        Extension(
            "mooring._accelerator",
            [f"src/accelerator/{name}.c" for name in NAMES],
            depends=["src/accelerator/accelerator.h"],
            extra_compile_args=[
                "-O2",
                "-Wall",
                "-Wextra",
                "-Wno-missing-field-initializers",
                "-Wno-cast-function-type",
            ],
            optional=True,  # where there is no compiler, mooring does without: src/mooring/accelerate.py
        )
    ]
)
