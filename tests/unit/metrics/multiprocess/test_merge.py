"""What workers recorded, added up: against prometheus_client's own collector, before and after folding."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.parser import text_string_to_metric_families

from mooring.metrics.multiprocess import files, fold, merge, text

MODES = (
    "all",
    "liveall",
    "min",
    "livemin",
    "max",
    "livemax",
    "sum",
    "livesum",
    "mostrecent",
    "livemostrecent",
)
GAUGES = tuple(f"gauge_{mode}" for mode in MODES)
NOWHERE = 4_194_304  # beyond the largest pid_max there is


class Processes:
    """Files of processes, written by prometheus_client, in a folder."""

    def __init__(self, path: Path) -> None:
        path.mkdir(exist_ok=True)
        self.path = path
        self.fd = os.open(path, os.O_RDONLY)
        self.clock = 1.7e9

    def record(self, kind: str, pid: int, name: str, value: float, **labels: str) -> None:
        """As one process does: what counts is added, a gauge is set."""
        with contextlib.closing(MmapedDict(str(self.path / f"{kind}_{pid}.db"))) as into:
            family = name
            if kind == "counter":
                name += "_total"
            key = mmap_key(family, name, list(labels), list(labels.values()), f"what {family} is")
            self.clock += 1
            if kind in GAUGES:
                into.write_value(key, value, self.clock if kind.endswith("mostrecent") else 0.0)
            else:
                into.write_value(key, into.read_value(key)[0] + value, 0.0)

    def observe(self, pid: int, family: str, value: float, **labels: str) -> None:
        with contextlib.closing(MmapedDict(str(self.path / f"histogram_{pid}.db"))) as into:
            for name, added, more in (
                ("_sum", value, {}),
                ("_bucket", float(value <= 1), {"le": "1.0"}),
                ("_bucket", float(1 < value <= 2.5), {"le": "2.5"}),
                ("_bucket", float(value > 2.5), {"le": "+Inf"}),
            ):
                pairs = {**labels, **more}
                key = mmap_key(family, family + name, list(pairs), list(pairs.values()), "seconds")
                into.write_value(key, into.read_value(key)[0] + added, 0.0)

    def die(self, pid: int) -> None:
        files.retire(self.fd, pid)

    def tidy(self) -> None:
        fold.tidy(self.fd, strangers=False)

    def page(self) -> bytes:
        contents = merge.snapshot(self.fd).contents
        return text.page(merge.gather(merge.shown(contents)))

    def names(self) -> list[str]:
        return sorted(each.name for each in self.path.iterdir())

    def close(self) -> None:
        os.close(self.fd)
        shutil.rmtree(self.path)


@pytest.fixture
def processes(tmp_path):
    found = Processes(tmp_path / "metrics")
    yield found
    found.close()


def samples(page: bytes) -> dict:
    """Every sample and every family's type, however they are ordered and written."""
    found: dict = {}
    for family in text_string_to_metric_families(page.decode()):
        if family.samples:
            found[family.name] = family.type
        for each in family.samples:
            place = (each.name, tuple(sorted(each.labels.items())))
            assert place not in found, f"twice: {place}"
            found[place] = each.value
    return found


