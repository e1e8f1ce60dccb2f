"""The servers' access loggers: what an application sets on them counts for the access log."""

import asyncio
import logging
import logging.config

import pytest

from mooring.instrument.asgi import wrap_asgi
from mooring.instrument.meter import Lines, Meter
from mooring.instrument.wsgi import wrap_wsgi
from mooring.logs.access import loggers
from mooring.logs.access.line import formatter
from mooring.logs.access.loggers import AccessLog
from mooring.scoreboard.ring import Reader, Rings, writer
from mooring.scoreboard.row import Row
from mooring.settings import engines

NAMES = tuple(engines.access_loggers())
HEALTH, ORDERS = '"GET /health HTTP/1.1" 200', '"GET /orders?key=secret HTTP/1.1" 200'


@pytest.fixture(autouse=True)
def watched(monkeypatch):
    """The four loggers as a worker has them; afterwards as they were."""
    others = [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    for each in others:
        monkeypatch.setattr(each, "disabled", each.disabled)  # logging.config disables what it is not told of
    monkeypatch.setattr(loggers, "watched", AccessLog())
    watch()
    for name in NAMES:
        logging.getLogger(name).propagate = True  # else pytest puts its own handler on it
    yield
    loggers.unwatch()
    for name in NAMES:
        logger = logging.getLogger(name)
        logger.filters, logger.handlers, logger.disabled, logger.propagate = [], [], False, True
        logger.setLevel(logging.NOTSET)


def watch(*, insists=False):
    loggers.watch(engines.access_loggers(), engines.server_modules(), insists=insists, setting="-")
    loggers.watched.say = logging.getLogger("mooring").info


class Server:
    """A wrapped application with its ring; `said` makes two requests and gives their lines."""

    def __init__(self, interface, form="combined"):
        self.rings = Rings()
        lines = Lines(formatter(form), writer(self.rings.fd, 0, self.rings.wake), None, "-", loggers.watched)
        meter = Meter(Row(), lines)
        self.interface = interface
        self.call = (
            wrap_asgi(self.asgi, lambda _: None, "", meter)
            if interface == "asgi"
            else wrap_wsgi(self.wsgi, lambda _: None, "", meter)
        )
        self.rings.give(0)
        self.reader = Reader(self.rings.fd)
        self.reader.indices()

    @staticmethod
    async def asgi(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})

    @staticmethod
    def wsgi(environ, start_response):
        start_response("200 OK", [])
        return [b"x"]

    def ask(self, path, query=""):
        if self.interface == "wsgi":
            environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": query}
            environ |= {"SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http", "REMOTE_ADDR": "9.9.9.9"}
            self.call(environ, lambda *_: None)
            return
        scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "headers": []}
        scope |= {
            "query_string": query.encode(),
            "http_version": "1.1",
            "client": ("9.9.9.9", 5),
            "scheme": "http",
        }

        async def send(_message):
            pass

        asyncio.run(self.call(scope, None, send))

    def said(self):
        self.ask("/health")
        self.ask("/orders", "key=secret")
        text = self.reader.take(0)
        self.reader.done(0, len(text))
        return text.decode()


@pytest.fixture(params=["asgi", "wsgi"])
def server(request, way):
    found = []

    def make(form="combined"):
        found.append(Server(request.param, form))
        return found[-1]

    yield make
    for each in found:
        each.rings.close()


class NoHealth(logging.Filter):
    def filter(self, record):
        return "/health" not in record.getMessage()


class Kept(logging.Handler):
    def __init__(self, *args):
        super().__init__(*args)
        self.records = []

    def emit(self, record):
        self.records.append(record)


@pytest.mark.parametrize("name", NAMES)
def test_a_filter_counts_whenever_it_is_added_and_until_it_is_removed(server, name):
    ours, logger, added = server(), logging.getLogger(name), NoHealth()
    assert HEALTH in ours.said()
    logger.addFilter(added)
    text = ours.said()
    assert HEALTH not in text
    assert ORDERS in text
    logger.removeFilter(added)
    assert HEALTH in ours.said()
    logger.filters.append(lambda record: "orders" not in record.getMessage())
    text = ours.said()
    assert HEALTH in text
    assert ORDERS not in text


def test_a_filter_of_before_the_start_counts_in_every_form(server):
    logging.getLogger("uvicorn.access").addFilter(NoHealth())
    for form in ("common", "json", "uvicorn", "%(U)s"):
        text = server(form).said()
        assert "/health" not in text
        assert "/orders" in text


