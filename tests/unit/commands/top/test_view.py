"""What `mooring top` computes and shows, from made-up answers of /stats."""

from __future__ import annotations

import copy
import math
import random
import re
from bisect import bisect_left
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

import mooring
from mooring.commands.top.columns import Span, clip, columns, wrap
from mooring.commands.top.rates import Pace, between
from mooring.commands.top.view import View, render
from mooring.scoreboard.row import BOUNDS, quantile
from mooring.system.units import age, latency, per_second, size

PLAN = {
    "workers": {"value": 2, "origin": "tuned", "reason": "2 CPU cores (host) x 1"},
    "threads": {"value": 8, "origin": "tuned", "reason": ""},
}
LIMITS = {"cpu_cores": 2.0, "memory_bytes": 512 * 2**20, "throttled_s": 0.0}


def worker(slot=0, **more):
    facts = {
        "serial": slot, "slot": slot, "pid": 4000 + slot, "state": "ready", "generation": 1, "age_s": 75.0,
        "requests": 0, "errors": 0, "buckets": [], "in_flight": 0, "websockets": 0,
        "memory_bytes": 50 * 2**20, "restarts": 0,
    }  # fmt: skip
    return facts | more


def answer(now=100.0, workers=None, totals=None, **more):
    """An answer of /stats; the totals are the workers' sums."""
    workers = [worker(0), worker(1)] if workers is None else workers
    sums = {
        name: sum(each[name] or 0 for each in workers)
        for name in ("requests", "errors", "in_flight", "websockets", "memory_bytes", "restarts")
    }
    longest = max([len(each["buckets"]) for each in workers], default=0)
    padded = [each["buckets"] + [0] * (longest - len(each["buckets"])) for each in workers]
    sums |= {"buckets": [sum(column) for column in zip(*padded, strict=True)], "dropped_lines": 0}
    facts = {
        "now": now, "pid": 1, "state": "serving", "ready": True, "reason": None, "generation": 1,
        "name": None, "uptime_s": 75.0, "version": "1.2.3", "engine": "uvicorn", "interface": "asgi",
        "framework": "fastapi", "application": "shop.main:app", "plan": PLAN, "limits": LIMITS,
        "listeners": ["http://127.0.0.1:8000"], "bounds": list(BOUNDS),
        "totals": sums | (totals or {}), "workers": workers, "oldest": [],
        "last_roll": None, "last_exits": [],
    }  # fmt: skip
    return facts | more


def shown(facts, width=100, height=None, before=None, **more):
    total, workers = between(before, facts)
    rows = render(View(facts, total, workers, **more), width, height)
    return ["".join(span.text for span in row) for row in rows]


def line(lines, start):
    return next(each for each in lines if each.split()[:1] == [start])


def words(text):
    return text.split()


def histogram(values):
    buckets = [0] * (len(BOUNDS) + 1)
    for value in values:
        buckets[bisect_left(BOUNDS, value)] += 1
    return buckets


# -- rates and quantiles -----------------------------------------------------------------------------------


def test_rates_are_of_the_interval_for_each_worker_and_for_all():
    before = answer(100.0, [worker(0, requests=1000, errors=5), worker(1, requests=500)])
    now = answer(102.0, [worker(0, requests=1300, errors=6), worker(1, requests=500)])
    total, (first, second) = between(before, now)
    assert (total.requests, total.errors) == (150, 0.5)
    assert (first.requests, first.errors, second.requests) == (150, 0.5, 0)


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_quantiles_are_of_the_interval_and_within_five_percent(share):
    source = random.Random(1)
    for middle in (1e-4, 3e-3, 0.8):
        old = [source.uniform(5, 50) for _ in range(5000)]
        values = sorted(source.lognormvariate(math.log(middle), 0.8) for _ in range(20_001))
        values = [value for value in values if BOUNDS[0] < value < BOUNDS[-1]]
        before = answer(100.0, [worker(0, requests=len(old), buckets=histogram(old))])
        now = answer(101.0, [worker(0, requests=len(old), buckets=histogram(old + values))])
        total, (pace,) = between(before, now)
        truth = values[math.ceil(share * len(values)) - 1]
        for found in (total, pace):
            value = found.p50 if share == 0.5 else found.p99
            assert value == pytest.approx(truth, rel=0.05)


