"""The pure core of supervision: which workers there should be, and what to do next.

    fleet = new_fleet(policy)
    fleet, actions = step(fleet, Tick(), now)  # again for every event, and when next_deadline(fleet) has come

No input or output, no clock, no randomness: the shell (supervisor/loop.py) executes the actions, and reports
their results as events. Not for processes, signals or sockets. docs/lifecycle.md explains the rules; part of
it is generated from the table in table.py. The simulation in tests/simulation checks the rules.

Read in this order: table (the worker's states), cause (why one ends), model (the values), messages (events
and actions), core (one step), changes (what an event means for the fleet), reconcile (what is missing or too
much), turn (the moves).
"""

from mooring.supervisor.lifecycle.cause import Cause, Reason
from mooring.supervisor.lifecycle.core import next_deadline, step
from mooring.supervisor.lifecycle.messages import (
    Action,
    Announce,
    Beat,
    Beats,
    Drain,
    Event,
    Exit,
    Exited,
    Kill,
    Measure,
    Notice,
    Ready,
    RecycleDue,
    Resize,
    Roll,
    SetSize,
    Spawn,
    SpawnFailed,
    Stop,
    StopNow,
    Surge,
    Tick,
)
from mooring.supervisor.lifecycle.model import (
    Failures,
    Fleet,
    FleetState,
    Outcome,
    Policy,
    StopReason,
    Worker,
    new_fleet,
)
from mooring.supervisor.lifecycle.table import WorkerState

__all__ = [
    "Action",
    "Announce",
    "Beat",
    "Beats",
    "Cause",
    "Drain",
    "Event",
    "Exit",
    "Exited",
    "Failures",
    "Fleet",
    "FleetState",
    "Kill",
    "Measure",
    "Notice",
    "Outcome",
    "Policy",
    "Ready",
    "Reason",
    "RecycleDue",
    "Resize",
    "Roll",
    "SetSize",
    "Spawn",
    "SpawnFailed",
    "Stop",
    "StopNow",
    "StopReason",
    "Surge",
    "Tick",
    "Worker",
    "WorkerState",
    "new_fleet",
    "next_deadline",
    "step",
]
