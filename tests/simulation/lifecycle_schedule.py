"""What is drawn for each schedule: a policy, and users who roll, resize, recycle and stop at any moment."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lifecycle_world import World


def random_policy(core: ModuleType, rng: Random) -> Any:
    production = rng.random() < 0.7
    return core.Policy(
        **random_times(rng),
        reap=rng.choice([0.5, 1.0]),
        stable_after=rng.choice([1.0, 5.0]),
        backoff_initial=rng.choice([0.2, 0.5]),
        backoff_max=rng.choice([1.0, 4.0]),
        jitter=rng.choice([0.0, 0.5]),
        jitter_seed=rng.random(),
        surge=rng.choice([1, 1, 2, 4]),
        max_draining_generations=rng.choice([1, 1, 2]),
        boot_failures_fatal=production or rng.random() < 0.3,
        overlap=production or rng.random() < 0.3,
    )


def random_times(rng: Random) -> dict[str, Any]:
    """What a roll may change."""
    return {
        "boot_timeout": rng.choice([4.0, 6.0]),
        "heartbeat_timeout": rng.choice([None, 0, 2.0, 2.0, 5.0]),
        "grace": rng.choice([0.0, 1.5, 4.0]),
        "drain_delay": rng.choice([0.0, 0.0, 2.0]),
    }


def plan_users(world: World) -> None:
    """Let users roll, resize, recycle and stop, alone and in storms."""
    rng, core = world.random, world.core
    span = world.calm_at - world.start
    choices: list[Callable[[], Any]] = [
        world.roll,
        world.roll,
        lambda: core.Resize(rng.choice([-2, -1, 1, 1])),
        lambda: core.SetSize(rng.choice([0, 1, 2, 3, 4])),
        world.recycle,
        world.recycle,
        world.noise,
        core.Tick,
    ]
    for _ in range(rng.choice([1, 3, 8, 16])):
        when, what = world.start + rng.random() * span, rng.choice(choices)
        storm = rng.choice([1, 1, 1, 4, 12])
        gap = rng.choice([0.0, 0.1, 1.5])
        for number in range(storm):
            if when + number * gap < world.calm_at:
                world.at(when + number * gap, what)
    if rng.random() < 0.35:
        when = world.start + rng.choice([rng.random(), span * rng.random(), span * rng.random()])
        for _ in range(rng.choice([1, 1, 2])):
            world.at(when, rng.choice([core.Stop, core.Stop, core.StopNow]))
            world.at(when + rng.random(), world.crash_one)
            when += rng.choice([0.0, 0.5, 3.0])
    if rng.random() < 0.15:
        world.at(world.start + rng.random() * span, world.freeze)
    world.at(world.quiet_at, core.Roll if not world.policy.boot_failures_fatal else core.Tick)