def theirs(path: Path) -> dict:
    """What prometheus_client's own collector makes of a folder."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(path))
    return samples(generate_latest(registry))


# -- against prometheus_client -----------------------------------------------------------------------------

_PID = st.integers(1, 3).map(lambda number: number * 1000)
_LABEL = st.sampled_from(['q"uo\\te\n', ""])
_RECORD = st.tuples(
    st.sampled_from(["counter", "summary", *GAUGES]), _PID, st.just("a"), st.integers(0, 9), _LABEL
)
_OBSERVE = st.tuples(
    st.just("observe"), _PID, st.floats(0, 4).map(lambda value: round(value * 4) / 4), _LABEL
)
_DIE = st.tuples(st.just("die"), _PID)
_STEPS = st.lists(st.one_of(_RECORD, _RECORD, _OBSERVE, _DIE, st.just(("tidy",))), min_size=20, max_size=60)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(_STEPS)
def test_any_history_reads_as_prometheus_client_would_read_it_unfolded(steps):
    base = Path(tempfile.mkdtemp())
    ours, oracle = Processes(base / "ours"), Processes(base / "oracle")
    lives: dict[int, int] = {}  # a pid that comes again is another process: for the oracle, another pid
    left: dict[int, int] = {}  # by pid, its last life that has left something behind
    living: set[int] = set()  # pids of processes that have recorded something
    try:
        for step in steps:
            match step:
                case ("tidy",):
                    ours.tidy()
                    left |= {pid: lives.get(pid, 0) for pid in living}  # what was before them is removed
                case ("die", pid):
                    ours.die(pid)
                    mark_process_dead(pid + lives.get(pid, 0), str(oracle.path))
                    lives[pid] = lives.get(pid, 0) + 1
                    living.discard(pid)
                case ("observe", pid, value, label):
                    ours.observe(pid, "h", value, label=label)
                    left[pid] = lives.get(pid, 0)
                    oracle.observe(pid + lives.get(pid, 0), "h", value, label=label)
                case (kind, pid, name, value, label):
                    ours.record(kind, pid, f"{kind}_{name}", value, label=label)
                    living.add(pid)
                    if not kind.startswith("gauge_live"):  # what is of the living only goes with them
                        left[pid] = lives.get(pid, 0)
                    oracle.record(kind, pid + lives.get(pid, 0), f"{kind}_{name}", value, label=label)
        for pid in (1000, 2000, 3000):
            _forget_the_former(oracle, pid, lives.get(pid, 0) if pid in living else left.get(pid, 0))
        expected = {}
        for place, value in theirs(oracle.path).items():
            where = place
            if isinstance(place, tuple):
                name, labels = place
                where = (name, tuple((k, str(int(v) // 1000 * 1000) if k == "pid" else v) for k, v in labels))
            expected[where] = value
        assert samples(ours.page()) == expected
    finally:
        ours.close()
        oracle.close()
        base.rmdir()


def _forget_the_former(oracle: Processes, pid: int, life: int) -> None:
    """Mode "all": a pid's series is that of its last process; what one before it said has no place."""
    for former in range(life):
        (oracle.path / f"gauge_all_{pid + former}.db").unlink(missing_ok=True)


def all_kinds(processes: Processes, pid: int, weight: int) -> None:
    for kind in ("counter", "summary", *GAUGES):
        processes.record(kind, pid, f"app_{kind}", weight, way="x")
    for value in range(weight):
        processes.observe(pid, "app_seconds", value)


def test_prometheus_clients_own_collector_reads_renamed_and_folded_files_alike(processes):
    for number in range(1, 5):
        all_kinds(processes, NOWHERE + number, number)
    for dead in (NOWHERE + 1, NOWHERE + 2):
        mark_process_dead(dead, str(processes.path))
    before = theirs(processes.path)
    assert before[("app_gauge_sum", (("way", "x"),))] == 10
    for dead in (NOWHERE + 1, NOWHERE + 2):
        processes.die(dead)
    assert theirs(processes.path) == before
    assert samples(processes.page()) == before
    processes.tidy()
    assert theirs(processes.path) == before
    assert samples(processes.page()) == before
    assert len([name for name in processes.names() if "gone" in name]) == 2  # those of mode "all"


def test_files_from_before_version_0_18_are_read_and_folded_in_their_own_format(processes):
    key = mmap_key("old", "old_total", ["a"], ["b"], "help").encode()
    for pid in (1, 2, 3):
        entry = (key, 1.5, 0.0)
        (processes.path / f"counter_{pid}.db").write_bytes(
            files.encode([entry], 8, []).removesuffix(b'{"within": []}')
        )
    processes.die(1)
    processes.die(2)
    processes.tidy()
    assert b'old_total{a="b"} 4.5\n' in processes.page()
    assert files.parse((processes.path / "counter_folded.db").read_bytes()).width == 8


# -- sums --------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 1e9), min_size=2, max_size=12), st.data())
@example([3.175318479537964, 268435455.19889972, 268435455.19889972, 536870911.39275306, 1.4e-45], None)
def test_a_counter_of_fractions_never_goes_back_by_a_bit_when_it_is_folded(values, data):
    with tempfile.TemporaryDirectory() as base:
        processes = Processes(Path(base) / "metrics")
        for pid, value in enumerate(values, 1):
            processes.record("counter", pid, "c", value)
        before = samples(processes.page())
        order = data.draw(st.permutations(range(1, len(values) + 1))) if data else (1, 2, 5, 4, 3)
        for pid in order:
            processes.die(pid)
            if data.draw(st.booleans()) if data else pid == 5:
                processes.tidy()
            assert samples(processes.page()) == before
        processes.close()


def test_sums_beyond_a_double_and_infinities_are_no_error():
    inf = float("inf")
    assert merge.add([1e308, 1e308]) == inf
    assert str(merge.add([inf, -inf])) == "nan"
    assert merge.parts("counter", [(inf, 0.0), (1.0, 0.0)]) == [(inf, 0.0)]
    assert merge.parts("counter", [(0.0, 0.0)]) == [(0.0, 0.0)]


