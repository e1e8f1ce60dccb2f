"""MOORING_WEBSOCKET_MAX_SIZE: what is taken, and a server's own name for it."""

from __future__ import annotations

import pytest

from mooring.plan.server_config.values import Overrides
from mooring.settings.parsers import LARGEST_MESSAGE, message_size
from mooring.settings.table import Settings


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("65536", 65536),
        ("512K", 524_288),
        ("16M", 16 * 2**20),
        ("1.5MiB", 1_572_864),
        ("1T", 2**40),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert message_size(text) == size


@pytest.mark.parametrize("text", ["0", "-1", "", "M", "16X", "25%", "2T", "a lot"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="such as 65536, 512K or 16M"):
        message_size(text)


def test_the_default_is_16_mib() -> None:
    assert Settings().websocket_max_size == 16 * 2**20


@pytest.mark.parametrize(
    ("kind", "given", "size"),
    [("hypercorn", 4096, 4096), ("gunicorn", 4096, 4096), ("gunicorn", 0, LARGEST_MESSAGE)],
)
def test_a_servers_configuration_file_sets_it(kind: str, given: int, size: int) -> None:
    overrides = Overrides()
    overrides.add(kind, {"websocket_max_message_size": given}, "conf.py")
    assert overrides.values == {"websocket_max_size": size}
