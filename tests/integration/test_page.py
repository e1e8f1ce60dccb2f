"""The page at `/` of the admin endpoint, in a real browser, of a real instance under load.

PAGE_SHOTS=FOLDER keeps the screenshots, to be looked at.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import browser
import pytest
from harness import ASGI_APP, eventually

# What would be markup in a page that is not careful; every path that begins with /slow waits.
HOSTILE = "/slow<img/src=x/onerror=alert(1)>"
HOSTILE_APP = ASGI_APP.replace('case "/slow":', 'case path if path.startswith("/slow"):')


@pytest.fixture
def serve(mooring):
    """An instance with an admin port; its page's address."""

    def start(workers=2, **more):
        app = mooring.run(workers=workers, MOORING_ADMIN_BIND="127.0.0.1:0", **more)
        return app, app.wait_status(lambda s: s["admin"])["admin"][0] + "/"

    return start


@contextmanager
def load(app, pause=0.005):
    """Requests, one after another, until the end; counts them."""
    stop = threading.Event()
    sent = []

    def work():
        while not stop.wait(pause):
            sent.append(app.get("/nothing" if len(sent) % 10 == 9 else "/").status)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield sent
    finally:
        stop.set()
        thread.join()


def number(text):
    return float(text.replace(",", "").split()[0])


def milliseconds(text):
    value, unit = text.split()
    return float(value) * {"µs": 0.001, "ms": 1, "s": 1000}[unit]


def workers(page):
    """The table: a dictionary for each line."""
    heads = page.evaluate("[...document.querySelectorAll('#heads th')].map(e => e.textContent)")
    lines = page.evaluate(
        "[...document.querySelectorAll('#rows tr')].map(r => [...r.children].map(e => e.textContent))"
    )
    return [dict(zip(heads, line, strict=True)) for line in lines]


def shot(page, tmp_path, name):
    folder = Path(os.environ.get("PAGE_SHOTS") or tmp_path)
    folder.mkdir(exist_ok=True)
    page.screenshot(folder / f"{name}.png")
    assert (folder / f"{name}.png").stat().st_size > 10_000


# -- what it shows -----------------------------------------------------------------------------------------


def test_it_shows_the_instance_and_its_figures(serve):
    app, url = serve(workers=2)
    with load(app) as sent, browser.page(url) as page:
        page.wait("points.length > 2")
        assert number(page.text("#requests")) > 0
        assert page.text("#application") == "main:app"
        assert (page.text("#state"), page.text("#ready"), page.text("#reach")) == ("serving", "ready", "")
        assert page.text("#what").startswith("uvicorn serves ASGI · generation 1 · up ")
        assert f"pid {app.pid}" in page.text("#what")
        assert page.text("#workers") == "2 workers: env:WEB_CONCURRENCY"
        assert page.text("#listeners") == app.urls[0]
        rows = workers(page)
        assert [int(row["Pid"]) for row in rows] == app.ready()
        assert {row["State"] for row in rows} == {"ready"}
        assert all("MiB" in row["Memory"] for row in rows)
        lines = page.evaluate(LINES)
        assert all(line.count("L") >= 1 for line in lines), lines
        assert len(lines) == 4
        assert len(sent) > 0
    assert page.complaints == []


LINES = "[...document.querySelectorAll('.charts svg path:nth-child(2)')].map(e => e.getAttribute('d'))"


def test_its_rates_are_those_of_what_was_sent(serve):
    app, url = serve(workers=2)
    with browser.page(url) as page:
        page.wait("document.querySelector('#requests').textContent === '0'")
        page.evaluate(RECORD)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: app.get("/"), range(300)))
        page.wait("seen.length > 1 && seen.at(-1)[0] === '0' && seen.some(each => each[0] !== '0')")
        sent = sum(number(rate) * seconds for rate, seconds in page.evaluate("seen"))
        assert sent == pytest.approx(300, rel=0.15)
        page.wait("document.querySelector('#since').textContent.startsWith('300 requests')")


# Every value that the rate takes, and of how many seconds it is: a second, on a quiet machine. One that stays
# is no change, and no two bursts here are equal.
RECORD = """
globalThis.seen = [];
const span = () => (points.at(-1).at - points.at(-2).at) / 1000;
new MutationObserver(() => seen.push([document.querySelector('#requests').textContent, span()]))
  .observe(document.querySelector('#requests'), {childList: true});
"""


