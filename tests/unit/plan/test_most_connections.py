"""The number of connections of a worker follows from descriptors and memory."""

from __future__ import annotations

import pytest
from test_plan import MIB, machine, planned

from mooring.plan.connections import most
from mooring.resources import Reading


@pytest.mark.parametrize(
    ("descriptors", "memory", "workers", "expected"),
    [
        (1024, None, 2, 768),
        (1_000_000, None, 2, 10_000),
        (None, None, 2, 10_000),
        (1_000_000, 512 * MIB, 2, 1024),
        (1_000_000, 512 * MIB, 4, 512),
        (32, 16 * MIB, 4, 64),
    ],
)
def test_the_least_of_what_descriptors_and_memory_allow(descriptors, memory, workers, expected):
    resources = machine(memory=memory)._replace(descriptors=Reading(descriptors, "RLIMIT_NOFILE"))
    assert most(resources, workers)[0] == expected


def test_a_users_number_is_kept(tmp_path):
    plan = planned(tmp_path, {"MOORING_MAX_CONNECTIONS": "12"})
    assert plan.max_connections == 12
    assert plan.explained["max_connections"].origin == "env:MOORING_MAX_CONNECTIONS"


def test_the_tuned_number_has_its_reason(tmp_path):
    plan = planned(tmp_path, memory=512 * MIB)
    found = plan.explained["max_connections"]
    assert (plan.max_connections, found.value, found.origin) == (1024, 1024, "tuned")
    assert "512 MiB (memory file) for 2 workers" in found.reason
