"""Settings come from their origins in the promised order, and every bad value is named at once."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from mooring.errors import ConfigurationError
from mooring.settings import engines, parsers
from mooring.settings.resolve import Resolved, one_edit_apart, resolve, resolve_some
from mooring.settings.table import ROWS
from mooring.system.address import Address


@pytest.mark.parametrize(
    ("cli", "environ", "file", "value", "origin"),
    [
        ({"port": "1"}, {"MOORING_PORT": "2", "PORT": "3"}, "port = 4", 1, "cli"),
        ({}, {"MOORING_PORT": "2", "PORT": "3"}, "port = 4", 2, "env:MOORING_PORT"),
        ({}, {"PORT": "3"}, "port = 4", 3, "env:PORT"),
        ({}, {}, "port = 4", 4, "file:"),
        ({}, {"MOORING_PROFILE": "hypercorn", "MOORING_APP_ROOT": "."}, "", 80, "profile:hypercorn"),
        ({}, {}, "", 8000, "default"),
    ],
)
def test_the_strongest_origin_wins(
    tmp_path: Path, cli: dict[str, str], environ: dict[str, str], file: str, value: int, origin: str
) -> None:
    (tmp_path / "mooring.toml").write_text(file)
    resolved = resolve(cli, environ, tmp_path)
    assert resolved.settings.port == value
    assert resolved.origins["port"].text.startswith(origin)


def test_all_bad_values_are_named_at_once_with_their_variable(tmp_path: Path) -> None:
    environ = {"WEB_CONCURRENCY": "0", "PORT": "abc", "LOG_LEVEL": "loud", "MOORING_KEEP_ALIVE": "-1"}
    with pytest.raises(ConfigurationError) as caught:
        resolve({"max_workers": "many"}, environ, tmp_path)
    message = str(caught.value)
    for part in (
        "WEB_CONCURRENCY='0'",
        "PORT='abc'",
        "LOG_LEVEL='loud'",
        "MOORING_KEEP_ALIVE='-1'",
        "--max-workers='many'",
    ):
        assert part in message
    assert "at least 1" in message
    assert "\n" not in message


def test_names_and_peers_are_among_them(tmp_path: Path) -> None:
    bad = {
        "APP_MODULE": ":app",
        "MODULE_NAME": "main.py",
        "VARIABLE_NAME": "1x",
        "FORWARDED_ALLOW_IPS": "10.0.0.300",
        "MOORING_NAME": "../x",
        "MOORING_ENGINE": "waitress",
        "WEB_CONCURRENCY": "two",
    }
    with pytest.raises(ConfigurationError) as caught:
        resolve({}, bad, tmp_path)
    for name, value in bad.items():
        assert f"{name}={value!r}: expected " in str(caught.value)


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "-option", "a b", "é", "a\nb", "a\tb"])
def test_an_instance_s_name_is_a_file_s_as_well(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape("expected letters, digits, '.', '_' and '-'")):
        resolve({}, {"MOORING_NAME": name}, tmp_path)


def test_an_unknown_engine_is_told_which_are_installed_and_how_to_install_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {name: row._replace(module=f"{row.module}_x") for name, row in engines.REGISTRY.items()}
    monkeypatch.setattr(engines, "REGISTRY", {**engines.REGISTRY, "hypercorn": rows["hypercorn"]})
    with pytest.raises(ConfigurationError) as caught:
        resolve({}, {"MOORING_ENGINE": "waitress"}, tmp_path)
    expected = "one of auto, uvicorn, granian, hypercorn (pip install 'mooring[hypercorn]'), gunicorn"
    assert str(caught.value).endswith(f"MOORING_ENGINE='waitress': expected {expected}")


def test_what_is_asked_for_alone_does_not_suffer_from_the_rest(tmp_path: Path) -> None:
    names = ("name", "runtime_dir")
    (tmp_path / "mooring.toml").write_text('name = "shop"\nworkers = "many"\n')
    environ = {"WEB_CONCURRENCY": "abc", "MOORING_PROFILE": "heroku", "MOORING_RUNTIME_DIR": "/r"}
    found = resolve_some(names, {}, environ, tmp_path)
    assert (found.name, found.runtime_dir) == ("shop", "/r")
    (tmp_path / "mooring.toml").write_text("= =")
    assert resolve_some(names, {}, environ, tmp_path).runtime_dir == "/r"
    with pytest.raises(ConfigurationError, match=r"^bad settings: MOORING_NAME='/': expected letters"):
        resolve_some(names, {}, {**environ, "MOORING_NAME": "/"}, tmp_path)


@pytest.mark.parametrize("value", ["1_000", "٣", "0x10", "1e", ""])
def test_a_number_is_written_in_ascii_digits(value: str) -> None:
    for parse in (parsers.seconds(), parsers.number(0), parsers.integer(0), parsers.cpu_count):
        with pytest.raises(ValueError, match="number"):
            parse(value)


@pytest.mark.parametrize(
    "variable", ["WORKERS_PER_CORE", "MOORING_CPU_COUNT", "GRACEFUL_TIMEOUT", "KEEP_ALIVE"]
)
@pytest.mark.parametrize("value", ["1e18", "1e308", "inf", "nan", "1e400"])
def test_a_number_that_no_machine_can_mean_is_refused(tmp_path: Path, variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{variable}='{value}': expected .* and at most [0-9]+"):
        resolve({}, {variable: value}, tmp_path)


@pytest.mark.parametrize(
    "variable", ["WEB_CONCURRENCY", "PORT", "BIND", "KEEP_ALIVE", "MOORING_USER", "PRE_START_PATH"]
)
def test_an_empty_value_means_unset(tmp_path: Path, variable: str) -> None:
    name = next(row.name for row in ROWS.values() if variable in row.variables)
    assert resolve({}, {variable: "  "}, tmp_path).origins[name].text == "default"


@pytest.mark.parametrize("variable", ["ACCESS_LOG", "ERROR_LOG", "MOORING_ACCESS_LOG"])
def test_an_empty_log_means_off(tmp_path: Path, variable: str) -> None:
    settings = resolve({}, {variable: ""}, tmp_path).settings
    assert (settings.access_log is None) or (settings.error_log is None)


def test_blanks_around_a_number_are_allowed(tmp_path: Path) -> None:
    assert resolve({}, {"WEB_CONCURRENCY": " 3 "}, tmp_path).settings.workers == 3


def test_the_poetry_profile_prefers_workers(tmp_path: Path) -> None:
    environ = {"MOORING_PROFILE": "poetry", "WORKERS": "3", "WEB_CONCURRENCY": "5"}
    assert resolve({}, environ, tmp_path).settings.workers == 3
    assert resolve({}, {**environ, "MOORING_PROFILE": "none"}, tmp_path).settings.workers == 5


def test_pyproject_serves_as_the_configuration_file(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.mooring]\nworkers = 3\nbind = ["127.0.0.1:1", "unix:/x"]\nreload = true\n'
    )
    settings = resolve({}, {}, tmp_path).settings
    assert settings.workers == 3
    assert settings.bind == (Address("tcp", "127.0.0.1", 1), Address("unix", path="/x"))
    assert settings.reload is True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("wrkers = 3", "wrkers: no such setting; did you mean workers?"),
        ("workers = 'x'", "workers='x'"),
        ("a =", "not valid TOML"),
        ("profile = 'heroku'", "mooring.toml: profile='heroku': expected one of none"),
        ("gunicorn_conf = true", "gunicorn_conf=true: expected a text in quotes"),
    ],
)
def test_a_bad_configuration_file_is_named(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "mooring.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=r"mooring\.toml") as caught:
        resolve({}, {}, tmp_path)
    assert expected in str(caught.value)


def test_an_empty_value_in_the_file_means_unset_as_in_a_variable(tmp_path: Path) -> None:
    (tmp_path / "mooring.toml").write_text("log_level = ''\nbind = []\naccess_log = false\nerror_log = ''\n")
    found = resolve({}, {}, tmp_path)
    assert (found.settings.log_level, found.origins["log_level"].text) == ("info", "default")
    assert found.settings.bind is None
    assert (found.settings.access_log, found.settings.error_log) == (None, None)


@pytest.mark.parametrize("text", ["tool = 3", "tool = [1]", "x = 1", ""])
def test_a_pyproject_without_tools_is_none_of_ours(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    assert resolve({}, {}, tmp_path).origins["port"].text == "default"


def test_a_broken_pyproject_is_an_error_where_it_has_our_table(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("x =\n[tool.mooring]\nworkers = 3\n")
    with pytest.raises(ConfigurationError, match=r"pyproject\.toml: not valid TOML"):
        resolve({}, {}, tmp_path)
    (tmp_path / "pyproject.toml").write_text("x =\n[tool.other]\n")
    assert resolve({}, {}, tmp_path).settings.workers is None  # not ours to judge: other tools will


def test_a_named_configuration_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nope\.toml"):
        resolve({}, {"MOORING_CONFIG": "nope.toml"}, tmp_path)


@pytest.mark.parametrize(
    "variable", ["WEB_CONCURENCY", "WEB_CONCURRENCYY", "EWB_CONCURRENCY", "MOORING_WORKRES", "MOORING_NOPE"]
)
def test_a_misspelt_variable_is_warned_about(tmp_path: Path, variable: str) -> None:
    (warning,) = resolve({}, {variable: "3"}, tmp_path).warnings
    assert variable in warning


def test_other_variables_are_not_warned_about(tmp_path: Path) -> None:
    environ = dict.fromkeys(["PATH", "HOSTS", "HOME", "POST", "HOSTNAME", "LANG", "PYTHONPATH"], "x")
    assert resolve({}, environ, tmp_path).warnings == ()


def test_any_value_may_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "port"
    path.write_text("  81\n")
    resolved = resolve({}, {"MOORING_PORT_FILE": str(path), "PORT": "82"}, tmp_path)
    assert resolved.settings.port == 81
    assert resolved.origin_name("port") == "MOORING_PORT_FILE"
    assert resolved.warnings == ()
    assert resolve({"port": "83"}, {"MOORING_PORT_FILE": str(path)}, tmp_path).settings.port == 83


@pytest.mark.parametrize(
    ("data", "wrong"),
    [
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (b"\xff", "the file is not UTF-8 text"),
        (b"8" * 65_537, "the file has more than 65536 bytes"),
        (b"hunter2", "(not shown): expected"),
        (None, "No such file or directory"),
    ],
)
def test_a_file_that_holds_no_value_is_named_and_its_text_is_not(
    tmp_path: Path, data: bytes | None, wrong: str
) -> None:
    path = tmp_path / "held"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ConfigurationError) as caught:
        resolve({}, {"MOORING_PORT_FILE": str(path)}, tmp_path)
    assert f"MOORING_PORT_FILE={path}: {wrong}" in str(caught.value) or wrong in str(caught.value)
    assert "MOORING_PORT_FILE=" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert str(caught.value).count("MOORING_PORT_FILE") == 1


def test_a_pipe_and_a_configuration_are_no_settings_file(tmp_path: Path) -> None:
    """A pipe without a writer would hold the start for ever."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "mooring.toml").write_text('port = 1\nadmin_token = "hunter2"\n')
    for name, path, said in (
        ("PORT", "pipe", "no regular file"),
        ("PORT", "/dev/zero", "no regular file"),
        ("CONFIG", "mooring.toml", "MOORING_CONFIG names the configuration file itself"),
    ):
        with pytest.raises(ConfigurationError, match=said) as caught:
            resolve({}, {f"MOORING_{name}_FILE": str(tmp_path / path)}, tmp_path)
        assert "hunter2" not in str(caught.value)