def test_latencies_and_requests_in_flight(serve):
    app, url = serve(workers=1)
    for _ in range(50):
        app.get("/")  # fast ones, before it looks: they must not count
    with browser.page(url) as page, ThreadPoolExecutor(4) as pool:
        page.wait("document.querySelector('#requests').textContent === '0'")
        began = time.monotonic()
        waiting = [pool.submit(app.get, "/slow?s=5&secret=1") for _ in range(3)]
        page.wait("document.querySelector('#flight').textContent === '3'")
        page.wait("document.querySelectorAll('#oldest li').length === 3")
        assert f"pid {app.ready()[0]}" in page.text("#oldest")
        assert "GET /slow" in page.text("#oldest")
        assert "secret" not in page.evaluate("document.documentElement.textContent")
        for each in waiting:
            assert each.result().status == 200
        longest = 1000 * (time.monotonic() - began)
        page.wait("document.querySelector('#p99').textContent.endsWith('s')")
        p50, p99 = milliseconds(page.text("#p50")), milliseconds(page.text("#p99"))
        assert 5000 * 0.95 <= p50 <= p99 <= 1.05 * longest
        page.wait("document.querySelectorAll('#oldest li').length === 0")


def test_a_roll_and_an_exit_are_seen(serve):
    app, url = serve(workers=1)
    with browser.page(url) as page:
        page.wait("document.querySelectorAll('#rows tr').length === 1")
        app.signal(signal.SIGHUP)
        app.wait_log("rolled: generation 2")
        page.wait("document.querySelector('#roll').textContent.endsWith(': rolled: generation 2 serves')")
        (pid,) = app.wait_ready(1)
        page.wait(f"document.querySelector('#rows').textContent.includes('{pid}')")
        os.kill(pid, signal.SIGKILL)
        page.wait("document.querySelector('#exits').textContent.includes('KILL')")
        page.wait("document.querySelector('#rows .alarm')?.textContent === '1'")
        page.wait("document.querySelectorAll('#rows tr').length === 1")
        assert workers(page)[0]["Gen."] == "2"
        assert page.complaints == []


def test_unreachable_is_said_and_it_goes_on_when_it_is_back(serve):
    app, url = serve(workers=1)
    with browser.page(url) as page:
        page.wait("document.querySelectorAll('#rows tr').length === 1")
        app.signal(signal.SIGSTOP)
        try:
            page.wait("document.querySelector('#reach').textContent.startsWith('unreachable since ')")
        finally:
            app.signal(signal.SIGCONT)
        page.wait("document.querySelector('#reach').textContent === ''")
        page.wait("document.querySelector('#requests').textContent === '0'")


def test_in_the_background_it_asks_less(serve):
    _, url = serve(workers=1)
    with browser.page(url) as page:
        page.wait("points.length > 1")
        page.evaluate(HIDE)
        page.wait("document.hidden && !asking")
        page.evaluate("ask()")  # as the timer that runs still; from here on it waits for long
        before = page.evaluate("points.length")
        page.evaluate("new Promise(done => setTimeout(done, 3500))")
        assert page.evaluate("points.length") - before <= 1
        page.evaluate("hidden = false; document.dispatchEvent(new Event('visibilitychange'))")
        page.wait(f"points.length > {before} + 1", 10)


HIDE = """
globalThis.hidden = true;
Object.defineProperty(document, 'hidden', {get: () => globalThis.hidden});
document.dispatchEvent(new Event('visibilitychange'));
"""


def test_the_table_sorts(serve):
    app, url = serve(workers=2)
    with browser.page(url) as page:
        page.wait("document.querySelectorAll('#rows tr').length === 2")
        pid = "[...document.querySelectorAll('#heads button')].find(e => e.textContent === 'Pid')"
        orders = []
        for direction in ("ascending", "descending"):
            page.evaluate(f"{pid}.click()")
            assert page.evaluate(f"{pid}.parentNode.getAttribute('aria-sort')") == direction
            orders.append([int(row["Pid"]) for row in workers(page)])
        assert orders == [sorted(app.ready()), sorted(app.ready(), reverse=True)]


# -- what it must not do -----------------------------------------------------------------------------------


