"""A real Prometheus server scrapes a real instance; what it says of the series is what is checked.

It comes with promtool from Debian's package `prometheus`: without it these tests are skipped, and fail in CI.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import Mooring, eventually, free_port

from mooring.metrics.prometheus import STATUSES

_MISSING = "Prometheus is not installed: apt-get install prometheus"

_CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: mooring
    static_configs: [{{targets: ["{target}"]}}]
"""


class Prometheus:
    """A server that scrapes one target each second."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"

    def api(self, path: str, **query: str) -> Any:
        url = f"{self.base}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as reply:
            return json.load(reply)["data"]

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.base}/-/ready", timeout=10) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    def values(self, query: str) -> list[tuple[dict[str, str], float]]:
        """The series of an instant query with their values."""
        result = self.api("query", query=query)["result"]
        return [(each["metric"], float(each["value"][1])) for each in result]

    def value(self, query: str) -> float | None:
        """The one value of a query, None where there is none yet."""
        found = self.values(query)
        return found[0][1] if found else None


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    server = shutil.which("prometheus")
    if server is None:
        assert not os.environ.get("CI"), _MISSING
        pytest.skip(_MISSING)
    folder.mkdir()
    (folder / "config.yml").write_text(_CONFIG.format(target=target))
    port = free_port()
    process = subprocess.Popen(
        [server, f"--config.file={folder / 'config.yml'}", f"--storage.tsdb.path={folder / 'data'}",
         f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder,
    )  # fmt: skip
    try:
        found = Prometheus(port)
        eventually(found.ready, "Prometheus")
        yield found
    finally:
        process.kill()
        process.wait()


def target_of(app: Mooring) -> str:
    return str(app.status()["admin"][0].removeprefix("http://"))


@pytest.fixture
def app(mooring) -> Mooring:
    return mooring.run(workers=2, MOORING_ADMIN_BIND="127.0.0.1:0")


EXPECTED = {
    "mooring_http_requests_total", "mooring_http_request_duration_seconds", "mooring_http_requests_in_flight",
    "mooring_websockets_open", "mooring_workers", "mooring_worker_exits_total", "mooring_worker_memory_bytes",
    "mooring_generation", "mooring_rolls_total", "mooring_access_log_dropped_lines_total",
    "mooring_log_dropped_records_total",
    "mooring_cpu_limit_cores", "mooring_start_time_seconds", "mooring_info",
}  # fmt: skip


def test_prometheus_reads_every_series(mooring, app):
    for _ in range(30):
        app.get("/")
    app.get("/missing")
    with prometheus(mooring.base / "prometheus", target_of(app)) as server:
        eventually(lambda: server.value("up") == 1, "a scrape")
        (target,) = server.api("targets")["activeTargets"]
        assert (target["health"], target["lastError"]) == ("up", "")
        told = {each["metric"]: each for each in server.api("targets/metadata")}
        assert set(told) >= EXPECTED
        assert all(each["help"] for name, each in told.items() if name in EXPECTED)
        assert told["mooring_http_request_duration_seconds"]["type"] == "histogram"
        assert {told[name]["type"] for name in EXPECTED if name.endswith("_total")} == {"counter"}
        eventually(lambda: server.value("sum(mooring_http_requests_total)") == 31, "all requests")
        assert server.value('mooring_http_requests_total{method="GET",status="4xx"}') == 1
        assert server.value("mooring_http_request_duration_seconds_count") == 31
        assert server.value('mooring_http_request_duration_seconds_bucket{le="+Inf"}') == 31
        assert 0 < server.value("histogram_quantile(0.99, mooring_http_request_duration_seconds_bucket)") < 10
        states = {labels["state"]: value for labels, value in server.values("mooring_workers")}
        assert states == {"starting": 0, "ready": 2, "draining": 0, "killed": 0}
        assert {labels["slot"] for labels, _ in server.values("mooring_worker_memory_bytes")} == {"0", "1"}
        ((info, one),) = server.values("mooring_info")
        assert (info["engine"], info["interface"], one) == ("uvicorn", "asgi", 1)
        assert {labels["status"] for labels, _ in server.values("mooring_http_requests_total")} <= set(
            STATUSES
        )


def test_counters_never_go_back_over_rolls_and_kills(mooring, app):
    with prometheus(mooring.base / "prometheus", target_of(app)) as server:
        eventually(lambda: server.value("up") == 1, "a scrape")
        for generation in (2, 3, 4):
            for _ in range(20):
                app.get("/")
            app.signal(signal.SIGHUP)
            app.wait_log(f"rolled: generation {generation} serves")
            scraped = f"mooring_generation == {generation}"
            eventually(lambda wanted=scraped: server.value(wanted) is not None, "a scrape of this generation")
        os.kill(app.ready()[0], signal.SIGKILL)
        eventually(lambda: server.value('mooring_worker_exits_total{reason="signal"}') == 1, "the exit")
        eventually(lambda: server.value("sum(mooring_http_requests_total)") == 60, "all requests")
        durations = "mooring_http_request_duration_seconds"
        for name in ("mooring_http_requests_total", f"{durations}_count", f"{durations}_sum"):
            assert all(value == 0 for _, value in server.values(f"resets({name}[10m])")), name
        assert server.value('mooring_rolls_total{outcome="rolled"}') == 3
        assert server.value('mooring_worker_exits_total{reason="drained"}') >= 4


def test_promtool_has_nothing_to_say(app):
    promtool = shutil.which("promtool")
    if promtool is None:
        assert not os.environ.get("CI"), _MISSING
        pytest.skip(_MISSING)
    app.get("/")
    page = app.control("GET", "/metrics").text
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=page, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
