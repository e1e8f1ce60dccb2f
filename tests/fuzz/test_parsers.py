"""What parses foreign bytes, on the corpus and on mutations of it. More of them: `make fuzz`."""

from __future__ import annotations

import parsers
import pytest
from targets import TARGETS


def test_each_target_has_a_corpus():
    assert sorted(TARGETS) == sorted(path.name for path in parsers.CORPUS.iterdir())


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_it_keeps_its_promises(name):
    parsers.feed(name, seed=1, runs=1500, seconds=60)
