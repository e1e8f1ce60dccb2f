"""MOORING_DEBUGPY: an editor attaches to the worker, and stops it at a breakpoint."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from dap import Debugger
from harness import WSGI_APP, eventually, free_port

ASGI = """async def app(scope, receive, send):
    if scope["type"] == "http":
        word = "seen"
        body = word.encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
"""


def test_a_debugger_attaches_and_stops_at_a_breakpoint(mooring):
    port = free_port()
    app = mooring.run("main:app", files={"main.py": ASGI}, MOORING_DEBUGPY=port, TIMEOUT=2)
    status = app.status()
    assert status["size"] == 1
    assert status["plan"]["workers"]["reason"] == "a debugger runs one worker"
    assert status["plan"]["timeout"]["value"] == 0
    assert app.get().text == "seen"
    with Debugger(port) as debugger, ThreadPoolExecutor(1) as aside:
        assert debugger.attach()["supportsConfigurationDoneRequest"]
        main = str(mooring.folder / "main.py")
        lines = {"source": {"path": main}, "breakpoints": [{"line": 4}]}
        set_at = debugger.answer(debugger.send("setBreakpoints", **lines))
        assert set_at["breakpoints"][0]["verified"]
        debugger.go()
        answer = aside.submit(app.get)
        stopped = debugger.event("stopped")
        assert stopped["reason"] == "breakpoint"
        frames = debugger.answer(debugger.send("stackTrace", threadId=stopped["threadId"]))["stackFrames"]
        assert (frames[0]["name"], frames[0]["line"]) == ("app", 4)
        frame = {"expression": "word", "frameId": frames[0]["id"], "context": "watch"}
        assert debugger.answer(debugger.send("evaluate", **frame))["result"] == "'seen'"
        debugger.answer(debugger.send("continue", threadId=stopped["threadId"]))
        assert answer.result().text == "seen"
        debugger.answer(debugger.send("disconnect"))
    assert app.stop() == 0
    assert app.leftovers == []


@pytest.mark.parametrize("engine", ["granian", "hypercorn"])
def test_other_engines_too(mooring, engine):
    port = free_port()
    source = WSGI_APP if engine == "granian" else ASGI
    app = mooring.run("main:app", "--engine", engine, files={"main.py": source}, MOORING_DEBUGPY=port)
    with Debugger(port) as debugger:
        assert debugger.attach()["supportsConfigurationDoneRequest"]
        debugger.go()
        assert app.get().status == 200
    assert app.stop() == 0


def test_with_live_reload_the_next_worker_listens_again(mooring):
    port = free_port()
    app = mooring.start("dev", files={"main.py": ASGI}, MOORING_DEBUGPY=port)
    assert app.wait_status(lambda status: status["state"] == "serving")
    with Debugger(port) as debugger:
        assert debugger.attach()
        debugger.go()
        app.write("main.py", ASGI.replace("seen", "again"))
        debugger.event("terminated")  # an editor hangs up then, and attaches anew
    eventually(lambda: app.get().text == "again", "the new code serves")
    with Debugger(port) as debugger:
        assert debugger.attach()
        debugger.go()
        assert app.get().text == "again"
    assert app.stop() == 0


@pytest.mark.parametrize("value", ["here", "0", "1:2:3", "unix:/tmp/x"])
def test_a_bad_value(mooring, value):
    app = mooring.start("run", "main:app", files={"main.py": ASGI}, MOORING_DEBUGPY=value)
    assert app.wait_exit() == 2
    assert app.last_line.endswith("expected [HOST:]PORT")
