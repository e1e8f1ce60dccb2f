"""The stacks of a hung worker: the application's threads and frames are put before the others."""

from __future__ import annotations

import os
import threading

import pytest

import mooring
from mooring.supervisor.frames import arranged, owner, place

PYTHON = os.path.dirname(threading.__file__)
OURS = os.path.dirname(mooring.__file__)

BEAT = f"""Thread 0x00007f01 (most recent call first):
  File "{OURS}/worker/heartbeat.py", line 99 in _thread
"""
DIRECT = f"""Thread 0x00007f02 (most recent call first):
  File "/app/main.py", line 12 in build_report
  File "/venv/lib/python3.11/site-packages/flask/app.py", line 3 in dispatch
  File "/app/main.py", line 40 in app
  File "{OURS}/instrument/wsgi.py", line 1 in wsgi
"""
DEEP = f"""Current thread 0x00007f03 (most recent call first):
  File "{PYTHON}/threading.py", line 320 in wait
  File "/venv/lib/python3.11/site-packages/requests/api.py", line 7 in get
  File "/app/main.py", line 12 in fetch
  File "/venv/lib/python3.11/site-packages/shop/views.py", line 3 in view
  File "{OURS}/instrument/wsgi.py", line 1 in wsgi
  File "<frozen runpy>", line 88 in _run_code
"""


def test_the_threads_of_the_application_come_first() -> None:
    own = owner("main")
    assert arranged(f"{BEAT}\n{DIRECT}", own) == f"{DIRECT}\n{BEAT}"
    assert arranged(f"{BEAT}\n{DIRECT}\n{BEAT}", own) == f"{DIRECT}\n{BEAT}\n{BEAT}"
    assert place(arranged(f"{BEAT}\n{DIRECT}", own), own) == "build_report (/app/main.py:12)"


def test_its_frames_come_before_those_that_they_called() -> None:
    own = owner("main:app".partition(":")[0])
    lines = arranged(f"{BEAT}\n{DEEP}", own).splitlines()
    assert lines[:3] == [
        "Current thread 0x00007f03 (most recent call first):",
        '  File "/app/main.py", line 12 in fetch',
        "  What these called:",
    ]
    assert sorted(line for line in lines if line.startswith("  File")) == sorted(
        line for line in f"{BEAT}\n{DEEP}".splitlines() if line.startswith("  File")
    )
    assert place("\n".join(lines), own) == "fetch (/app/main.py:12)"


def test_an_installed_application_is_known_by_its_package() -> None:
    own = owner("shop.wsgi")
    found = arranged(DEEP, own).splitlines()[1:3]
    assert [line.rpartition(" ")[2] for line in found] == ["fetch", "view"]
    assert not owner("main")('  File "/venv/lib/python3.11/site-packages/shop/views.py", line 3 in view')


@pytest.mark.parametrize("stacks", ["", "something else\n", BEAT, f"{BEAT}\n{BEAT}", 'File "cut'])
def test_where_the_application_has_no_frame_nothing_changes(stacks: str) -> None:
    assert arranged(stacks, owner("main")) == stacks
    assert place(stacks, owner("main")) == ""