def test_a_value_and_its_file_are_not_both_given(tmp_path: Path) -> None:
    (tmp_path / "held").write_text("81")
    environ = {"MOORING_PORT_FILE": str(tmp_path / "held"), "MOORING_PORT": "81"}
    with pytest.raises(ConfigurationError, match="MOORING_PORT is set too; unset one of them"):
        resolve({}, environ, tmp_path)


@pytest.mark.parametrize("name", [row.name for row in ROWS.values() if row.secret])
def test_a_secret_is_refused_on_the_command_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve({name: "hunter2"}, {}, tmp_path)
    option = ROWS[name].option
    assert str(caught.value) == (
        f"bad settings: {option}: every user of the machine can read a command line; set "
        f"{ROWS[name].canonical}, or {ROWS[name].canonical}_FILE to the path of a file that holds it"
    )


def test_a_secret_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve({}, {"MOORING_TLS_KEY_PASSWORD": "hunter2", "PORT": "x"}, tmp_path)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("left", "right", "near"),
    [
        ("ab", "ab", False),
        ("ab", "abc", True),
        ("ab", "ba", True),
        ("ab", "ac", True),
        ("abcd", "abdc", True),
        ("ab", "cd", False),
        ("a", "abc", False),
    ],
)
def test_one_edit(left: str, right: str, near: bool) -> None:
    assert one_edit_apart(left, right) is near
    assert one_edit_apart(right, left) is near


