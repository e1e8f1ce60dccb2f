# mooring: default configuration
# Delete the line above where you change this file in its place: with that line, mooring passes over it.
"""gunicorn's configuration from the image's environment variables, standard library only.

mooring decides the same without this file. It is a starting point for your own, as
/app/gunicorn_conf.py, and says what holds: run with python, it prints one JSON object.
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
    found = re.fullmatch(r"((?:\[[^\s/\[\]]+\])?|[^\s/:\[\]]+):([0-9]{1,5})", text)
    if not found or int(found.group(2)) > 65535:
        raise ValueError
    return f"{found.group(1)}:{int(found.group(2))}"


def addresses(text):
    return ",".join(address(part) for part in text.split(",") if part.strip())


host = given("MOORING_HOST", "HOST")[1] or "0.0.0.0"
port = str(whole(0, 65535, 80, "MOORING_PORT", "PORT"))
by_port = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
bind = parsed(addresses, by_port, "HOST:PORT, unix:PATH or fd://N", "MOORING_BIND", "BIND")


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


# Workers: WEB_CONCURRENCY, else WORKERS_PER_CORE for each core, at least 2, at most MAX_WORKERS.

per_core = number(1.0, "MOORING_WORKERS_PER_CORE", "WORKERS_PER_CORE")
max_workers = whole(0, 4096, 0, "MOORING_MAX_WORKERS", "MAX_WORKERS")
tuned = max(int(per_core * cores()), 2)
if max_workers:
    tuned = min(tuned, max_workers)
workers = whole(1, 4096, tuned, "MOORING_WORKERS", "WEB_CONCURRENCY", "WORKERS")


# Logs; seconds.

loglevel = log_level("info", "MOORING_LOG_LEVEL", "LOG_LEVEL")
accesslog = log_file("-", "MOORING_ACCESS_LOG", "ACCESS_LOG")
errorlog = log_file("-", "MOORING_ERROR_LOG", "ERROR_LOG")
timeout = seconds(120, "MOORING_TIMEOUT", "TIMEOUT")
graceful_timeout = seconds(120, "MOORING_GRACEFUL_TIMEOUT", "GRACEFUL_TIMEOUT")
keep_alive = seconds(5, "MOORING_KEEP_ALIVE", "KEEP_ALIVE")
worker_class = given("MOORING_WORKER_CLASS", "WORKER_CLASS")[1] or "uvicorn.workers.UvicornWorker"
worker_tmp_dir = given("MOORING_WORKER_TMP_DIR", "WORKER_TMP_DIR")[1] or "/dev/shm"

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

if problems:
    sys.stderr.write(f"bad settings: {'; '.join(problems)}\n")
    sys.exit(2)

print(json.dumps(summary), flush=True)

# gunicorn takes whole seconds only.
timeout, graceful_timeout, keepalive = math.ceil(timeout), math.ceil(graceful_timeout), math.ceil(keep_alive)
