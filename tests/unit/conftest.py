import pytest
from hypothesis import settings

from mooring.scoreboard import accelerator

settings.register_profile(
    "untimed", deadline=None
)  # how long an example takes says nothing on a busy machine
settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def agreement():
    """C and Python have the same constants: a worker goes on with Python alone, a test fails."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accelerator, "refuse", _differ)
        yield


def _differ(differences):
    raise AssertionError(f"src/accelerator: {differences}")


@pytest.fixture(params=["c", "python"])
def way(request, monkeypatch):
    """What is done for each request, in both its ways: see scoreboard/accelerator.py."""
    if request.param == "python":
        monkeypatch.setattr(accelerator, "c", None)
    elif accelerator.c is None:
        pytest.skip("mooring was installed without a compiler")  # .ci/run asks for it
    return request.param