def test_a_kubernetes_service_called_mooring_sets_nothing(tmp_path: Path) -> None:
    links = {
        "MOORING_PORT": "tcp://10.0.0.1:80",
        "MOORING_SERVICE_HOST": "10.0.0.1",
        "MOORING_PORT_80_TCP": "x",
    }
    resolved = resolve({}, {**links, "PORT": "81"}, tmp_path)
    assert (resolved.settings.port, resolved.warnings) == (81, ())


def test_a_bad_profile_is_named_once(tmp_path: Path) -> None:
    (tmp_path / "mooring.toml").write_text('profile = "poetry"')
    with pytest.raises(ConfigurationError) as caught:
        resolve({}, {"MOORING_PROFILE": "nope"}, tmp_path)
    assert str(caught.value).count("nope") == 1


# -- names and words that others use too


CONDA = {"CONDA_PREFIX": "/opt/conda", "CONDA_BUILD_SYSROOT": "/opt/conda/sysroot"}


@pytest.mark.parametrize(
    ("host", "more"),
    [
        ("x86_64-conda-linux-gnu", CONDA),
        ("x86_64-conda_cos6-linux-gnu", {}),
        ("aarch64-unknown-linux-gnu", CONDA),
        ("whatever", {"CONDA_TOOLCHAIN_HOST": "whatever"}),
    ],
)
def test_the_host_that_condas_compilers_set_is_passed_over_with_a_warning(
    tmp_path: Path, host: str, more: dict[str, str]
) -> None:
    found = resolve({}, {"HOST": host, **more}, tmp_path)
    assert (found.settings.host, found.origins["host"].text) == ("127.0.0.1", "default")
    assert [text for text in found.warnings if text.startswith(f"HOST={host} is passed over")]