def test_a_strict_policy_holds_and_nothing_else_is_asked_for(serve):
    app, url = serve()
    policy = re.findall(r"[^;]+", _headers(url)["content-security-policy"])
    assert "default-src 'none'" in policy
    assert not [rule for rule in policy if "unsafe" in rule or "*" in rule or "http" in rule]
    with load(app), browser.page(url) as page:
        page.evaluate(
            "document.addEventListener('securitypolicyviolation', e => console.error(e.violatedDirective))"
        )
        page.wait("points.length > 2")
        assert set(page.requested) <= {url, f"{url}stats", "data:,"}
        assert page.complaints == []


def _headers(url):
    import httpx

    return httpx.get(url, trust_env=False).headers


def test_the_test_sees_what_a_policy_forbids(serve):
    """Or the two above prove nothing."""
    _, url = serve(workers=1)
    with browser.page(url) as page:
        page.evaluate("document.body.innerHTML = '<img src=http://127.0.0.1:1/x onerror=alert(1)>'; 1")
        eventually(lambda: page.evaluate("1") and page.complaints, "a complaint")
        assert "Content Security Policy" in page.complaints[0]


def test_texts_of_clients_and_of_the_application_stay_text(serve):
    app, url = serve(workers=1, files={"main.py": HOSTILE_APP})
    with browser.page(url) as page, app.connect() as client:
        client.sendall(f"GET {HOSTILE}?s=20 HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        page.wait("document.querySelectorAll('#oldest li').length === 1")
        assert f"GET {HOSTILE}" in page.text("#oldest")
        page.evaluate(r"show({...before, now: before.now + 1, application: '<img src=x>\u202e\u0007'})")
        assert page.text("#application") == r"<img src=x>\u202e\x07"
        assert page.evaluate("document.querySelectorAll('img').length") == 0
        assert page.complaints == []


# -- how it looks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("name", "width", "height"), [("desktop", 1280, 800), ("phone", 360, 740)])
def test_it_fits_the_window_and_can_be_read(serve, tmp_path, name, width, height, dark):
    app, url = serve(workers=2)
    with load(app), browser.page(url, width, height, dark=dark) as page:
        page.wait("points.length > 4")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("document.documentElement.clientWidth") in range(width - 20, width + 1)
        outside = page.evaluate(OUTSIDE)
        assert outside == []
        assert page.evaluate(CONTRAST) == []
        shot(page, tmp_path, f"{name}-{'dark' if dark else 'light'}")


# Texts that stand out of the window, but for those in a part that scrolls by itself.
OUTSIDE = """
[...document.querySelectorAll('body *')].filter(e => e.childElementCount === 0 && e.textContent.trim()
  && !e.closest('.scroll, script, noscript')
  && (e.getBoundingClientRect().right > innerWidth + 1 || e.getBoundingClientRect().left < 0))
  .map(e => e.outerHTML)
"""

# Texts whose colour is too close to what is behind them (WCAG 2.2, 1.4.3: 4.5 to 1).
CONTRAST = """
(() => {
  const parts = text => text.match(/[\\d.]+/g).map(Number);
  const light = rgb => rgb.slice(0, 3).map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const colour = parts(getComputedStyle(e).backgroundColor);
      if (colour.length === 3) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll('body *')].filter(e => e.childElementCount === 0
    && e.textContent.trim() && !e.closest('script, noscript')).map(e => {
    const [a, b] = [light(parts(getComputedStyle(e).color)), light(behind(e))];
    return [e.outerHTML, (Math.max(a, b) + .05) / (Math.min(a, b) + .05)];
  }).filter(([, ratio]) => ratio < 4.5);
})()
"""


def test_it_can_be_used_without_seeing_it(serve):
    _, url = serve(workers=2)
    with browser.page(url) as page:
        page.wait("document.querySelectorAll('#rows tr').length === 2")
        page.call("Accessibility.enable")
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
        names = [
            (node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if "role" in node
        ]
        assert ("heading", "main:app") in names
        assert ("region", "Workers") in names
        assert ("columnheader", "Slot") in names
        assert sum(role == "rowheader" for role, _ in names) == 2
        live = page.evaluate(
            "[...document.querySelectorAll('[role=status],[aria-live]')].map(e => e.textContent)"
        )
        assert live == ["servingready"]  # nothing that changes each second is read out
        page.evaluate(TOLD)
        page.wait("points.length > 3")
        assert page.evaluate("told") == 0


# How often a reader of screens was told something.
TOLD = """
globalThis.told = 0;
new MutationObserver(() => told++)
  .observe(document.querySelector('[role=status]'), {subtree: true, childList: true, characterData: true});
"""
