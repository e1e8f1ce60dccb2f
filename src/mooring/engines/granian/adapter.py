"""granian in this process, on inherited sockets, without its process manager: chooses between ASGI and WSGI.

Not for granian's own objects: pool.py.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mooring.engines import Serving
from mooring.engines.common import event_loop, tls
from mooring.engines.granian.pool import LOG
from mooring.errors import ConfigurationError

LARGEST = 16 * 2**20  # bytes: the largest frame that granian reads, which no option changes

if TYPE_CHECKING:
    from mooring.plan.plan import Plan


def check(plan: Plan) -> None:
    """Raise ConfigurationError for what granian cannot do."""
    event_loop.loop_factory(plan.settings.loop)
    if plan.settings.websocket_max_size > LARGEST and plan.interface != "wsgi":
        raise ConfigurationError(
            f"websocket_max_size={plan.settings.websocket_max_size}: granian takes WebSocket messages of at "
            f"most {LARGEST} bytes (16M); choose another engine"
        )
    if plan.tls:
        tls.context(plan.settings, ())


def serve(serving: Serving) -> None:
    """Serve until drained.

    Raises ApplicationError if the lifespan startup fails, ConfigurationError for unusable TLS files.
    """
    level = LOG.getEffectiveLevel()
    if level > logging.DEBUG:
        LOG.setLevel(max(level, logging.WARNING))  # its INFO records are about its threads
    if serving.load().interface == "wsgi":
        from mooring.engines.granian import wsgi

        wsgi.serve(serving)
    else:
        from mooring.engines.granian import asgi

        asgi.serve(serving)
