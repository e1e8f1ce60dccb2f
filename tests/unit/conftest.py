import pytest

from mooring import accelerate


@pytest.fixture(params=["c", "python"])
def way(request, monkeypatch):
    """What is done for each request, in both its ways: see accelerate.py."""
    if request.param == "python":
        monkeypatch.setattr(accelerate, "c", None)
    elif accelerate.c is None:
        pytest.skip("mooring was installed without a compiler")  # .ci/run asks for it
    return request.param
