"""gunicorn's configuration from the image's environment variables, standard library only.

mooring decides the same without this file, and runs no server with it as long as nothing in it is
changed. Edited in its place (an editor, sed, a line at its end) it counts, and so does a copy, as
/app/gunicorn_conf.py. Run with python, it prints one JSON object.
"""

import json
import math
import multiprocessing
import os
import re
import sys

problems, asked = [], {}


# Variables: blanks around a value don't count, and an empty one means unset.


def given(*names):
    """The first of some variables that is set: its name and its text."""
    for name in names:
        if os.environ.get(name, "").strip():
            return name, os.environ[name].strip()
    return "", ""


def parsed(parse, text, default, expected, *names):
    """A variable's value, else that of `text`; what cannot be parsed is kept for the message at the end."""
    name, value = given(*names)
    value = value or str(text or "").strip()
    if not value:
        return default
    try:
        return parse(value)
    except (KeyError, ValueError):
        problems.append(f"{name or names[-1]}={value!r}: expected {expected}")
        return default


def whole(least, most, text, default, *names):
    def parse(text):
        if not re.fullmatch("[+-]?[0-9]+", text) or not least <= int(text) <= most:
            raise ValueError
        return int(text)

    return parsed(parse, text, default, f"a whole number from {least} to {most}", *names)


def number(text, default, *names):
    def parse(text):
        if not 0 < float(text) < math.inf:
            raise ValueError
        return float(text)

    return parsed(parse, text, default, "a number more than 0", *names)


def seconds(name, text, default, *names):
    """Whole seconds, which is all that gunicorn takes, as text."""

    def parse(text):
        if not 0 <= float(text) < math.inf:
            raise ValueError
        return int(float(text)) if float(text).is_integer() else float(text)

    asked[name] = parsed(parse, text, default, "a number of seconds", *names)
    return str(math.ceil(asked[name]))


def exactly(name, value):
    """Seconds as they were asked for, unless the lines at the end were changed."""
    return asked[name] if value == math.ceil(asked[name]) else value


def log_file(text, name):
    """Here an empty value means off; a switch's words are - and off."""
    text = os.environ.get(name, text or "").strip()
    if text.lower() in ("1", "true", "yes", "on", "y", "t"):
        return "-"
    off = ("", "0", "false", "no", "off", "n", "f", "none", "null")
    return None if text.lower() in off else text


LEVELS = {name: name for name in ("debug", "info", "warning", "error", "critical")}
LEVELS.update(dict.fromkeys(("notset", "all", "trace", "verbose", "finest", "finer", "fine"), "debug"))
LEVELS.update(dict.fromkeys(("success", "notice", "information"), "info"))
LEVELS.update(dict.fromkeys(("err", "severe", "exception"), "error"))
LEVELS.update(dict.fromkeys(("fatal", "crit", "alert", "emergency", "emerg", "panic"), "critical"))
LEVELS.update(warn="warning")