# -- killed at any moment ----------------------------------------------------------------------------------

_KILLED = """
import os, signal, sys
from mooring.metrics.multiprocess import files, fold, merge
folder, moment = os.open(sys.argv[1], os.O_RDONLY), int(sys.argv[2])
def hook(event, args):
    global moment
    if event in ("open", "os.rename", "os.remove", "os.listdir"):
        moment -= 1
        if moment == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
fold.tidy(folder, strangers=False)
"""


def test_a_fold_killed_before_any_of_its_system_calls_loses_nothing_and_counts_nothing_twice(tmp_path):
    model = Processes(tmp_path / "model")
    for number in range(1, 5):
        all_kinds(model, NOWHERE + number, number)
    for dead in (1, 2):
        model.die(NOWHERE + dead)
    model.tidy()
    model.die(NOWHERE + 3)
    expected, moment = samples(model.page()), 0
    upstream = theirs(model.path)
    while True:
        moment += 1
        copy = Processes(shutil.copytree(model.path, tmp_path / f"copy{moment}"))
        done = subprocess.run([sys.executable, "-c", _KILLED, str(copy.path), str(moment)], check=False)
        assert samples(copy.page()) == expected, moment
        all_kinds(copy, NOWHERE + 7, 1)
        copy.die(NOWHERE + 7)
        again = samples(copy.page())
        copy.tidy()
        assert samples(copy.page()) == again
        assert again[("app_counter_total", (("way", "x"),))] == 11
        assert theirs(copy.path) == again
        assert not [name for name in copy.names() if name.endswith(".new")]
        copy.close()
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    assert moment > 60
    assert upstream == expected


def test_a_second_fold_that_is_killed_too_still_knows_what_the_first_had_taken_up(tmp_path):
    model = Processes(tmp_path / "model")
    for number in (1, 2, 3):
        model.record("counter", NOWHERE + number, "c", number)
        model.die(NOWHERE + number)
    taken = {name: (model.path / name).read_bytes() for name in model.names()}
    model.tidy()
    for name, data in taken.items():
        (model.path / name).write_bytes(data)  # as if it had been killed before it removed them
    model.record("counter", NOWHERE + 4, "c", 4)
    model.die(NOWHERE + 4)
    code = 1
    for moment in range(1, 100):
        copy = Processes(shutil.copytree(model.path, tmp_path / f"copy{moment}"))
        code = subprocess.run([sys.executable, "-c", _KILLED, str(copy.path), str(moment)]).returncode
        assert samples(copy.page())[("c_total", ())] == 10
        copy.tidy()
        assert copy.names() == ["counter_folded.db"]
        assert samples(copy.page()) == theirs(copy.path) == {"c": "counter", ("c_total", ()): 10}
        copy.close()
        if code == 0:
            break
    assert code == 0
    assert moment > 10


def test_a_folder_without_room_stays_as_it_is(processes):
    """The limit on a file's size stands for a full folder: write(2) fails in the same way."""
    for number in range(1, 4):
        all_kinds(processes, NOWHERE + number, number)
        processes.die(NOWHERE + number)
    before, names = samples(processes.page()), processes.names()
    code = (
        "import os, resource, sys\nfrom mooring.metrics.multiprocess import fold\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "fold.tidy(os.open(sys.argv[1], os.O_RDONLY), strangers=False)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(processes.path)], capture_output=True, text=True, check=False
    )
    assert "File too large" in done.stderr
    assert processes.names() == names
    assert samples(processes.page()) == before
    processes.tidy()
    assert samples(processes.page()) == before


# -- who is dead -------------------------------------------------------------------------------------------


def test_a_pid_that_is_used_again_is_another_process(processes):
    processes.record("counter", 77, "c", 5)
    processes.record("gauge_all", 77, "g", 1)
    processes.record("gauge_sum", 77, "s", 3)
    processes.die(77)
    processes.record("counter", 77, "c", 1)
    processes.record("gauge_sum", 77, "s", 4)
    assert samples(processes.page()) == {
        "c": "counter",
        ("c_total", ()): 6.0,
        "s": "gauge",
        ("s", ()): 7.0,
    }
    processes.record("gauge_all", 77, "g", 9)
    for _ in range(2):
        assert samples(processes.page())[("g", (("pid", "77"),))] == 9.0
        processes.tidy()


