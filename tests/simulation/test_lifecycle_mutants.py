"""The simulation is worth something only if it finds what is broken: every mutant must be caught."""

from __future__ import annotations

import pytest
from lifecycle_mutants import MUTANTS, Mutant, load
from lifecycle_world import World

SCHEDULES = 10_000


def caught_by(mutant: Mutant) -> tuple[int, str] | None:
    """Return the seed and the complaint that give the mutant away."""
    core = load(mutant)
    for seed in range(SCHEDULES):
        try:
            World(core, seed).run()
        except Exception as error:  # a broken core may break in any way
            return seed, f"{type(error).__name__}: {error}"
    return None


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_simulation_catches(mutant: Mutant) -> None:
    assert caught_by(mutant) is not None, f"{mutant.name} lived through {SCHEDULES} schedules"