@pytest.mark.parametrize(
    "environ",
    [
        {"MOORING_HOST": "x86_64-conda-linux-gnu", **CONDA},
        {"HOST": "x86_64-pc-linux-gnu"},
        {"HOST": "0.0.0.0", **CONDA},
        {"HOST": "my-laptop", **CONDA},
        {"HOST": "localhost", **CONDA},
    ],
)
def test_any_other_host_is_the_users(tmp_path: Path, environ: dict[str, str]) -> None:
    found = resolve({}, environ, tmp_path)
    assert found.settings.host == next(iter(environ.values()))
    assert found.warnings == ()


def test_a_stronger_host_needs_no_warning_of_condas(tmp_path: Path) -> None:
    environ = {"MOORING_HOST": "::1", "HOST": "x86_64-conda-linux-gnu", **CONDA}
    assert resolve({}, environ, tmp_path).warnings == ()


@pytest.mark.parametrize("variable", ["ACCESS_LOG", "MOORING_ACCESS_LOG", "ERROR_LOG", "MOORING_ERROR_LOG"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((text, "-") for text in ("true", "1", "YES", "On", "-")),
        *((text, None) for text in ("false", "0", "no", "OFF", "None", "")),
        ("/var/log/true", "/var/log/true"),
        ("./true", "./true"),
    ],
)
def test_a_log_is_switched_by_a_boolean_too(
    tmp_path: Path, variable: str, text: str, expected: str | None
) -> None:
    name = variable.removeprefix("MOORING_").lower()
    assert getattr(resolve({}, {variable: text}, tmp_path).settings, name) == expected
    (tmp_path / "mooring.toml").write_text(f"{name} = {text!r}\n")
    assert getattr(resolve({}, {}, tmp_path).settings, name) == expected


