"""What a sourced pre-start hook exports reaches the workers, also where only a new process takes it up."""

from __future__ import annotations

from harness import Starter

APP = """
import json, os, sys

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    facts = {"bytecode": sys.dont_write_bytecode, "foo": os.environ.get("FOO"), "folder": os.getcwd(),
             "marks": [name for name in os.environ if name.startswith("_MOORING")]}
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(facts).encode()})
"""

HOOK = """
echo once >> ran
export PYTHONDONTWRITEBYTECODE=1 FOO=bar
mkdir -p below && cd below
"""


def test_an_interpreter_variable_takes_effect_and_the_hook_runs_once(mooring: Starter) -> None:
    app = mooring.run(
        "main:app", "--app-root", str(mooring.folder), files={"main.py": APP, "prestart.sh": HOOK}
    )
    facts = app.get("/").json()
    assert facts["bytecode"] is True
    assert facts["foo"] == "bar"
    assert facts["folder"].endswith("/below")
    assert facts["marks"] == []
    assert (mooring.folder / "ran").read_text() == "once\n"
    assert app.stop() == 0


def test_without_such_a_variable_nothing_is_executed_anew(mooring: Starter) -> None:
    app = mooring.run("main:app", files={"main.py": APP, "prestart.sh": "export FOO=bar\n"})
    assert app.get("/").json()["foo"] == "bar"
    assert app.stop() == 0
