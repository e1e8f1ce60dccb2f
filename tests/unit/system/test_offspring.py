"""The end of what a process has below it; tests/integration/test_children.py has it on the engines."""

from __future__ import annotations

import subprocess
import sys

_CODE = """
import concurrent.futures, multiprocessing, time
from concurrent.futures import process as executors
from mooring.system import process

executor = concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
executor.submit(abs, 1).result()
executor.submit(time.sleep, 600)

def wakeup(self):
    print("closed" if self._closed else "open", flush=True)

executors._ThreadWakeup.wakeup = wakeup
process.run_to_the_end(lambda: 0)
"""


def test_an_executor_whose_process_was_ended_has_closed_its_pipe_before_pythons_end_writes_to_it():
    done = subprocess.run(
        [sys.executable, "-c", _CODE], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "closed\n", "")