def test_the_bounds_are_close_enough_for_five_percent():
    assert all((high / low) ** 0.5 < 1.05 for low, high in pairwise(BOUNDS))


def test_quantiles_beyond_the_bounds_are_the_bounds():
    assert quantile(histogram([1e-6]), 0.5, list(BOUNDS)) == BOUNDS[0]
    assert quantile(histogram([100.0]), 0.99, list(BOUNDS)) == BOUNDS[-1]
    assert quantile([], 0.5, list(BOUNDS)) is None
    assert quantile([0, 0], list(BOUNDS), 0.5) is None


def test_a_new_worker_counts_from_zero_and_one_that_is_gone_is_no_loss():
    before = answer(100.0, [worker(0, requests=1000)], totals={"requests": 1000})
    now = answer(101.0, [worker(0, serial=7, pid=9, requests=30)], totals={"requests": 1050})
    total, (pace,) = between(before, now)
    assert (total.requests, pace.requests) == (50, 30)


def test_gunicorns_workers_share_a_serial():
    pair = [worker(0, pid=5, requests=10), worker(0, pid=6, requests=100)]
    later = [worker(0, pid=5, requests=20), worker(0, pid=6, requests=400)]
    _, paces = between(answer(1.0, pair), answer(2.0, later))
    assert [pace.requests for pace in paces] == [10, 300]


@pytest.mark.parametrize("before", [None, answer(99.0, pid=2), answer(100.0)])
def test_with_nothing_to_compare_there_are_no_rates(before):
    assert between(before, answer(100.0)) == (Pace(), [Pace(), Pace()])


def test_nothing_is_below_zero_whatever_the_counts_do():
    before = answer(1.0, [worker(0, requests=50, errors=3, buckets=[0, 9])])
    _, (pace,) = between(before, answer(2.0, [worker(0)]))
    assert pace == Pace(0, 0, None, None)


# -- what is shown -----------------------------------------------------------------------------------------


def test_the_header_tells_the_plan():
    text = "\n".join(shown(answer()))
    for wanted in (
        "shop.main:app  serving, ready", "uvicorn serves ASGI (fastapi)", "generation 1", "up 1m 15s",
        "pid 1", "mooring 1.2.3", "2 workers: 2 CPU cores (host) x 1", "2 CPU cores", "memory limit 512 MiB",
        "at http://127.0.0.1:8000",
    ):  # fmt: skip
        assert wanted in text


def test_what_is_not_ready_says_why():
    assert "not ready: no worker is ready" in shown(answer(ready=False, reason="no worker is ready"))[0]


def test_threads_are_told_where_there_are_some():
    assert "2 workers of 8 threads: 2 CPU cores" in "\n".join(shown(answer(interface="wsgi")))
    assert "threads" not in "\n".join(shown(answer()))


def test_a_throttled_cpu_and_dropped_lines_are_told():
    text = "\n".join(shown(answer(limits=LIMITS | {"throttled_s": 75.0}, totals={"dropped_lines": 12})))
    assert "throttled for 1m 15s so far" in text
    assert "12 log lines dropped" in text