def in_arguments(record):
    if isinstance(record.args, tuple):
        client, method, path, version, status = record.args
        record.args = (client, method, path.replace("secret", "***"), version, status)
    else:
        found = {
            key: str(record.args[key]).replace("secret", "***")
            for key in ("r", "query_string")
            if key in record.args
        }
        record.args = {**record.args, **found}
    return True


def in_message(record):
    record.msg, record.args = record.getMessage().replace("secret", "***"), ()
    return True


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("redact", [in_arguments, in_message])
def test_what_a_filter_takes_out_of_a_record_is_not_in_the_line(server, name, redact):
    if name == "granian.access" and redact is in_message:
        return  # its text has no query
    logging.getLogger(name).addFilter(redact)
    text = server().said()
    assert "/orders?key=***" in text
    assert "secret" not in text
    assert HEALTH in text


def test_a_filter_that_raises_harms_nothing_and_is_logged_once(server, caplog):
    def broken(_record):
        raise ValueError("boom")

    logging.getLogger("uvicorn.access").addFilter(broken)
    ours = server()
    assert ORDERS in ours.said()
    assert ORDERS in ours.said()
    assert len([each for each in caplog.records if each.levelname == "ERROR"]) == 1


@pytest.mark.parametrize("name", NAMES)
def test_an_added_handler_gets_the_records_too(server, name):
    handler = Kept()
    logging.getLogger(name).addHandler(handler)
    assert HEALTH in server().said()
    assert [name] * 2 == [each.name for each in handler.records]
    assert '"GET /health HTTP/1.1"' in handler.records[0].getMessage()


@pytest.mark.parametrize("way", ["assigned", "config"])
def test_handlers_that_replace_the_log_get_it_alone_and_a_line_says_so(server, caplog, way):
    caplog.set_level("INFO")
    logger = logging.getLogger("uvicorn.access")
    if way == "assigned":
        logger.handlers = [Kept()]
    else:
        settings = {"handlers": ["own"], "level": "INFO"}
        logging.config.dictConfig(
            {
                "version": 1,
                "disable_existing_loggers": False,  # mooring's own log would be one
                "handlers": {"own": {"()": Kept}},
                "loggers": {"uvicorn.access": settings},
            }
        )
    assert server().said() == ""
    assert len(logger.handlers[0].records) == 2
    said = [each.getMessage() for each in caplog.records if "handlers of uvicorn.access" in each.getMessage()]
    assert len(said) == 1
    assert "MOORING_ACCESS_LOG=-" in said[0]


def disable(logger):
    logger.disabled = True


def raise_level(logger):
    logger.setLevel(logging.WARNING)


def take_handlers(logger):
    logger.handlers.clear()
    logger.propagate = False


@pytest.mark.parametrize("silence", [disable, raise_level, take_handlers])
def test_a_silenced_logger_means_no_log_unless_a_setting_asks_for_it(server, caplog, silence):
    caplog.set_level("INFO")
    ours = server()
    silence(logging.getLogger("gunicorn.access"))
    assert ours.said() == ""
    assert "has silenced gunicorn.access" in caplog.text
    watch(insists=True)
    assert ORDERS in ours.said()


def test_a_configuration_of_other_loggers_is_no_word_about_this_one(server):
    ours = server()
    logging.config.dictConfig({"version": 1, "loggers": {"shop": {"level": "INFO"}}})
    logging.config.dictConfig({"version": 1, "loggers": {"uvicorn": {"level": "INFO"}}})
    for name in NAMES:  # as what sends everything to one handler does
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True
    assert HEALTH in ours.said()


def test_what_servers_do_to_their_loggers_is_not_the_applications_wish(server):
    from gunicorn.config import Config as GunicornConfig
    from gunicorn.glogging import Logger
    from uvicorn import Config
    from uvicorn.protocols.http.h11_impl import H11Protocol
    from uvicorn.server import ServerState

    ours = server()
    handler = Kept()
    logging.getLogger("uvicorn.access").addHandler(handler)
    config = Config(lambda *_: None, log_config=None, access_log=False)
    Logger(GunicornConfig())
    loop = asyncio.new_event_loop()
    protocol = H11Protocol(config, ServerState(), {}, _loop=loop)
    loop.close()
    assert not protocol.access_log  # else uvicorn would log each request besides
    assert HEALTH in ours.said()
    assert len(handler.records) == 2


def test_uvicorns_own_formatter_takes_a_record():
    from uvicorn.logging import AccessFormatter

    handler = Kept()
    logging.getLogger("uvicorn.access").addHandler(handler)
    found = Server("asgi")
    found.said()
    found.rings.close()
    form = AccessFormatter("%(client_addr)s %(request_line)s %(status_code)s", use_colors=False)
    assert form.format(handler.records[0]) == "9.9.9.9:5 GET /health HTTP/1.1 200 OK"