def test_by_its_path_a_folder_lets_a_process_be_retired_or_forgotten(processes):
    for pid in (1, 2, 3):
        all_kinds(processes, pid, pid)
    files.retire_in(str(processes.path), 1)
    files.retire_in(str(processes.path), 2, forget=True)
    files.retire_in(str(processes.path / "nowhere"), 3)
    page = samples(processes.page())
    assert page[("app_counter_total", (("way", "x"),))] == 4
    assert page[("app_gauge_livesum", (("way", "x"),))] == 3
    assert not [name for name in processes.names() if "_2." in name]


def test_the_series_of_mode_all_are_those_of_the_living_and_of_the_last_sixteen_dead(processes):
    for pid in range(1, 31):
        processes.record("gauge_all", pid, "g", pid)
    for pid in range(1, 29):
        processes.die(pid)
    for _ in range(2):
        pids = [int(place[1][0][1]) for place in samples(processes.page()) if isinstance(place, tuple)]
        assert sorted(pids) == list(range(13, 31))
        processes.tidy()
    assert len(processes.names()) == 18


def test_subprocesses_that_ended_untold_are_folded_and_living_ones_are_not(processes):
    ended = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], stdout=subprocess.PIPE, check=True
    )
    for pid in (os.getpid(), int(ended.stdout)):
        all_kinds(processes, pid, 2)
    contents = merge.snapshot(processes.fd).contents
    dead = fold.dead_strangers(contents)
    assert dead == {str(int(ended.stdout))}
    page = samples(text.page(merge.gather(merge.shown(contents, dead))))
    assert page[("app_counter_total", (("way", "x"),))] == 4
    assert page[("app_gauge_livesum", (("way", "x"),))] == 2
    fold.tidy(processes.fd, strangers=True)
    assert samples(processes.page()) == page
    assert f"counter_{os.getpid()}.db" in processes.names()
    assert f"counter_{int(ended.stdout)}.db" not in processes.names()


def test_other_identifiers_than_pids_are_of_the_living(processes):
    """prometheus_client lets an application choose what identifies a process."""
    with contextlib.closing(MmapedDict(str(processes.path / "counter_uwsgi_3.db"))) as into:
        into.write_value(mmap_key("c", "c_total", [], [], "help"), 3.0, 0.0)
    fold.tidy(processes.fd, strangers=True)
    assert processes.names() == ["counter_uwsgi_3.db"]
    assert b"c_total 3.0\n" in processes.page()


# -- what is strange ---------------------------------------------------------------------------------------


def test_files_that_are_none_harm_nobody(processes, tmp_path):
    processes.record("counter", 1, "c", 1)
    (tmp_path / "secret").write_text("root:x:0:0\n" * 1000)
    (processes.path / "counter_2.db").symlink_to(tmp_path / "secret")
    os.mkfifo(processes.path / "counter_3.db")
    (processes.path / "counter_4.db").mkdir()
    (processes.path / "counter_5.db").write_bytes(b"")
    (processes.path / "counter_6.db").write_bytes(b"\xff" * 5000)
    (processes.path / "counter_7.db").write_bytes((4000).to_bytes(4, sys.byteorder) + b"\x01" * 5000)
    (processes.path / "counter_8.db").write_bytes((2**31 - 1).to_bytes(4, sys.byteorder) + b"\x01" * 5000)
    cut = (12).to_bytes(8, sys.byteorder) + (60000).to_bytes(4, sys.byteorder)  # its key is beyond its end
    (processes.path / "counter_11.db").write_bytes(cut)
    with open(processes.path / "counter_9.db", "wb") as huge:
        huge.truncate(1 << 32)
        huge.write((2**31 - 1).to_bytes(4, sys.byteorder))
    entry = (b"[" * 100_000 + b"]", 1.0, 0.0)
    (processes.path / "counter_10.db").write_bytes(files.encode([entry], 16, []))
    (processes.path / "counter_folded.db").write_bytes(
        files.encode([(mmap_key("c", "c_total", [], [], "h").encode(), 4.0, 0.0)], 16, ["../../secret", "."])
    )
    (processes.path / "notes.db").write_text("mine")
    start = time.monotonic()
    assert b"c_total 5.0\n" in processes.page()
    unreadable = {file.name for file in merge.snapshot(processes.fd).unreadable}
    assert {f"counter_{each}.db" for each in (2, 3, 4, 7, 8, 9, 11)} <= unreadable
    processes.die(1)
    processes.tidy()
    assert b"c_total 5.0\n" in processes.page()
    assert (tmp_path / "secret").exists()
    assert (processes.path / "notes.db").read_text() == "mine"
    assert time.monotonic() - start < 20


def test_what_cannot_be_read_of_the_dead_does_not_pile_up(processes):
    for pid in range(1, 41):
        (processes.path / f"counter_{pid}.db").write_bytes(b"\x40" * 3000)
        processes.die(pid)
    processes.tidy()
    assert len(processes.names()) == 16


