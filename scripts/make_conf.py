"""Write the configuration files that the drop-in images carry at the older images' paths: images/conf/.

    python scripts/make_conf.py [FOLDER]

Each file is standalone, since users copy it, and a server's own interpreter runs it. The rules that the files
share are written once, here. They print what `mooring run` prints (tests/integration/test_conf_files.py).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "images" / "conf"

_HEAD = '''\
# mooring: default configuration
# Delete the line above where you change this file in its place: with that line, mooring passes over it.
"""@SERVER@'s configuration from the image's environment variables, standard library only.

mooring decides the same without this file. It is a starting point for your own, as
@COPY@, and says what holds: run with python, it prints one JSON object.
"""

import json
import math
import os
import re
import sys

problems = []


# Variables: blanks around a value don't count, and an empty one means unset.


def given(*names):
    """The first of some variables that is set: its name and its text."""
    for name in names:
        if os.environ.get(name, "").strip():
            return name, os.environ[name].strip()
    return "", ""


def parsed(parse, default, expected, *names):
    """A variable's value; what cannot be parsed is kept for the message at the end."""
    name, text = given(*names)
    if not text:
        return default
    try:
        return parse(text)
    except (KeyError, ValueError):
        problems.append(f"{name}={text!r}: expected {expected}")
        return default


def whole(least, most, default, *names):
    def parse(text):
        if not re.fullmatch("[+-]?[0-9]+", text) or not least <= int(text) <= most:
            raise ValueError
        return int(text)

    return parsed(parse, default, f"a whole number from {least} to {most}", *names)


def number(default, *names):
    def parse(text):
        if not 0 < float(text) < math.inf:
            raise ValueError
        return float(text)

    return parsed(parse, default, "a number more than 0", *names)


def seconds(default, *names):
    def parse(text):
        if not 0 <= float(text) < math.inf:
            raise ValueError
        return int(float(text)) if float(text).is_integer() else float(text)

    return parsed(parse, default, "a number of seconds", *names)


def log_file(default, *names):
    """Here an empty value means off; a switch's words are - and off."""
    text = next((os.environ[name].strip() for name in names if name in os.environ), default)
    if (text or "").lower() in ("1", "true", "yes", "on", "y", "t"):
        return "-"
    off = ("", "0", "false", "no", "off", "n", "f", "none", "null")
    return None if (text or "").lower() in off else text


LEVELS = {name: name for name in ("debug", "info", "warning", "error", "critical")}
LEVELS.update(dict.fromkeys(("notset", "all", "trace", "verbose", "finest", "finer", "fine"), "debug"))
LEVELS.update(dict.fromkeys(("success", "notice", "information"), "info"))
LEVELS.update(dict.fromkeys(("err", "severe", "exception"), "error"))
LEVELS.update(dict.fromkeys(("fatal", "crit", "alert", "emergency", "emerg", "panic"), "critical"))
LEVELS.update(warn="warning")


