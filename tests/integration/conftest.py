"""The fixture `mooring`: real processes, their logs in a failure, nothing left running. See harness.py.

And `served`: one server for each variant of variants.py, shared by all tests that only send requests;
`shared` makes other servers that several tests share.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from harness import Starter
from served import Served

# A shell that has no job control ignores both in what it runs in the background, and each process that is
# started here would inherit that, until its own first line.
for _number, _usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)

_STARTERS = pytest.StashKey[list[Starter]]()


@contextmanager
def _starter(node: pytest.Item | pytest.Session) -> Iterator[Starter]:
    starter = Starter()
    node.stash.setdefault(_STARTERS, []).append(starter)
    try:
        yield starter
    finally:
        left = starter.close()
    if isinstance(node, pytest.Session):  # after a failure its logs are still to be shown
        node.stash[_STARTERS].remove(starter)
    assert not left, left


@pytest.fixture
def mooring(request: pytest.FixtureRequest) -> Iterator[Starter]:
    with _starter(request.node) as starter:
        yield starter


@pytest.fixture(scope="session")
def shared(request: pytest.FixtureRequest) -> Callable[[], AbstractContextManager[Starter]]:
    return lambda: _starter(request.session)


@pytest.fixture(scope="session")
def served(
    request: pytest.FixtureRequest, shared: Callable[[], AbstractContextManager[Starter]]
) -> Iterator[Served]:
    """The plain application, served by the variant that the test is parametrised with."""
    with shared() as starter:
        yield Served.start(starter, request.param)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        starters = [starter for node in (item, item.session) for starter in node.stash.get(_STARTERS, [])]
        for started in [started for starter in starters for started in starter.started]:
            report.sections.append((f"mooring, pid {started.pid}", started.report()))
    return report