def test_totals_and_workers():
    pair = [worker(0), worker(1)]
    after = [
        worker(0, requests=1000, errors=2, buckets=histogram([0.0034] * 1000), in_flight=3, websockets=4),
        worker(1, state="draining", restarts=2, memory_bytes=None),
    ]
    lines = shown(answer(101.0, after), before=answer(100.0, pair))
    totals = next(each for each in lines if "req/s" in each)
    assert totals.split("   ")[:4] == ["1,000 req/s", "p50 3.39 ms", "p99 3.39 ms", "3 in flight"]
    assert "2.0 5xx/s" in totals
    assert "4 websockets" in totals
    assert line(lines, "SLOT").split() == (
        words("SLOT PID STATE GEN REQ/S 5XX/S P50 P99 FLIGHT WS MEMORY AGE RESTARTS")
    )
    assert line(lines, "0").split() == words("0 4000 ready 1 1,000 2.0 3.39 ms 3.39 ms 3 4 50 MiB 1m 15s 0")
    assert line(lines, "1").split() == words("1 4001 draining 1 0 0 - - 0 0 - 1m 15s 2")


def test_what_happened_last():
    facts = answer(
        last_roll={"outcome": "roll failed", "time": 0, "why": "no module\nnamed x", "rolled_back": True},
        last_exits=[
            {"slot": n, "state": "ready", "reason": f"signal {n}", "failed": True, "time": n}
            for n in range(20)
        ],
        oldest=[
            {"what": "GET /slow", "age_s": 12.5, "pid": 4000, "slot": 0},
            {"what": "GET /quick", "age_s": 0.5, "pid": 4000, "slot": 0},
        ],
    )
    lines = shown(facts)
    assert any(r"failed, rolled back: no module\nnamed x" in each for each in lines)
    exits = [each for each in lines if ", ready: signal" in each]
    assert len(exits) == 5
    assert exits[0].endswith("slot 19, ready: signal 19")
    assert any(each.split() == ["12s", "pid", "4000", "GET", "/slow"] for each in lines)
    assert not any("/quick" in each for each in lines)


HOSTILE = "evil\x1b[2J\n\x9b31m\u202eabc"


def test_nothing_from_outside_steers_the_terminal():
    facts = answer(
        application=HOSTILE, framework=HOSTILE, listeners=[HOSTILE], ready=False, reason=HOSTILE,
        name=HOSTILE, version=HOSTILE,
        plan=PLAN | {"workers": {"value": 1, "origin": "tuned", "reason": HOSTILE}},
        last_roll={"outcome": "roll failed", "time": 0, "why": HOSTILE},
        last_exits=[{"slot": 0, "state": "ready", "reason": HOSTILE, "failed": True, "time": 0}],
        oldest=[{"what": HOSTILE, "age_s": 2.0, "pid": 1, "slot": 0}],
    )  # fmt: skip
    lines = shown(facts, 400, note=HOSTILE) + shown(facts, 400)
    assert all(each.isprintable() for each in lines)
    assert sum("evil" in each for each in lines) >= 8


@pytest.mark.parametrize("workers", [0, 1, 8, 300])
@pytest.mark.parametrize("height", [1, 5, 12, 24, 50])
@pytest.mark.parametrize("width", [5, 20, 40, 60, 80, 100, 200])
def test_it_fits_any_terminal(width, height, workers):
    facts = answer(
        workers=[worker(n, requests=10**9, restarts=10**6) for n in range(workers)],
        application="\u8239" * 80,
        last_roll={"outcome": "rolled", "time": 0, "generation": 2},
        last_exits=[{"slot": 0, "state": "ready", "reason": "x" * 300, "failed": True, "time": 0}] * 20,
        oldest=[{"what": "GET /" + "y" * 300, "age_s": 2.0, "pid": 1, "slot": 0}] * 10,
    )
    lines = shown(facts, width, height, history=[1.0, 5.0] * 40)
    assert len(lines) <= height
    assert all(columns(each) <= max(width, 20) for each in lines)


def test_a_narrow_terminal_loses_columns_not_figures():
    lines = shown(answer(), 60, 24)
    assert line(lines, "SLOT").split() == words("SLOT PID STATE REQ/S P50 P99 FLIGHT MEMORY")
    assert all(columns(each) <= 60 for each in lines)


def test_a_common_terminal_has_all_that_was_promised():
    lines = shown(answer(), 80, 24)
    assert set(line(lines, "SLOT").split()) >= set(
        words("SLOT PID STATE GEN REQ/S P50 P99 FLIGHT MEMORY AGE RESTARTS")
    )


