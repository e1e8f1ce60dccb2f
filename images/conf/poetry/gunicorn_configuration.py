"""gunicorn's configuration from the image's environment variables, standard library only.

mooring decides the same without this file, and runs no server with it as long as nothing in it is
changed. Edited in its place (an editor, sed, a line at its end) it counts, and so does a copy, as
the file that GUNICORN_CONF names. Run with python, it prints one JSON object.
"""

import json
import math
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


# What holds without variables.

DEFAULT_GUNICORN_CONFIG = {
    "bind": "0.0.0.0:80",
    "workers": 1,
    "timeout": 30,
    "graceful_timeout": 30,
    "keepalive": 2,
    "loglevel": "info",
    "accesslog": "-",
    "errorlog": "-",
    "reload": False,
    "worker_tmp_dir": "/dev/shm",
}


# Where to listen, as above; one worker, unless a variable says otherwise; logs; seconds.

host = given("MOORING_HOST", "HOST")[1] or DEFAULT_GUNICORN_CONFIG["bind"].rpartition(":")[0]
port = DEFAULT_GUNICORN_CONFIG["bind"].rpartition(":")[2]
port = str(whole(0, 65535, port, 80, "MOORING_PORT", "PORT"))
use_bind = f"[{host}]:{port}" if ":" in host.strip("[]") and host[:1] != "[" else f"{host}:{port}"
names = ("MOORING_BIND", "BIND")
use_bind = parsed(addresses, "", use_bind, "HOST:PORT, unix:PATH or fd://N", *names)
names = ("MOORING_WORKERS", "WORKERS", "WEB_CONCURRENCY")
use_workers = whole(1, 4096, DEFAULT_GUNICORN_CONFIG["workers"], 1, *names)
use_loglevel = log_level(DEFAULT_GUNICORN_CONFIG["loglevel"], "MOORING_LOG_LEVEL", "LOG_LEVEL")
use_accesslog = os.getenv("ACCESS_LOG", DEFAULT_GUNICORN_CONFIG["accesslog"])
use_accesslog = log_file(use_accesslog, "MOORING_ACCESS_LOG")
use_errorlog = os.getenv("ERROR_LOG", DEFAULT_GUNICORN_CONFIG["errorlog"])
use_errorlog = log_file(use_errorlog, "MOORING_ERROR_LOG")
use_timeout, use_graceful_timeout, use_keepalive = (
    seconds(name, DEFAULT_GUNICORN_CONFIG[name], 0, f"MOORING_{variable}", variable)
    for name, variable in (
        ("timeout", "TIMEOUT"),
        ("graceful_timeout", "GRACEFUL_TIMEOUT"),
        ("keepalive", "KEEP_ALIVE"),
    )
)
use_tmp_dir = given("MOORING_WORKER_TMP_DIR", "WORKER_TMP_DIR")[1]
flags = dict.fromkeys(("1", "true", "yes", "on", "y", "t"), True)
flags.update(dict.fromkeys(("0", "false", "no", "off", "n", "f"), False))
names = ("MOORING_RELOAD", "RELOAD", "WITH_RELOAD")
use_reload = parsed(
    lambda text: flags[text.lower()], DEFAULT_GUNICORN_CONFIG["reload"], False, "true or false", *names
)
worker_class = given("MOORING_WORKER_CLASS", "WORKER_CLASS")[1] or "uvicorn.workers.UvicornWorker"

if problems:
    sys.stderr.write(f"bad settings: {'; '.join(problems)}\n")
    sys.exit(2)

# What gunicorn reads. A line of your own may stand between these, or after them.
loglevel = use_loglevel
accesslog = use_accesslog
errorlog = use_errorlog
reload = use_reload
workers = use_workers
timeout = int(use_timeout)
graceful_timeout = int(use_graceful_timeout)
keepalive = int(use_keepalive)
worker_tmp_dir = use_tmp_dir or DEFAULT_GUNICORN_CONFIG["worker_tmp_dir"]
bind = use_bind

log_data = {
    "bind": bind,
    "workers": workers,
    "timeout": exactly("timeout", timeout),
    "graceful_timeout": exactly("graceful_timeout", graceful_timeout),
    "keepalive": exactly("keepalive", keepalive),
    "loglevel": loglevel,
    "errorlog": errorlog,
    "accesslog": accesslog,
    "reload": reload,
    "worker_tmp_dir": worker_tmp_dir,
}

print(json.dumps(log_data))
sys.stdout.flush()
