"""A template: imports the application once, and forks workers when the supervisor asks. Serves nothing.

The supervisor's side, and when a new template is started: supervisor/templates.py.
"""

from __future__ import annotations

import array
import dataclasses
import errno
import gc
import io
import os
import pickle
import socket
import sys
from types import MappingProxyType
from typing import Any, NamedTuple

from mooring.plan.plan import Plan
from mooring.system import double_fork, process
from mooring.worker import fork_safety
from mooring.worker import run as worker
from mooring.worker.assignment import Assignment
from mooring.worker.seat import Seat

_LONGEST = 1 << 20  # bytes of an order
_TLS = ("tls_certificate", "tls_key", "tls_client_ca")


class Order(NamedTuple):
    """The supervisor's order for one worker, sent as one packet.

    With the packet come the descriptors of the worker's report pipe and, where the seat has one, of its
    stacks. The template has inherited the seat's other descriptors.
    """

    serial: int
    plan: Plan
    seat: Seat

    def encode(self) -> bytes:
        """The packet. It may be pickled, since it goes from the supervisor to its child, never back."""
        packet = io.BytesIO()
        pickler = pickle.Pickler(packet, pickle.HIGHEST_PROTOCOL)
        pickler.dispatch_table = {MappingProxyType: lambda found: (_read_only, (dict(found),))}
        pickler.dump(tuple(self))
        return packet.getvalue()


def _read_only(found: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    """Make a MappingProxyType. Pickle can find this function by its name, but not the type."""
    return MappingProxyType(found)


def run(assignment: Assignment, channel: socket.socket, supervisor: int) -> int:
    """Import, check what the import left, and fork until the supervisor is gone. Returns the exit code.

    Sends the reason over the channel where the code is not 0, as a worker does over its report pipe.
    """
    return worker.reporting(
        assignment._replace(report=channel.fileno()), lambda ready: _serve(ready, channel, supervisor)
    )


def _serve(assignment: Assignment, channel: socket.socket, supervisor: int) -> None:
    before = fork_safety.snapshot()
    application = worker.preload(assignment)
    fork_safety.enforce(fork_safety.find(before), assignment.plan.settings.preload, assignment.context.log)
    gc.collect()  # garbage that is frozen would stay for good
    gc.freeze()  # else the workers' collectors would write to, and so copy, every page with an object
    worker.tell(channel.fileno(), "booted")
    prepared = assignment._replace(application=application)
    while (received := _receive(channel)) is not None:
        order, fds = received
        try:
            _fork(prepared, order, fds, channel, supervisor)
        except OSError as error:
            worker.tell(channel.fileno(), "refused", serial=order.serial, errno=process.errno_of(error))
        finally:
            for fd in fds:
                os.close(fd)


def _receive(channel: socket.socket) -> tuple[Order, list[int]] | None:
    """The next order and its descriptors; None when the supervisor is gone.

    Not by socket.recv_fds: CPython's passes its flags over, and programs would inherit the descriptors.
    """
    fds = array.array("i")
    room = socket.CMSG_LEN(2 * fds.itemsize)
    data, ancillary, _, _ = channel.recvmsg(_LONGEST, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, sent in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(sent[: len(sent) - len(sent) % fds.itemsize])
    return (Order(*pickle.loads(data)), list(fds)) if data else None  # noqa: S301 (the supervisor's own)


def _fork(
    prepared: Assignment, order: Order, fds: list[int], channel: socket.socket, supervisor: int
) -> None:
    """Fork one worker. Raises OSError where the system refuses."""
    if len(fds) != 1 + (order.seat.stacks >= 0):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))  # its descriptors did not arrive
    report, stacks = fds[0], fds[1] if len(fds) > 1 else -1
    assignment = prepared._replace(
        plan=_plan(order.plan, prepared.plan), report=report, seat=order.seat._replace(stacks=stacks)
    )

    def work() -> int:
        channel.close()
        return worker.run(assignment)

    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # else every worker would print the buffered text again
    double_fork.fork_for(
        supervisor, lambda pid: worker.tell(channel.fileno(), "forked", serial=order.serial, worker=pid), work
    )


def _plan(ordered: Plan, mine: Plan) -> Plan:
    """The ordered plan with the TLS files that this template read at its start, perhaps as root."""
    files = {name: getattr(mine.settings, name) for name in _TLS}
    return dataclasses.replace(ordered, settings=dataclasses.replace(ordered.settings, **files))