PARSED_BY_THEM = [
    *[("counter", "a", "a_total"), ("gauge_sum", "a_total", None), ("gauge_sum", "x.y", None)],
    *[("gauge_max", "x_y", None), ("counter", "mooring_http_requests", "mooring_http_requests_total")],
    *[("gauge_sum", "mooring.info", None), ("gauge_sum", "0nine", None), ("summary", "ok", "ok_count")],
]


def test_names_clash_neither_with_ours_nor_with_one_another(processes):
    for kind, family, name in PARSED_BY_THEM:
        with contextlib.closing(MmapedDict(str(processes.path / f"{kind}_1.db"))) as into:
            key = mmap_key(family, name or family, ["the label", "the_label"], ["1", "2"], "help\n# TYPE x y")
            into.write_value(key, 1.0, 0.0)
    page = processes.page()
    names = [line.split()[2] for line in page.decode().splitlines() if line.startswith("# TYPE")]
    assert names == ["_nine", "a_total", "ok", "x_y"]
    assert b"mooring" not in page
    samples(page)


def test_a_type_that_has_changed_with_a_roll_is_that_of_the_living(processes):
    processes.record("gauge_sum", 1, "thing_total", 7)
    processes.die(1)
    processes.record("counter", 2, "thing", 3)
    assert samples(processes.page()) == {"thing": "counter", ("thing_total", ()): 3.0}


def test_a_label_without_a_name_is_not_on_the_page(processes):
    """Prometheus refuses a page with `{="x"}`, and every metric with it."""
    processes.record("counter", 1, "c", 1)
    processes.record("counter", 1, "d", 1, **{"": "x"})
    assert [line for line in processes.page().splitlines() if b"{" in line] == []
    assert b"c_total 1.0\n" in processes.page()


def test_half_a_surrogate_pair_is_written_in_ascii(processes):
    processes.record("counter", 1, "c", 1, path="\udc80")
    assert b'c_total{path="\\\\udc80"} 1.0\n' in processes.page()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_accepts_the_page(processes):
    for pid in (1, 2):
        all_kinds(processes, pid, 3)
    processes.record("gauge_max", 1, "app_bytes", float("inf"), q='"\\\n{}', ü="ü")
    processes.record("gauge_min", 1, "app_ratio", float("nan"))
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=processes.page(), capture_output=True, check=False
    )
    assert b"error while linting" not in done.stderr, done.stderr
    assert done.returncode in (0, 3), done.stderr  # 3: it has a remark on a name or a help


# -- a moment's state --------------------------------------------------------------------------------------


def test_no_reader_sees_less_while_processes_end(processes):
    """So many files that a listing takes several system calls, between which the next one is renamed."""
    several = 900
    body = files.encode([(mmap_key("c", "c_total", [], [], "help").encode(), 1.0, 0.0)], 16, [])
    for pid in range(several):
        (processes.path / f"counter_{NOWHERE + pid}.db").write_bytes(body)
    child = os.fork()
    if child == 0:
        for pid in range(several):
            files.retire(processes.fd, NOWHERE + pid)
            if pid % 30 == 29:
                time.sleep(0.08)
        os._exit(0)
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        assert len(merge.snapshot(processes.fd).contents) == several
    assert b"c_total 900.0\n" in processes.page()


def test_a_file_that_a_listing_misses_because_it_is_just_renamed_is_found(processes, monkeypatch):
    """readdir(3) leaves open whether an entry that is renamed meanwhile is given; rarely it is not."""
    processes.record("counter", 1, "c", 5)
    processes.record("counter", 2, "c", 2)
    listing, calls = os.listdir, []

    def listdir(folder):
        names = listing(folder)
        calls.append(1)
        if len(calls) == 1:
            names.remove("counter_1.db")
            processes.die(1)
        return names

    monkeypatch.setattr(files.os, "listdir", listdir)
    assert b"c_total 7.0\n" in processes.page()


def test_folding_is_due_when_enough_have_died(processes):
    for pid in range(1, 61):
        for kind in ("counter", "histogram", "gauge_all"):
            processes.record(kind, pid, "c", 1)

    def due(*dead: str) -> bool:
        return fold.due(merge.snapshot(processes.fd).contents, dead)

    for pid in range(1, files.DEATHS):
        assert not due()
        processes.die(pid)
    assert due("40")
    assert not due()
    processes.die(files.DEATHS)
    assert due()
    processes.tidy()
    assert not due()  # though the gauges of some are still there
