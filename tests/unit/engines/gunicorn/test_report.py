"""What gunicorn's workers report is whole, whatever an application's traceback is made of."""

from __future__ import annotations

import pytest

pytest.importorskip("gunicorn")

from mooring.application.failure import BootError
from mooring.engines.gunicorn.report import Reports
from mooring.errors import ConfigurationError


@pytest.mark.parametrize("letter", ["x", "\u96ea", "\U0001f600", "\udcff", "\x1b", "\n"])
def test_a_failure_comes_back_with_its_line_and_the_end_of_its_traceback(letter):
    reports = Reports()
    reports.fail(BootError("no" + letter * 500, letter * 5000 + "ValueError: no"))
    with pytest.raises(BootError) as failed:
        reports.check()
    assert str(failed.value) == "no" + letter * 500
    assert failed.value.traceback.endswith("ValueError: no")


def test_bad_configuration_is_told_apart_and_nothing_is_nothing():
    reports = Reports()
    reports.check()
    reports.fail(ConfigurationError("bad" * 5000))
    with pytest.raises(ConfigurationError, match="bad"):
        reports.check()