def log_level(default, *names):
    """A level's name, or the nearest to a number as in Python's logging."""

    def parse(text):
        if re.fullmatch("[0-9]{1,3}", text) and int(text) <= 100:
            return list(LEVELS)[min(max(int(text) + 4, 10) // 10, 5) - 1]
        return LEVELS[text.lower()]

    return parsed(parse, default, "one of " + ", ".join(list(LEVELS)[:5]), *names)


# Where to listen: BIND, else HOST and PORT.


def address(text):
    text = text.strip()
    if text == "systemd" or text.startswith(("unix:", "fd://")):
        return text
    if text.startswith(("/", "./")):
        return "unix:" + text
    found = re.fullmatch(r"((?:\\[[^\\s/\\[\\]]+\\])?|[^\\s/:\\[\\]]+):([0-9]{1,5})", text)
    if not found or int(found.group(2)) > 65535:
        raise ValueError
    return f"{found.group(1)}:{int(found.group(2))}"


def addresses(text):
    return ",".join(address(part) for part in text.split(",") if part.strip())


host = given("MOORING_HOST", "HOST")[1] or "0.0.0.0"
port = str(whole(0, 65535, 80, "MOORING_PORT", "PORT"))
by_port = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
bind = parsed(addresses, by_port, "HOST:PORT, unix:PATH or fd://N", "MOORING_BIND", "BIND")
'''

_CORES = '''

# CPU cores: the least of the CPUs that the process may run on and of its container's quota.


def lines(name):
    try:
        with open(name, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []


def cgroups(root):
    """The folders of the cgroups that bind this process, its own and its ancestors' (cgroups(7))."""
    own = {}
    for line in lines(root + "proc/self/cgroup"):
        controllers, _, path = line.partition(":")[2].partition(":")
        for controller in controllers.split(","):
            own[controller] = path
    for line in lines(root + "proc/self/mountinfo"):
        here, there = (part.split(" ") for part in (line + " - ").split(" - ")[:2])
        if there[0] == "cgroup2":
            path = own.get("", "/")
        elif there[0] == "cgroup" and "cpu" in there[-1].split(","):
            path = own.get("cpu", "/")
        else:
            continue
        top, point = (name.encode().decode("unicode_escape").strip("/") for name in here[3:5])
        names = [name for name in path.split("/") if name and name != ".."]
        if names[: len(top.split("/"))] == top.split("/"):
            names = names[len(top.split("/")) :]
        # The path may be the host's, where the container sees its own cgroup as the top one.
        while names and not os.path.isdir(os.path.join(root, point, *names)):
            names.pop(0)
        for depth in range(len(names) + 1):
            yield os.path.join(root, point, *names[:depth])


def quotas(root="/"):
    """Each quota that binds this process, in cores: cpu.max of version 2, cpu.cfs_* of version 1."""
    for folder in cgroups(root):
        words = " ".join(lines(folder + "/cpu.max")).split()
        if not words:
            words = lines(folder + "/cpu.cfs_quota_us") + lines(folder + "/cpu.cfs_period_us")
        if words and all(re.fullmatch("[0-9]+", word) and int(word) for word in words):
            yield int(words[0]) / int([*words, "100000"][1])


def cores():
    name, text = given("MOORING_CPU_COUNT")
    if text.lower() == "host":
        return os.cpu_count() or 1
    if text:
        return number(1, name)
    return min([len(os.sched_getaffinity(0)), *quotas()])


# Workers: WEB_CONCURRENCY, else WORKERS_PER_CORE for each core, @FLOOR@at most MAX_WORKERS.

per_core = number(@PER_CORE@, "MOORING_WORKERS_PER_CORE", "WORKERS_PER_CORE")
max_workers = whole(0, 4096, 0, "MOORING_MAX_WORKERS", "MAX_WORKERS")
tuned = max(int(per_core * cores()), @LEAST@)
if max_workers:
    tuned = min(tuned, max_workers)
workers = whole(1, 4096, tuned, "MOORING_WORKERS", "WEB_CONCURRENCY", "WORKERS")
'''

_ONE = """

# Workers: one, unless a variable says otherwise.

workers = whole(1, 4096, 1, "MOORING_WORKERS", "WORKERS", "WEB_CONCURRENCY")
"""

_TIMES = """

# Logs; seconds.

loglevel = log_level("info", "MOORING_LOG_LEVEL", "LOG_LEVEL")
accesslog = log_file(@ACCESS@, "MOORING_ACCESS_LOG", "ACCESS_LOG")
errorlog = log_file("-", "MOORING_ERROR_LOG", "ERROR_LOG")
timeout = seconds(@TIMEOUT@, "MOORING_TIMEOUT", "TIMEOUT")
graceful_timeout = seconds(@GRACE@, "MOORING_GRACEFUL_TIMEOUT", "GRACEFUL_TIMEOUT")
keep_alive = seconds(@KEEP_ALIVE@, "MOORING_KEEP_ALIVE", "KEEP_ALIVE")
"""

_END = """
if problems:
    sys.stderr.write(f"bad settings: {'; '.join(problems)}\\n")
    sys.exit(2)

print(json.dumps(summary), flush=True)
"""

_GUNICORN_CLASS = """worker_class = given("MOORING_WORKER_CLASS", "WORKER_CLASS")[1] or @CLASS@
"""

_GUNICORN_END = """
# gunicorn takes whole seconds only.
timeout, graceful_timeout, keepalive = math.ceil(timeout), math.ceil(graceful_timeout), math.ceil(keep_alive)
"""

_HYPERCORN_END = """
# hypercorn sends its configuration to its workers: functions can't be sent.
for name in [name for name, value in globals().items() if callable(value) and not name.startswith("_")]:
    del globals()[name]
"""

_COMMON = """
summary = {
    "loglevel": loglevel,
    "workers": workers,
    "bind": bind,
    "workers_per_core": per_core,
    "host": host,
    "port": port,
}
"""

_INBOARD = """worker_tmp_dir = given("MOORING_WORKER_TMP_DIR", "WORKER_TMP_DIR")[1] or "/dev/shm"

summary = {
    "loglevel": loglevel,
    "workers": workers,
    "bind": bind,
    "graceful_timeout": graceful_timeout,
    "timeout": timeout,
    "keepalive": keep_alive,
    "errorlog": errorlog,
    "accesslog": accesslog,
    "workers_per_core": per_core,
    "use_max_workers": max_workers or None,
    "host": host,
    "port": port,
}
"""

_HYPERCORN = """keep_alive_timeout = keep_alive
classes = {name: name for name in ("asyncio", "uvloop", "trio")}
names = ("MOORING_WORKER_CLASS", "WORKER_CLASS")
worker_class = parsed(classes.__getitem__, "asyncio", "one of " + ", ".join(classes), *names)

summary = {
    "loglevel": loglevel,
    "workers": workers,
    "bind": bind,
    "graceful_timeout": graceful_timeout,
    "worker_class": worker_class,
    "keepalive": keep_alive,
    "errorlog": errorlog,
    "accesslog": accesslog,
    "workers_per_core": per_core,
    "use_max_workers": max_workers or None,
    "host": host,
    "port": port,
}
"""

_POETRY = """worker_tmp_dir = given("MOORING_WORKER_TMP_DIR", "WORKER_TMP_DIR")[1] or "/dev/shm"
flags = dict.fromkeys(("1", "true", "yes", "on", "y", "t"), True)
flags.update(dict.fromkeys(("0", "false", "no", "off", "n", "f"), False))
names = ("MOORING_RELOAD", "RELOAD", "WITH_RELOAD")
reload = parsed(lambda text: flags[text.lower()], False, "true or false", *names)

summary = {
    "bind": bind,
    "workers": workers,
    "timeout": timeout,
    "graceful_timeout": graceful_timeout,
    "keepalive": keep_alive,
    "loglevel": loglevel,
    "errorlog": errorlog,
    "accesslog": accesslog,
    "reload": reload,
    "worker_tmp_dir": worker_tmp_dir,
}
"""

_UVICORN_CLASS = '"uvicorn.workers.UvicornWorker"'


@dataclass(frozen=True)
class Conf:
    """One file: its path in the image, and what differs from the other files."""

    path: str
    shipped: str
    values: dict[str, str]
    tail: str

    @property
    def gunicorn(self) -> bool:
        """Whether gunicorn reads the file."""
        return "hypercorn" not in self.path

    def text(self) -> str:
        """The file's content."""
        cores = _CORES if "@PER_CORE@" in self.values else _ONE
        end = (
            (_GUNICORN_CLASS, self.tail, _END, _GUNICORN_END)
            if self.gunicorn
            else (self.tail, _END, _HYPERCORN_END)
        )
        text = "".join((_HEAD, cores, _TIMES, *end))
        for name, value in {**self.values, "@SHIPPED@": self.shipped}.items():
            text = text.replace(name, value)
        return text


def _values(grace: int, keep_alive: int, **more: str) -> dict[str, str]:
    values = {"GRACE": str(grace), "KEEP_ALIVE": str(keep_alive), **more}
    least = values.get("LEAST", "1")
    values = {
        "SERVER": "gunicorn",
        "COPY": "/app/gunicorn_conf.py",
        "LEAST": "1",
        "FLOOR": "" if least == "1" else f"at least {least}, ",
        "ACCESS": '"-"',
        "TIMEOUT": "30",
        "CLASS": _UVICORN_CLASS,
        **values,
    }
    return {f"@{name}@": value for name, value in values.items()}


CONFS = (
    Conf(
        "hypercorn_conf.py",
        "/hypercorn_conf.py",
        _values(120, 2, PER_CORE="1.0", LEAST="2", SERVER="hypercorn", COPY="/app/hypercorn_conf.py"),
        _HYPERCORN,
    ),
    Conf(
        "conda-starlette/gunicorn_conf.py",
        "/gunicorn_conf.py",
        _values(30, 120, PER_CORE="1.0", LEAST="2", ACCESS='"/dev/stderr"'),
        _COMMON,
    ),
    Conf(
        "inboard/gunicorn_conf.py",
        "/gunicorn_conf.py",
        _values(120, 2, PER_CORE="1.0", LEAST="2", TIMEOUT="120"),
        _INBOARD,
    ),
    Conf(
        "uvicorn-gunicorn/gunicorn_conf.py",
        "/gunicorn_conf.py",
        _values(120, 5, PER_CORE="1.0", LEAST="2", TIMEOUT="120"),
        _INBOARD,
    ),
    Conf(
        "poetry/gunicorn_configuration.py",
        "/application_server/gunicorn_configuration.py",
        _values(30, 2, COPY="the file that GUNICORN_CONF names"),
        _POETRY,
    ),
    Conf(
        "meinheld-flask/gunicorn_conf.py",
        "/gunicorn_conf.py",
        _values(30, 120, PER_CORE="2.0", ACCESS="None", CLASS='"gthread"'),
        "threads = 4\n" + _COMMON,
    ),
)


def main(folder: Path) -> None:
    """Write all configuration files."""
    for conf in CONFS:
        path = folder / conf.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(conf.text())


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else FOLDER)
