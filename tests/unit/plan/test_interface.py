"""What is to serve the application says which interface it has to have, where the user does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mooring.commands.run.prepare import prepare
from mooring.plan.interface import intended
from mooring.plan.server_config.find import ServerConf
from mooring.plan.server_config.worker_classes import interface
from mooring.settings.resolve import resolve


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (None, "auto"),
        ("asgi", "asgi"),
        ("uvicorn.workers.UvicornWorker", "asgi"),
        ("uvicorn_worker.UvicornH11Worker", "asgi"),
        ("mysite.workers.RestrictedUvicornWorker", "asgi"),
        ("gunicorn.workers.gasgi.ASGIWorker", "asgi"),
        ("sync", "wsgi"),
        ("gthread", "wsgi"),
        ("gevent_pywsgi", "wsgi"),
        ("gunicorn.workers.ggevent.GeventWorker", "wsgi"),
        ("egg:meinheld#gunicorn_worker", "wsgi"),
        ("mysite.workers.Mine", "auto"),
        ("asyncio", "auto"),
        ("trio", "auto"),
    ],
)
def test_a_worker_class_says_it_by_its_name(name: str | None, expected: str) -> None:
    assert interface(name) == expected


GUNICORN: dict[str, Any] = {"kind": "gunicorn", "path": None, "overrides": {}, "sources": {}}


@pytest.mark.parametrize(
    ("cli", "environ", "conf", "expected"),
    [
        ({}, {}, None, "auto"),
        ({}, {"MOORING_ENGINE": "uvicorn"}, None, "asgi"),
        ({}, {"MOORING_ENGINE": "granian"}, None, "auto"),
        ({}, {"MOORING_ENGINE": "uvicorn", "MOORING_INTERFACE": "wsgi"}, None, "wsgi"),
        ({}, {"MOORING_ENGINE": "gunicorn"}, None, "auto"),
        ({}, {"MOORING_ENGINE": "granian", "WORKER_CLASS": "gthread"}, None, "auto"),
        ({}, {"WORKER_CLASS": "gthread"}, {}, "wsgi"),
        ({}, {"WORKER_CLASS": "gthread"}, {"worker_class": "asgi"}, "asgi"),
        ({"worker_class": "gthread"}, {}, {"worker_class": "asgi"}, "wsgi"),
        ({}, {"MOORING_ENGINE": "granian"}, {"worker_class": "asgi"}, "auto"),
    ],
)
def test_an_engine_or_a_configuration_says_it(
    tmp_path: Path,
    cli: dict[str, str],
    environ: dict[str, str],
    conf: dict[str, Any] | None,
    expected: str,
) -> None:
    given = None if conf is None else ServerConf(**{**GUNICORN, "overrides": conf})
    assert intended(resolve(cli, environ, tmp_path), given) == expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "shop.wsgi:application"),
        ({"MOORING_ENGINE": "uvicorn"}, "shop.asgi:application"),
        ({"MOORING_INTERFACE": "asgi"}, "shop.asgi:application"),
        ({"WORKER_CLASS": "asgi"}, "shop.asgi:application"),
        ({"GUNICORN_CMD_ARGS": "-k asgi"}, "shop.asgi:application"),
        ({"GUNICORN_CONF": "conf.py"}, "shop.asgi:application"),
        ({"MOORING_ENGINE": "uvicorn", "APP_MODULE": "shop.wsgi:application"}, "shop.wsgi:application"),
    ],
)
def test_a_django_project_is_served_by_its_asgi_py_where_asgi_is_wanted(
    tmp_path: Path, environ: dict[str, str], expected: str
) -> None:
    (tmp_path / "manage.py").write_text(
        'import os\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")\n'
    )
    (tmp_path / "conf.py").write_text('worker_class = "asgi"\n')
    (tmp_path / "shop").mkdir()
    for name in ("settings", "wsgi", "asgi"):
        (tmp_path / "shop" / f"{name}.py").write_text("application = None\n")
    assert str(prepare(resolve({}, environ, tmp_path), environ).target) == expected
