"""Workers that end by themselves: named in words, replaced with a backoff, the others serve on."""

from __future__ import annotations

import os
import signal

import pytest
from harness import ASGI_APP

FRAGILE = ASGI_APP.replace(
    'case "/":',
    'case "/exit":\n            os._exit(7)\n        case "/":',
)


@pytest.mark.parametrize(
    ("number", "words"), [(signal.SIGKILL, "killed by SIGKILL"), (signal.SIGSEGV, "killed by SIGSEGV")]
)
def test_a_signal_is_named_and_the_other_serves_on(mooring, number, words):
    app = mooring.run(workers=2)
    victim, other = app.ready()
    os.kill(victim, number)
    assert words in app.wait_log("exited while ready")
    assert app.get("/").text == "hello"
    assert other in app.wait_ready(2, without=[victim])
    found = app.status()
    assert (found["last_exits"][-1]["reason"], found["last_exits"][-1]["kind"]) == (words, "signal")
    assert app.stop() == 0


def test_an_exit_code_is_named_and_the_slot_backs_off(mooring):
    app = mooring.run(workers=2, files={"main.py": FRAGILE})
    for count in (1, 2, 3):
        with pytest.raises((OSError, ValueError, EOFError)):
            app.get("/exit")
        assert "exit code 7" in app.wait_log("exited while ready", count=count)
        assert app.get("/").text == "hello"
        app.wait_ready(2)
    assert "failed" in app.wait_log("times in a row; next try in")
    assert [each["kind"] for each in app.status()["last_exits"]] == ["exit_code"] * 3
    assert app.stop() == 0
