"""Thousands of random lives of a fleet, each one reproducible from its seed.

MOORING_SIMULATION_SCHEDULES=100000 for a longer run, MOORING_SIMULATION_SEED=17 for one schedule again.
"""

from __future__ import annotations

import os
from types import ModuleType

import pytest
from lifecycle_world import World

import mooring.supervisor.lifecycle

SCHEDULES = int(os.environ.get("MOORING_SIMULATION_SCHEDULES", "4000"))
SEED = os.environ.get("MOORING_SIMULATION_SEED")
BATCHES = 8


def live(core: ModuleType, seed: int) -> World:
    """Live one schedule to its end; what fails tells the seed and the story."""
    world = World(core, seed)
    try:
        world.run()
    except Exception as error:
        raise AssertionError(f"seed {seed}: {error}\n{world.story()}") from error
    return world


@pytest.mark.parametrize("batch", range(BATCHES))
def test_every_invariant_holds_in_random_schedules(batch: int) -> None:
    seeds = [int(SEED)] if SEED else range(batch * SCHEDULES // BATCHES, (batch + 1) * SCHEDULES // BATCHES)
    for seed in seeds:
        live(mooring.supervisor.lifecycle, seed)
