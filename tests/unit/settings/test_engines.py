"""The registry of engines: nobody else knows one by its name, and each has all that an engine needs."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import ROOT

from mooring.errors import ConfigurationError
from mooring.settings import engines

SOURCE = ROOT / "src/mooring"
NAME = re.compile("|".join(engines.REGISTRY), re.IGNORECASE)  # in a longer word too: gunicorn_conf

# Files that may name an engine, each with its reason.
ALLOWED = {
    "settings/engines.py": "the registry",
    "settings/table.py": "settings of the older images have engines' names; help texts say what each does",
    "settings/profiles.py": "which engine an older image used is a fact about that image",
    "application/discovery.py": "the configuration files of gunicorn and hypercorn are no application",
    "plan/redact.py": "the setting gunicorn_cmd_args may hold secrets",
    "plan/server_config/find.py": "it reads gunicorn's and hypercorn's own configuration files",
    "plan/server_config/probe.py": "it reads gunicorn's and hypercorn's own configuration files",
    "plan/server_config/values.py": "it translates gunicorn's and hypercorn's own settings",
    "plan/server_config/worker_classes.py": "whether a worker class is gunicorn's, and older images' engines",
    "logs/configuration.py": "users' logging configurations name the logger uvicorn.access",
    "instrument/handshake.py": "libraries for WebSockets look for gunicorn's key in the environ",
    "instrument/wsgi_deadline.py": "gunicorn gives the connection in the environ",
    "logs/access/line.py": "the forms of a log line have names like these",
}


def named(tree: ast.Module) -> Iterator[str]:
    """Where code names an engine: in strings that are no docstrings, and in attributes such as settings'."""
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            text = node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            text = node.value
        else:
            continue
        if NAME.search(text):
            yield text


def files_with_names() -> set[str]:
    files = {path.relative_to(SOURCE).as_posix(): path for path in SOURCE.rglob("*.py")}
    others = {file: path for file, path in files.items() if not file.startswith("engines/")}
    return {file for file, path in others.items() if any(named(ast.parse(path.read_text())))}


def test_only_the_registry_and_these_files_know_an_engine_by_its_name() -> None:
    assert files_with_names() == set(ALLOWED)


@pytest.mark.parametrize(
    "code",
    [
        'plan.engine == "gunicorn"',
        'engine not in {"auto", "gunicorn"}',
        'match engine:\n    case "hypercorn" | "granian": pass',
        '("uvicorn.error", "_granian")',
        'plan.engine.startswith("gunicorn ")',
        "plan.settings.gunicorn_conf",
        'environ.get("GUNICORN_CMD_ARGS")',
    ],
)
def test_such_a_name_is_found(code: str) -> None:
    assert list(named(ast.parse(code)))


# -- an engine's places --------------------------------------------------------------------------------------


@pytest.fixture(params=engines.REGISTRY)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_it_has_a_folder_with_an_adapter(name: str) -> None:
    tree = ast.parse((SOURCE / "engines" / name / "adapter.py").read_text())
    assert "serve" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_its_row_says_how_to_install_what_the_project_declares(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    row = engines.REGISTRY[name]
    extra = re.fullmatch(r"pip install 'mooring\[(\w+)\]'", row.install)
    assert extra or row.install == f"pip install {name}"
    declared = project["optional-dependencies"][extra[1]] if extra else project["dependencies"]
    assert name in {re.split(r"[^\w-]", each)[0] for each in declared}


def test_the_page_of_differences_says_of_it_what_its_row_says(name: str) -> None:
    rows = table((ROOT / "docs/engines.md").read_text(), "Who serves what")
    said = {what: cells[name] for what, cells in rows.items()}
    row = engines.REGISTRY[name]
    for interface in ("asgi", "wsgi"):
        assert (not said[interface.upper()].startswith("no")) == (interface in row.interfaces)
    assert (said["HTTP/2 over TLS"] == "yes") == row.speaks_http2


def table(page: str, section: str) -> dict[str, dict[str, str]]:
    """The first table of a section: its rows by their first cell, each cell by its column."""
    text = page.partition(f"## {section}\n")[2].partition("\n## ")[0]
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    head, _, *rows = [[cell.strip() for cell in line] for line in lines]
    return {cells[0]: dict(zip(head[1:], cells[1:], strict=True)) for cells in rows}


def test_it_has_a_contract_test(name: str) -> None:
    files = list((ROOT / "tests/unit/engines").rglob("test_contracts*.py"))
    assert any(name in tested.lower() for file in files for tested in checks_in(file))


def checks_in(file: Path) -> Iterator[str]:
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name.lower().startswith("test"):
            yield node.name


def test_no_other_folder_lies_among_the_engines() -> None:
    folders = {path.parent.name for path in (SOURCE / "engines").glob("*/__init__.py")}
    assert folders == {*engines.REGISTRY, "common"}


# -- what rows say -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interface", engines.DEFAULTS)
def test_what_auto_says_is_true_of_every_engine_that_it_may_become(interface: str) -> None:
    auto, default = engines.row("auto"), engines.row(engines.DEFAULTS[interface])
    assert interface in default.interfaces
    for capability in (
        *("has_arbiter", "recycles_itself", "debuggable", "changes_user"),
        *("own_logging", "own_preload", "worker_classes", "threaded_classes"),
    ):
        assert getattr(auto, capability) == getattr(default, capability)


def test_http_2_is_refused_with_the_engines_that_speak_it() -> None:
    with pytest.raises(ConfigurationError) as caught:
        engines.require_http("gunicorn", "2")
    assert str(caught.value) == "engine gunicorn serves no HTTP/2; these do: granian, hypercorn"
    for name, http in (("gunicorn", "1"), ("uvicorn", "auto"), ("granian", "2"), ("hypercorn", "2")):
        engines.require_http(name, http)


def test_loggers_that_mooring_sets_up_are_not_those_of_an_engine_that_does_so_itself() -> None:
    assert set(engines.loggers()) - set(engines.loggers(own_logging=False)) == {"gunicorn.error"}
    assert engines.logger_roots() == {"uvicorn", "granian", "_granian", "hypercorn", "gunicorn"}
