"""listen() and run(), for a program that serves its application itself; what tunes meinheld has no effect."""

from gunicorn.app.base import BaseApplication

_bind = ["0.0.0.0:8000"]
_options = {"keepalive": 2}


def listen(address=("0.0.0.0", 8000), socket_fd=None):
    """Say where to listen: (HOST, PORT), a unix socket's path, or a descriptor."""
    if socket_fd is not None:
        _bind[:] = [f"fd://{socket_fd}"]
    elif isinstance(address, str):
        _bind[:] = [f"unix:{address}"]
    else:
        _bind[:] = [f"{address[0]}:{address[1]}"]


def set_keepalive(seconds):
    """Seconds that an idle connection stays open."""
    _options["keepalive"] = seconds


def get_keepalive():
    """Seconds that an idle connection stays open."""
    return _options["keepalive"]


def _no_effect(*_):
    """Do nothing."""


set_access_logger = set_error_logger = set_backlog = set_picoev_max_fd = set_max_content_length = _no_effect
set_client_body_buffer_size = set_fastwatchdog = set_watchdog = _no_effect


class _Application(BaseApplication):
    def __init__(self, application):
        self.application = application
        super().__init__()

    def load_config(self):
        self.cfg.set("bind", _bind)
        self.cfg.set("worker_class", "meinheld.worker.MeinheldWorker")
        self.cfg.set("threads", 4)
        self.cfg.set("keepalive", _options["keepalive"])

    def load(self):
        return self.application


def run(app, debug=None):
    """Serve an application until the process is stopped."""
    _Application(app).run()
