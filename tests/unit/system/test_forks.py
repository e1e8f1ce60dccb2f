"""What a fork of the application's is given; tests/integration/test_children.py has it on the engines."""

from __future__ import annotations

import functools
import json
import subprocess
import sys

import pytest

from mooring.system import forks

_START = """
import json, os, signal, socket, sys, threading
from mooring.system import forks

def in_child(look):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, json.dumps(look()).encode())
        os._exit(0)
    os.close(write)
    found = os.fdopen(read).read()
    os.waitpid(pid, 0)
    return json.loads(found)

def listens(fd):
    try:
        sock = socket.socket(fileno=os.dup(fd))
    except OSError:
        return None
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))

forks.guard()
"""


def run(code):
    done = subprocess.run(
        [sys.executable, "-c", _START + code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_listener_its_duplicates_and_its_connections_are_shut_and_the_applications_own_are_not():
    code = """
ours, theirs = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
forks.disown(ours.fileno())
copy = os.dup(ours.fileno())
client = socket.create_connection(ours.getsockname())
accepted, _ = ours.accept()
def look():
    dead = socket.socket(fileno=os.dup(accepted.fileno())).family != socket.AF_INET
    return [listens(ours.fileno()), listens(copy), listens(theirs.fileno()), dead, client.getpeername()[1]]
print(json.dumps([in_child(look), listens(ours.fileno()), ours.getsockname()[1]]))
"""
    found, still, port = run(code)
    assert found == [False, False, True, True, port]
    assert still is True


def test_a_number_that_the_application_has_got_since_is_its_own():
    code = """
read, write = os.pipe()
forks.disown(read)
os.close(read)
mine = os.open("/dev/null", os.O_RDONLY)
assert mine == read
print(json.dumps(in_child(lambda: os.readlink(f"/proc/self/fd/{mine}"))))
"""
    assert run(code) == "/dev/null"


def test_a_fork_of_moorings_own_keeps_everything_and_forks_for_the_application_again():
    code = """
ours = socket.create_server(("127.0.0.1", 0))
forks.disown(ours.fileno())
def here():
    return [listens(ours.fileno()), forks.is_applications()]
def look():
    return [*here(), in_child(here)]
with forks.own():
    found = in_child(look)
print(json.dumps(found))
"""
    assert run(code) == [True, False, [False, True]]


def test_a_child_dies_with_the_thread_that_matters_alone():
    code = """
import ctypes
def look():
    number = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(number), 0, 0, 0)  # PR_GET_PDEATHSIG
    return number.value
found = [in_child(look)]
thread = threading.Thread(target=lambda: found.append(in_child(look)))
thread.start(); thread.join()
print(json.dumps(found))
"""
    assert run(code) == [15, 0]


class Loop:
    def stop(self, *_):
        """Something of the application's."""


Engine = type("Engine", (Loop,), {"__module__": "gunicorn.workers.sync"})


@pytest.mark.parametrize(
    ("handler", "theirs"),
    [
        (Loop().stop, False),
        (functools.partial(Loop().stop), False),
        (test_a_child_dies_with_the_thread_that_matters_alone, False),
        (Engine().stop, True),
        (forks.guard, True),
        (functools.partial(forks.guard), True),
    ],
)
def test_a_servers_handler_is_told_from_the_applications(handler, theirs, monkeypatch):
    monkeypatch.setattr(forks, "_servers", {*forks._servers, "gunicorn"})  # as guard() does
    assert forks._is_servers(handler) is theirs
