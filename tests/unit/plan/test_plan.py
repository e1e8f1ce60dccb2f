"""The plan gives the numbers that table A.0 of the contract and the design promise, each with a reason."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mooring.application.discovery import Target
from mooring.commands.run.wiring import announce
from mooring.errors import ConfigurationError
from mooring.plan.fit import fit
from mooring.plan.plan import FitWarning, Plan, Report, plan
from mooring.plan.server_config.find import ServerConf
from mooring.resources import Reading, Resources
from mooring.settings.resolve import resolve
from mooring.settings.table import show
from mooring.system.address import Address

MIB = 1024 * 1024


def machine(
    cpus: float = 2.0, quota: float | None = None, memory: int | None = None, kubernetes: bool = False
) -> Resources:
    """A machine with so many cores."""
    return Resources(
        cpu_quota=Reading(quota, "quota file"),
        cpuset=Reading(int(cpus), "cpuset file"),
        affinity=Reading(int(cpus), "affinity"),
        host_cpus=Reading(64, "host"),
        cpus=Reading(quota if quota is not None else cpus, "deciding file"),
        memory_limit=Reading(memory, "memory file"),
        host_memory=Reading(64 * 1024 * MIB, "meminfo"),
        kubernetes=Reading(kubernetes, "KUBERNETES_SERVICE_HOST" if kubernetes else "nothing"),
        warnings=(),
    )


def planned(
    tmp_path: Path, environ: dict[str, str] | None = None, profile: str = "none", **given: Any
) -> Plan:
    """A plan for an environment."""
    variables = {"MOORING_PROFILE": profile, "MOORING_APP_ROOT": str(tmp_path), **(environ or {})}
    target = Target("main", "app", "default", "here", (tmp_path,))
    return plan(resolve({}, variables, tmp_path), machine(**given), target, None)


# Table A.0 as amended by decision 2 (at least one) and decision 5 (ignored variables are honoured).
TABLE = [
    (
        {},
        {
            "hypercorn": 2,
            "conda-starlette": 2,
            "inboard-base": 2,
            "uvicorn-gunicorn": 2,
            "poetry": 1,
            "meinheld-flask": 4,
            "none": 2,
        },
    ),
    (
        {"WORKERS_PER_CORE": "3"},
        {
            "hypercorn": 6,
            "conda-starlette": 6,
            "inboard-base": 6,
            "uvicorn-gunicorn": 6,
            "poetry": 1,
            "meinheld-flask": 6,
        },
    ),
    (
        {"WORKERS_PER_CORE": "0.5"},
        {"hypercorn": 2, "conda-starlette": 2, "inboard-base": 2, "meinheld-flask": 1, "none": 1},
    ),
    (
        {"WORKERS_PER_CORE": "0.1"},
        {"hypercorn": 2, "uvicorn-gunicorn-starlette": 2, "meinheld-flask": 1, "none": 1},
    ),
    ({"WORKERS_PER_CORE": "1.75"}, {"hypercorn": 3, "inboard-fastapi": 3, "meinheld-flask": 3}),
    (
        {"MAX_WORKERS": "1"},
        {"hypercorn": 1, "inboard-base": 1, "conda-starlette": 1, "uvicorn-gunicorn": 1, "meinheld-flask": 1},
    ),
    ({"WORKERS_PER_CORE": "3", "MAX_WORKERS": "4"}, {"hypercorn": 4, "inboard-base": 4}),
    (
        {"WEB_CONCURRENCY": "4", "MAX_WORKERS": "2"},
        {"hypercorn": 4, "inboard-base": 4, "uvicorn-gunicorn": 4, "none": 4},
    ),
    (
        {"WEB_CONCURRENCY": "1"},
        {"hypercorn": 1, "conda-starlette": 1, "inboard-base": 1, "meinheld-flask": 1, "poetry": 1},
    ),
    ({"WEB_CONCURRENCY": ""}, {"hypercorn": 2, "meinheld-flask": 4}),
    ({"MAX_WORKERS": "0"}, {"hypercorn": 2, "meinheld-flask": 4}),
    ({"WORKERS": "3"}, {"poetry": 3, "hypercorn": 3}),
]


@pytest.mark.parametrize(
    ("environ", "profile", "workers"),
    [(env, name, count) for env, row in TABLE for name, count in row.items()],
)
def test_the_number_of_workers_on_two_cores(
    tmp_path: Path, environ: dict[str, str], profile: str, workers: int
) -> None:
    made = planned(tmp_path, environ, profile)
    assert made.workers == workers
    assert made.explained["workers"].value == workers


@pytest.mark.parametrize(("quota", "workers"), [(0.5, 1), (1.0, 1), (1.5, 1), (2.0, 2), (3.9, 3)])
def test_the_quota_counts_not_the_host(tmp_path: Path, quota: float, workers: int) -> None:
    made = planned(tmp_path, cpus=64, quota=quota)
    assert made.workers == workers
    assert f"{quota:g} CPU cores (deciding file)" in made.explained["workers"].reason


@pytest.mark.parametrize(("count", "workers"), [("host", 64), ("3", 3), ("2.5", 2)])
def test_cpu_count_overrides_what_was_found(tmp_path: Path, count: str, workers: int) -> None:
    assert planned(tmp_path, {"MOORING_CPU_COUNT": count}, quota=1.0).workers == workers


@pytest.mark.parametrize("environ", [{"MOORING_CPU_COUNT": "60000"}, {"WORKERS_PER_CORE": "4096"}])
def test_no_tuned_number_is_beyond_what_may_be_given(tmp_path: Path, environ: dict[str, str]) -> None:
    made = planned(tmp_path, environ)
    assert made.workers == 4096
    assert made.explained["workers"].reason.endswith(", at most 4096")


CONF = {"bind": (Address("tcp", "127.0.0.1", 1),), "workers": 7, "timeout": 70.0, "threads": 3}


@pytest.mark.parametrize(
    ("cli", "kept"),
    [
        ({}, {}),
        ({"workers": "5", "timeout": "5"}, {"workers": 5, "timeout": 5.0}),
        ({"bind": ":2"}, {"bind": (Address("tcp", "", 2),)}),
        ({"port": "3"}, {"bind": (Address("tcp", "127.0.0.1", 3),)}),
    ],
)
def test_a_servers_own_configuration_wins_over_all_but_the_command_line(
    tmp_path: Path, cli: dict[str, str], kept: dict[str, Any]
) -> None:
    variables = {"MOORING_APP_ROOT": str(tmp_path), "WEB_CONCURRENCY": "9", "MOORING_BIND": ":9"}
    target = Target("main", "app", "default", "here", (tmp_path,))
    conf = ServerConf("gunicorn", "g.py", CONF, {"engine": "file:g.py"})
    made = plan(resolve(cli, variables, tmp_path), machine(), target, conf)
    for name, value in {**CONF, **kept}.items():
        assert made.explained[name].value == value
        assert made.explained[name].origin == ("cli" if name in kept else "file:g.py")
    assert (made.binds, made.workers) == (made.explained["bind"].value, made.explained["workers"].value)


def test_in_kubernetes_a_stop_goes_on_accepting_except_in_older_images_and_in_development(
    tmp_path: Path,
) -> None:
    assert planned(tmp_path).settings.drain_delay == 0
    for profile in ("none", "image", "image-nonroot"):
        made = planned(tmp_path, profile=profile, kubernetes=True)
        assert (made.settings.drain_delay, made.explained["drain_delay"].origin) == (5, "tuned")
        assert "Kubernetes" in made.explained["drain_delay"].reason
        assert made.advice == ()
    older = planned(tmp_path, profile="hypercorn", kubernetes=True)
    assert (older.settings.drain_delay, older.explained["drain_delay"].origin) == (0, "default")
    assert "MOORING_DRAIN_DELAY=5" in older.explained["drain_delay"].reason
    assert "MOORING_DRAIN_DELAY=5" in older.advice[0]
    assert older.warnings == ()
    assert planned(tmp_path, {"RELOAD": "1"}, kubernetes=True).settings.drain_delay == 0
    for given in ("0", "2.5"):
        made = planned(tmp_path, {"MOORING_DRAIN_DELAY": given}, profile="image", kubernetes=True)
        assert made.settings.drain_delay == float(given)
        assert made.explained["drain_delay"].origin == "env:MOORING_DRAIN_DELAY"
    assert planned(tmp_path, {"MOORING_DRAIN_DELAY": "0"}, profile="poetry", kubernetes=True).advice == ()


def test_kubernetes_without_a_limit_gets_one_worker_only_without_a_profile(tmp_path: Path) -> None:
    made = planned(tmp_path, cpus=16, kubernetes=True)
    assert made.workers == 1
    assert "Kubernetes" in made.explained["workers"].reason
    assert planned(tmp_path, cpus=16, quota=4.0, kubernetes=True).workers == 4
    assert planned(tmp_path, profile="hypercorn", cpus=16, kubernetes=True).workers == 16


@pytest.mark.parametrize(
    ("cpus", "workers", "threads"), [(2.0, None, 8), (2.0, "4", 4), (1.0, "8", 4), (64.0, "1", 32)]
)
def test_threads_share_the_cores(tmp_path: Path, cpus: float, workers: str | None, threads: int) -> None:
    environ = {"WEB_CONCURRENCY": workers} if workers else {}
    assert planned(tmp_path, environ, cpus=cpus).threads == threads


@pytest.mark.parametrize(("worker_class", "threads"), [(None, 8), ("gthread", 8), ("sync", 1), ("gevent", 1)])
def test_gunicorns_classes_without_threads_have_one(
    tmp_path: Path, worker_class: str | None, threads: int
) -> None:
    environ = {"MOORING_ENGINE": "gunicorn", **({"WORKER_CLASS": worker_class} if worker_class else {})}
    made = planned(tmp_path, environ, cpus=2.0)
    assert (made.threads, made.explained["threads"].value) == (threads, threads)
    assert planned(tmp_path, {**environ, "MOORING_THREADS": "3"}, cpus=2.0).threads == 3


def report(memory: int | None) -> Report:
    return Report("wsgi", "flask", "granian", "main:app", memory)


@pytest.mark.parametrize(
    ("limit", "each", "workers"), [(None, 50, 8), (1024, 50, 8), (256, 50, 4), (256, 300, 1), (256, None, 8)]
)
def test_fit_starts_only_as_many_as_fit_the_memory(
    tmp_path: Path, limit: int | None, each: int | None, workers: int
) -> None:
    made = planned(tmp_path, cpus=8, memory=limit * MIB if limit else None)
    fitted = fit(made, report(each * MIB if each else None))
    assert fitted.workers == workers
    assert (fitted.engine, fitted.interface, fitted.framework, fitted.revision) == (
        "granian",
        "wsgi",
        "flask",
        2,
    )
    if workers < 8:
        assert "capped by memory" in fitted.explained["workers"].reason


@pytest.mark.parametrize(("own", "workers"), [(0, 4), (19, 4), (40, 3), (1000, 1)])
def test_fit_counts_what_mooring_itself_takes(tmp_path: Path, own: int, workers: int) -> None:
    made = planned(tmp_path, cpus=8, memory=256 * MIB)
    fitted = fit(made, report(50 * MIB), own * MIB)
    assert fitted.workers == workers
    assert f"mooring itself {own} MiB" in fitted.explained["workers"].reason


def test_fit_keeps_an_explicit_number_and_warns(tmp_path: Path) -> None:
    made = planned(tmp_path, {"WEB_CONCURRENCY": "8"}, memory=256 * MIB)
    fitted = fit(made, report(50 * MIB))
    assert fitted.workers == 8
    assert "8 workers were asked for, but 4 fit" in fitted.warnings[-1]
    assert fitted.fit_warnings == (FitWarning(fitted.warnings[-1], 8),)
    assert fitted.warnings[:-1] == made.warnings
    again = fit(fitted, report(50 * MIB))
    assert (again.warnings, again.fit_warnings) == (fitted.warnings, fitted.fit_warnings)


def test_what_the_second_stage_warns_of_is_logged_with_the_plan(tmp_path: Path) -> None:
    environ = {"WEB_CONCURRENCY": "8", "MOORING_MAX_IN_FLIGHT": "900"}
    made = planned(tmp_path, environ, memory=256 * MIB)
    made = dataclasses.replace(made, warnings=("8 workers were asked for, says another",))
    fitted = fit(made, report(50 * MIB)._replace(interface="wsgi", engine="granian"))
    logged: list[str] = []
    log = SimpleNamespace(info=lambda _: None, warning=logged.append)
    announce(fitted, [], log)
    assert [each.split()[0] for each in logged] == ["8", "max_in_flight=900"]
    assert logged == list(fitted.warnings[1:])
    logged.clear()
    announce(dataclasses.replace(fitted, workers=7), [], log)  # TTOU: what was asked for is over
    assert [each.split()[0] for each in logged] == ["max_in_flight=900"]


@pytest.mark.parametrize(
    ("environ", "bind"),
    [
        ({}, "127.0.0.1:8000"),
        ({"PORT": "9"}, "127.0.0.1:9"),
        ({"BIND": "[::1]:7", "PORT": "9"}, "[::1]:7"),
        ({"BIND": "unix:/x,127.0.0.1:1"}, "unix:/x,127.0.0.1:1"),
    ],
)
def test_bind_wins_over_host_and_port(tmp_path: Path, environ: dict[str, str], bind: str) -> None:
    assert show(planned(tmp_path, environ).binds) == bind


def test_a_host_may_stand_in_brackets(tmp_path: Path) -> None:
    assert show(planned(tmp_path, {"HOST": "[::1]"}).settings.bind) == "[::1]:8000"
    assert show(planned(tmp_path, {"HOST": "::1"}).settings.bind) == "[::1]:8000"


def test_a_port_from_the_environment_beats_a_bind_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "mooring.toml").write_text('bind = "127.0.0.1:1"')
    assert show(planned(tmp_path).binds) == "127.0.0.1:1"
    assert show(planned(tmp_path, {"PORT": "9"}).binds) == "127.0.0.1:9"


@pytest.mark.parametrize(
    ("environ", "profile", "source"),
    [
        ({"HOST": "shop.invalid"}, "none", "HOST=shop.invalid"),
        ({"HOST": "shop.invalid", "MOORING_PORT": "81"}, "none", "HOST=shop.invalid, MOORING_PORT=81"),
        ({"BIND": "shop.invalid:81", "PORT": "9"}, "none", "from BIND"),
        ({"MOORING_BIND": "unix:/x"}, "none", "from MOORING_BIND"),
        ({"HOST": "::1"}, "image", "HOST=::1, profile image: port=80"),
        ({}, "none", "the default: set HOST, PORT or BIND"),
    ],
)
def test_where_the_addresses_come_from_is_said(
    tmp_path: Path, environ: dict[str, str], profile: str, source: str
) -> None:
    assert planned(tmp_path, environ, profile).bind_source == source


def test_an_address_of_a_file_or_of_the_command_line_is_said_too(tmp_path: Path) -> None:
    (tmp_path / "mooring.toml").write_text('bind = "127.0.0.1:1"')
    assert planned(tmp_path).bind_source == f"from {tmp_path}/mooring.toml: bind"
    resolved = resolve({"port": "9"}, {}, tmp_path)
    target = Target("main", "app", "default", "here", (tmp_path,))
    assert plan(resolved, machine(), target, None).bind_source == "--port=9"
    conf = ServerConf("gunicorn", "g.py", {"bind": (Address("tcp", "", 7),)}, {"bind": "file:g.py"})
    assert plan(resolve({}, {}, tmp_path), machine(), target, conf).bind_source == "from g.py: bind"


def test_tls_needs_both_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="tls_key is not set"):
        planned(tmp_path, {"MOORING_TLS_CERTIFICATE": "x"})


def test_an_engine_for_the_wrong_interface_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match="engine uvicorn cannot serve a WSGI application; these can: granian"
    ):
        planned(tmp_path, {"MOORING_ENGINE": "uvicorn", "MOORING_INTERFACE": "wsgi"})


def test_a_mode_is_shown_as_it_is_given(tmp_path: Path) -> None:
    assert planned(tmp_path).as_json()["unix_mode"]["value"] == "666"
    assert planned(tmp_path, {"MOORING_UNIX_MODE": "660"}).as_json()["unix_mode"]["value"] == "660"


def test_a_secret_stays_out_of_the_plan(tmp_path: Path) -> None:
    environ = {"MOORING_TLS_CERTIFICATE": "c", "MOORING_TLS_KEY": "k", "MOORING_TLS_KEY_PASSWORD": "hunter2"}
    assert "hunter2" not in str(planned(tmp_path, environ).as_json())