def test_of_hundreds_of_workers_those_in_trouble_and_the_busiest_are_shown():
    before = answer(100.0, [worker(n) for n in range(300)])
    busy = [worker(n, requests=1000 * (n in (17, 200)) + n % 7) for n in range(300)]
    busy[123]["state"] = "starting"
    lines = shown(answer(101.0, busy), 100, 20, before=before)
    numbers = [int(each.split()[0]) for each in lines if re.match(r" *\d+ +\d{4} ", each)]
    assert {17, 123, 200} <= set(numbers)
    assert numbers == sorted(numbers)
    rest = next(each for each in lines if " more; " in each)
    assert int(rest.split()[0]) == 300 - len(numbers)
    assert len(lines) == 20
    assert len(shown(answer(101.0, busy), 100, None, before=before)) > 300


def test_the_history_is_a_line_of_bars():
    lines = shown(answer(), history=[0.0, 50.0, 100.0])
    assert "▁▅█ req/s, most 100" in lines


# -- units and columns -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("show", "value", "text"),
    [
        (latency, 8.7e-5, "87.0 µs"),
        (latency, 0.00123, "1.23 ms"),
        (latency, 0.00096, "960 µs"),
        (latency, 0.0009996, "1.00 ms"),
        (latency, 0.09996, "100 ms"),
        (latency, 0.34, "340 ms"),
        (latency, 60.0, "60.0 s"),
        (latency, None, "-"),
        (per_second, 0.0, "0"),
        (per_second, 3.44, "3.4"),
        (per_second, 9.96, "10"),
        (per_second, 12345.6, "12,346"),
        (per_second, None, "-"),
        (size, 52.4 * 2**20, "52 MiB"),
        (size, 3.3 * 2**20, "3.3 MiB"),
        (size, 1.45 * 2**30, "1.4 GiB"),
        (size, None, "-"),
        (age, 12.9, "12s"),
        (age, 133, "2m 13s"),
        (age, 11520, "3h 12m"),
        (age, 4 * 86400 + 3 * 3600, "4d 3h"),
    ],
)
def test_units(show, value, text):
    assert show(value) == text


def test_what_is_cut_says_so_and_wide_letters_take_two_columns():
    assert clip([Span("abc"), Span("def")], 6) == [Span("abc"), Span("def")]
    assert clip([Span("abc"), Span("def")], 5) == [Span("abc"), Span("d…")]
    assert columns("\u8239e\u0301") == 3
    assert clip([Span("\u8239\u8239\u8239")], 4) == [Span("\u8239…")]


def test_parts_wrap_at_commas():
    assert wrap(["aaaa", "bbbb", "cccc"], 10) == [[Span("aaaa, bbbb")], [Span("cccc")]]


# -- the page, as a file -----------------------------------------------------------------------------------


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_the_page_is_one_file_that_a_strict_policy_can_serve():
    text = (Path(mooring.__file__).parent / "admin/page.html").read_text()
    assert len(text.encode()) < 25_000
    tags = Tags()
    tags.feed(text)
    names = [tag for tag, _ in tags.found]
    assert names.count("script") == names.count("style") == 1
    assert (
        text.count("<script>") == text.count("<style>") == 1
    )  # no attributes: the server puts a nonce there
    for _tag, attributes in tags.found:
        assert not {name for name in attributes if name.startswith("on") or name in ("style", "src")}
    links = [attributes["href"] for _tag, attributes in tags.found if "href" in attributes]
    assert links == ["data:,", "status"]
    assert not re.search(
        r"https?:|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|url\(|@import", text
    )


def test_copies_of_an_answer_are_not_changed_by_looking_at_them():
    facts = answer(last_exits=[{"slot": 0, "state": "ready", "reason": "x", "failed": True, "time": 0}])
    kept = copy.deepcopy(facts)
    shown(facts, before=answer(99.0))
    assert facts == kept
