"""The admin endpoint's response to each path, at each door: control socket, MOORING_ADMIN_BIND, probes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial

from mooring.admin import stats, status
from mooring.admin.access import Access
from mooring.admin.answers import Answer, Deferred, Request, attempt
from mooring.metrics import prometheus
from mooring.supervisor.loop import Supervisor

# Asks for the application's own metrics and returns at once. The function that it is given is called with the
# text, at once or later; the text may be empty.
AppMetricsRequest = Callable[[Callable[[bytes], None]], None]

PAGE = os.path.join(os.path.dirname(__file__), "page.html")
_FRESH = 0.1  # seconds for which a page is kept, so that a flood of requests makes at most ten pages a second
_APP_METRICS_TIME = 6.0  # seconds; a scrape of Prometheus times out after 10 by default
_PROBES = ("/livez", "/readyz")
_ANY_HOST = (*_PROBES, "/metrics")  # scrapers and probes use a service's name
_PAGES = (*_PROBES, "/status", "/stats", "/metrics", "/")
_ALLOW = ("allow: GET, HEAD",)
_POLICY = (
    "content-security-policy: default-src 'none'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Routes:
    """The responses about one supervisor. `app_metrics`, if set, asks for the application's own metrics."""

    def __init__(self, supervisor: Supervisor, access: Access | None = None) -> None:
        self.supervisor = supervisor
        self.access = access or Access()
        self.app_metrics: AppMetricsRequest | None = None
        self._kept: dict[str, tuple[float, Answer]] = {}
        self._scrape: Deferred | None = None

    def failed(self, error: Exception) -> None:
        """Log an error that was raised while a response was made."""
        self.supervisor.log.error(f"the admin endpoint failed: {error!r}")

    # -- the doors -----------------------------------------------------------------------------------------

    def control(self, request: Request) -> Answer | Deferred:
        """The control socket: all pages, and the order to roll."""
        if (request.method, request.path) == ("POST", "/roll"):
            self.supervisor.roll()
            return Answer(202, {"generation": self.supervisor.fleet.generation})
        return self._answer(request, public=False)

    def public(self, request: Request, *, tcp: bool = True) -> Answer | Deferred:
        """MOORING_ADMIN_BIND: all pages to whoever may read them, and no orders. `tcp`: no unix socket."""
        if request.path == "/roll":
            return Answer(403, "orders are taken by signal and on the control socket: mooring reload")
        refusal = None
        if request.path not in _PROBES:
            refusal = self.access.refuse(request, any_host=not tcp or request.path in _ANY_HOST)
        return refusal or self._answer(request, public=True)

    def probe(self, request: Request) -> Answer | Deferred:
        """MOORING_PROBE_BIND: only liveness and readiness."""
        if request.path not in _PROBES:
            return Answer(404, "not found: there are /livez and /readyz")
        return self._answer(request, public=True)

    def _answer(self, request: Request, *, public: bool) -> Answer | Deferred:
        method, path = request.method, request.path
        if path not in _PAGES:
            return Answer(404, f"not found: there are {', '.join(_PAGES)}")
        if method not in {"GET", "HEAD"}:
            return Answer(405, "only GET and HEAD", headers=_ALLOW)
        if path == "/livez":
            return Answer(200, "ok")
        if path == "/readyz":
            reason = status.not_ready(self.supervisor)
            full = status.full(self.supervisor)
            return Answer(503, reason) if reason else Answer(200, f"ok, but full: {full}" if full else "ok")
        if path == "/":
            return page()
        if path == "/metrics":
            return self._metrics(public=public)
        make = status.status if path == "/status" else status.feed
        return self._keep(path, public, lambda: Answer(200, make(self.supervisor, public=public)))

    def _keep(self, path: str, public: bool, make: Callable[[], Answer]) -> Answer:
        """A new response; for a public door, the last one while it is younger than _FRESH."""
        if not public:
            return make()
        until, answer = self._kept.get(path, (0.0, None))
        if answer is None or time.monotonic() >= until:
            answer = make().whole()
            self._kept[path] = time.monotonic() + _FRESH, answer
        return answer

    # -- /metrics ------------------------------------------------------------------------------------------

    def _metrics(self, *, public: bool) -> Answer | Deferred:
        until, answer = self._kept.get("/metrics", (0.0, None))
        if public and answer is not None and time.monotonic() < until:
            return answer
        if self._scrape is not None and self._scrape.answer is None:
            return self._scrape  # the page that is being made is for this client too
        if self.app_metrics is None:
            return self._keep("/metrics", public, self._scraped)
        without = partial(attempt, partial(self._scraped, up=False), self.failed)
        scrape = Deferred(time.monotonic() + _APP_METRICS_TIME, without)

        def tell(text: bytes) -> None:
            if scrape.answer is None:
                made = partial(self._keep, "/metrics", public, partial(self._scraped, text))
                scrape.complete(attempt(made, self.failed))

        self._scrape = scrape
        self.app_metrics(tell)
        return scrape.answer or scrape

    def _scraped(self, text: bytes = b"", up: bool | None = None) -> Answer:
        """The page of mooring's metrics, followed by the application's `text`.

        That text contains mooring_app_metrics_up; `up` gives it where there is no such text.
        """
        own = prometheus.render(stats.collect(self.supervisor, up)).encode()
        return Answer(200, own + text, prometheus.CONTENT_TYPE)


def page() -> Answer:
    """The live view. The policy allows only its own script and style, which carry a new nonce each time."""
    try:
        with open(PAGE, encoding="utf-8") as file:
            text = file.read()
    except OSError:
        return Answer(404, "this installation has no page")
    nonce = os.urandom(16).hex()
    for tag in ("script", "style"):
        text = text.replace(f"<{tag}>", f'<{tag} nonce="{nonce}">')
    headers = (_POLICY.format(nonce), "referrer-policy: no-referrer", "x-frame-options: DENY")
    return Answer(200, text.encode(), "text/html; charset=utf-8", headers)