def log_level(text, *names):
    """A level's name, or the nearest to a number as in Python's logging."""

    def parse(text):
        if re.fullmatch("[0-9]{1,3}", text) and int(text) <= 100:
            return list(LEVELS)[min(max(int(text) + 4, 10) // 10, 5) - 1]
        return LEVELS[text.lower()]

    return parsed(parse, text, "info", "one of " + ", ".join(list(LEVELS)[:5]), *names)


# Where to listen: BIND, else HOST and PORT.


def address(text):
    text = text.strip()
    if text == "systemd" or text.startswith(("unix:", "fd://")):
        return text
    if text.startswith(("/", "./")):
        return "unix:" + text
    found = re.fullmatch(r"((?:\[[^\s/\[\]]+\])?|[^\s/:\[\]]+):([0-9]{1,5})", text)
    if not found or int(found.group(2)) > 65535:
        raise ValueError
    return f"{found.group(1)}:{int(found.group(2))}"


def addresses(text):
    return ",".join(address(part) for part in text.split(",") if part.strip())


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


def available():
    name, text = given("MOORING_CPU_COUNT")
    if text.lower() == "host":
        return os.cpu_count() or 1
    if text:
        return number("", 1, name)
    return min([len(os.sched_getaffinity(0)), *quotas()])


# What the variables say, and what holds without them.

workers_per_core_str = os.getenv("WORKERS_PER_CORE", "2")
max_workers_str = os.getenv("MAX_WORKERS")
web_concurrency_str = os.getenv("WEB_CONCURRENCY", None)
host = os.getenv("HOST", "0.0.0.0")
port = os.getenv("PORT", "80")
bind_env = os.getenv("BIND", None)
use_loglevel = os.getenv("LOG_LEVEL", "info")
accesslog_var = os.getenv("ACCESS_LOG", None)
errorlog_var = os.getenv("ERROR_LOG", "-")
graceful_timeout_str = os.getenv("GRACEFUL_TIMEOUT", "30")
timeout_str = os.getenv("TIMEOUT", "30")
keepalive_str = os.getenv("KEEP_ALIVE", "120")

cores = multiprocessing.cpu_count()


# Workers: WEB_CONCURRENCY, else WORKERS_PER_CORE for each core, at most MAX_WORKERS.

if cores == os.cpu_count():
    cores = available()
workers_per_core = number(workers_per_core_str, 2.0, "MOORING_WORKERS_PER_CORE", "WORKERS_PER_CORE")
use_max_workers = whole(0, 4096, max_workers_str, 0, "MOORING_MAX_WORKERS", "MAX_WORKERS") or None
default_web_concurrency = workers_per_core * cores
web_concurrency = int(default_web_concurrency)
web_concurrency = max(web_concurrency, 1)
if use_max_workers:
    web_concurrency = min(web_concurrency, use_max_workers)
names = ("MOORING_WORKERS", "WEB_CONCURRENCY", "WORKERS")
web_concurrency = whole(1, 4096, web_concurrency_str, web_concurrency, *names)


# Where to listen; logs; seconds.

host = given("MOORING_HOST")[1] or host.strip() or "0.0.0.0"
port = str(whole(0, 65535, port, 80, "MOORING_PORT", "PORT"))
use_bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
use_bind = parsed(addresses, bind_env, use_bind, "HOST:PORT, unix:PATH or fd://N", "MOORING_BIND", "BIND")
use_loglevel = log_level(use_loglevel, "MOORING_LOG_LEVEL", "LOG_LEVEL")
use_accesslog = log_file(accesslog_var, "MOORING_ACCESS_LOG")
use_errorlog = log_file(errorlog_var, "MOORING_ERROR_LOG")
names = ("MOORING_GRACEFUL_TIMEOUT", "GRACEFUL_TIMEOUT")
graceful_timeout_str = seconds("graceful_timeout", graceful_timeout_str, 30, *names)
timeout_str = seconds("timeout", timeout_str, 30, "MOORING_TIMEOUT", "TIMEOUT")
keepalive_str = seconds("keepalive", keepalive_str, 120, "MOORING_KEEP_ALIVE", "KEEP_ALIVE")
worker_class = given("MOORING_WORKER_CLASS", "WORKER_CLASS")[1] or "gthread"

if problems:
    sys.stderr.write(f"bad settings: {'; '.join(problems)}\n")
    sys.exit(2)

# What gunicorn reads. A line of your own may stand between these, or after them.
threads = 4
timeout = int(timeout_str)
graceful_timeout = int(graceful_timeout_str)
accesslog = use_accesslog
loglevel = use_loglevel
workers = web_concurrency
bind = use_bind
keepalive = 120
errorlog = "-"

if keepalive == 120:
    keepalive = int(keepalive_str)
if errorlog == "-":
    errorlog = use_errorlog

log_data = {
    "loglevel": loglevel,
    "workers": workers,
    "bind": bind,
    "workers_per_core": workers_per_core,
    "host": host,
    "port": port,
}

print(json.dumps(log_data))
sys.stdout.flush()