def test_a_log_is_switched_by_a_boolean_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "mooring.toml").write_text("access_log = true\nerror_log = false\nlog_level = 30\n")
    found = resolve({}, {}, tmp_path).settings
    assert (found.access_log, found.error_log, found.log_level) == ("-", None, "warning")


@pytest.mark.parametrize(
    ("text", "level"),
    [
        *((text, "debug") for text in ("TRACE", "verbose", "notset", "0", "5", "10", "15")),
        *((text, "info") for text in ("SUCCESS", "notice", "20", "25")),
        *((text, "warning") for text in ("WARN", "26", "30")),
        *((text, "error") for text in ("err", "40")),
        *((text, "critical") for text in ("FATAL", "Critical", "46", "50", "60", "100")),
    ],
)
def test_a_level_of_another_library_is_the_nearest_of_ours(tmp_path: Path, text: str, level: str) -> None:
    assert resolve({}, {"LOG_LEVEL": text}, tmp_path).settings.log_level == level


@pytest.mark.parametrize("text", ["loud", "-1", "101", "1000", "true", "2.5", "info,debug", "\u0663"])
def test_what_is_no_level_of_anyones_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(f"LOG_LEVEL={text!r}: expected one of debug")):
        resolve({}, {"LOG_LEVEL": text}, tmp_path)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("PORT", '"8000"'),
        ("HOST", '"0.0.0.0"'),
        ("BIND", "'0.0.0.0:80'"),
        ("WEB_CONCURRENCY", '"2"'),
        ("TIMEOUT", "'30'"),
        ("LOG_LEVEL", "'info'"),
        ("ACCESS_LOG", '"-"'),
        ("ERROR_LOG", "'/tmp/error.log'"),
        ("RELOAD", '"true"'),
    ],
)
def test_quotes_that_came_with_a_value_are_named(tmp_path: Path, variable: str, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve({}, {variable: text}, tmp_path)
    assert f"{variable}={text!r}: expected " in str(caught.value)
    assert str(caught.value).endswith("; the quotes are a part of the value")


def test_process_manager_of_the_inboard_images(tmp_path: Path) -> None:
    """uvicorn is one process without gunicorn's configuration; only those images have the variable."""

    def of(profile: str, **environ: str) -> Resolved:
        return resolve({}, {"MOORING_PROFILE": profile, "PROCESS_MANAGER": "uvicorn", **environ}, tmp_path)

    alone = of("inboard-fastapi", GUNICORN_CONF="/app/gunicorn_conf.py", LOGGING_CONF="logs")
    assert (alone.settings.workers, alone.settings.gunicorn_conf, alone.settings.logging_conf) == (
        1,
        None,
        "logs",
    )
    assert any("GUNICORN_CONF has no effect with PROCESS_MANAGER=uvicorn" in text for text in alone.warnings)
    assert of("inboard-fastapi", WEB_CONCURRENCY="3").settings.workers == 3
    assert of("inboard-fastapi", PROCESS_MANAGER="gunicorn").settings.workers is None
    assert of("conda-starlette", LOGGING_CONF="logs").settings.workers is None
    assert of("conda-starlette", LOGGING_CONF="logs").settings.logging_conf is None
    with pytest.raises(ConfigurationError, match="PROCESS_MANAGER='x': expected one of gunicorn, uvicorn"):
        of("inboard-base", PROCESS_MANAGER="x")


@pytest.mark.parametrize("hosts", ["shop:9100", "*", "http://shop", "a b", "b\u00fccher.example", "[::1]"])
def test_what_no_host_field_would_match_is_no_name(hosts: str) -> None:
    with pytest.raises(ValueError, match="without a port"):
        parsers.host_names(hosts)


def test_names_of_hosts_are_taken_as_they_are() -> None:
    assert parsers.host_names("shop.example, my_shop.") == ("shop.example", "my_shop.")
