"""With one worker prometheus_client records for mooring's page, and its own registry stays whole."""

import subprocess
import sys

PROGRAM = """
import os, sys
from mooring.metrics.multiprocess import merge, one_process
one_process.install(sys.argv[1])
assert "prometheus_client" not in sys.modules
from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Info, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client import REGISTRY
assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ
jobs = Counter("jobs", "Jobs.")
jobs.inc(3, exemplar={"trace": "abc"})
Info("shop", "Which.").info({"version": "1"})
Enum("mode", "Mode.", states=["on", "off"]).state("off")
Gauge("queue", "Length.").set_function(lambda: 7)
page = generate_latest().decode()
for wanted in ("jobs_total 3.0", 'shop_info{version="1"} 1.0', 'mode{mode="off"} 1.0', "queue 7.0"):
    assert wanted in page, wanted
for wanted in ("python_info", "process_resident_memory_bytes"):
    assert wanted in page, wanted
assert '# {trace="abc"} 3.0' in openmetrics(REGISTRY).decode()
if os.fork() == 0:
    jobs.inc(4)
    os._exit(0)
os.wait()
assert "jobs_total 3.0" in generate_latest().decode()
merged = CollectorRegistry()
MultiProcessCollector(merged)
assert "jobs_total 7.0" in generate_latest(merged).decode()
folder = os.open(sys.argv[1], os.O_RDONLY)
assert {file.kind for file in merge.snapshot(folder).contents} >= {"counter"}
print("done")
"""


def test_the_registry_is_whole_and_the_files_are_written(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == "done\n", done.stderr
