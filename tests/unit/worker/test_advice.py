"""What several workers take from an application is said, once, with the setting that brings it back."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
from prometheus_client import REGISTRY, Counter, Gauge, Info

from mooring.worker import advice


class Log(list):
    warning = info = list.append


def given(workers, interface="asgi", slot=0):
    log = Log()
    assignment = SimpleNamespace(
        plan=SimpleNamespace(workers=workers),
        seat=SimpleNamespace(slot=slot),
        context=SimpleNamespace(log=log),
    )
    advice.give(assignment, SimpleNamespace(interface=interface))
    return log


@pytest.fixture
def base(monkeypatch):
    """engineio's base class of servers."""
    module = ModuleType("engineio.base_server")

    class BaseServer:
        transports = ("polling", "websocket")

    module.BaseServer = BaseServer
    monkeypatch.setitem(sys.modules, "engineio.base_server", module)
    return BaseServer


def test_long_polling_needs_one_worker(base):
    server = type("AsyncServer", (base,), {})()
    (text,) = given(2)
    assert "MOORING_WORKERS=1" in text
    assert "transports=['websocket']" in text
    assert "transports=" not in given(2, "wsgi")[0]
    assert not given(1)
    server.transports = ("websocket",)
    assert not given(2)


def test_a_client_alone_needs_nothing(base):
    assert not given(2)


def test_metrics_that_no_page_of_several_workers_has_are_named(monkeypatch):
    kept = [Info("advice_build", "Build."), Gauge("advice_queue", "Queue."), Counter("advice_jobs", "Jobs.")]
    kept[1].set_function(lambda: 7)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/nowhere")
    try:
        (text,) = given(2)
        assert "advice_build, advice_queue:" in text
        assert "MOORING_APP_METRICS=false" in text
        assert not given(1)
        monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR")
        assert not given(2)
    finally:
        for each in kept:
            REGISTRY.unregister(each)
