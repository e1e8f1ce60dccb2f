"""With one worker: prometheus_client records into the metrics folder, and is otherwise as without mooring.

Where PROMETHEUS_MULTIPROC_DIR is set, applications show the files of all processes instead of their own
registry, and so lose `process_` and `python_` metrics, Info, Enum and set_function. With one worker there are
no others to add up: the variable is not set, and only the two modules of prometheus_client that read and
write the files see it. Not for several workers: these get the variable.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from mooring.metrics.multiprocess.folder import VARIABLE

_VALUES, _COLLECTOR = "prometheus_client.values", "prometheus_client.multiprocess"


def install(folder: str) -> None:
    """Have prometheus_client record into `folder`, when it is imported. It is not imported here."""
    sys.meta_path.insert(0, _Finder(folder))


class _Finder(MetaPathFinder):
    """Lets both modules be found as usual, and changes them once they are imported."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._left = {_VALUES, _COLLECTOR}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        """The module's own spec, whose loader changes the module after its import; None for all others."""
        if fullname not in self._left:
            return None
        self._left.discard(fullname)  # first: the search below comes here again
        spec = importlib.util.find_spec(fullname)
        loader: Any = spec.loader if spec is not None else None
        if loader is None:
            return None
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            change(module, self._folder)

        loader.exec_module = exec_module
        return spec


def change(module: Any, folder: str) -> None:
    """Have one of the two modules use `folder`."""
    module.os = _Os(folder)
    if module.__name__ == _VALUES:
        module.ValueClass = _with_exemplars(module.MultiProcessValue())


class _Os:
    """Stands for the module os in a module of prometheus_client: in its environ is the folder."""

    def __init__(self, folder: str) -> None:
        self.environ = {VARIABLE: folder}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def _with_exemplars(base: type) -> type:
    """The class of values in files, with exemplars, which are kept in memory: the files have none."""

    class Value(base):  # type: ignore[misc] # a class that prometheus_client makes
        """A value in a file."""

        _exemplar: Any = None

        def set_exemplar(self, exemplar: Any) -> None:
            """Keep the newest exemplar."""
            self._exemplar = exemplar

        def get_exemplar(self) -> Any:
            """The newest exemplar."""
            return self._exemplar

    return Value
