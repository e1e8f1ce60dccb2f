"""The words of public Dockerfiles are all taken by the images' `conda`; what it cannot do it refuses."""

from __future__ import annotations

import shlex

import pytest

from mooring.commands.conda import options
from mooring.errors import ConfigurationError

# As found after `conda install`, `mamba create` and so on.
LINES = {
    "-y numpy -c conda-forge pandas": ["numpy", "pandas"],
    "--yes --quiet --channel conda-forge 'python>=3.11' numpy=1.26": ["python>=3.11", "numpy=1.26"],
    "-yn shop python=3.8": ["python=3.8"],
    "-qy -p /env --override-channels -c pytorch -c nvidia/label/cuda-11.8.0 pytorch==2.1.2": [
        "pytorch==2.1.2"
    ],
    "-c conda-forge --freeze-installed jupyter-server-proxy": ["jupyter-server-proxy"],
    "--strict-channel-priority --no-update-deps --solver libmamba x": ["x"],
    "--solver=classic --copy -v --insecure x": ["x"],
    "--file list.txt --no-default-packages": [],
    "bioconda::samtools blast=2.9.0": ["bioconda::samtools", "blast=2.9.0"],
    "--update-all -y": [],
    "-n base -c defaults conda -y": ["conda"],
}


@pytest.mark.parametrize("line", LINES)
def test_a_line_is_taken(line: str) -> None:
    given = options.packages("install").parse_intermixed_args(shlex.split(line))
    assert given.specs == LINES[line]


def test_what_counts_is_kept() -> None:
    line = "-n a -p b -c c --channel d --override-channels -d -q --json -f e --file f --no-deps --all"
    given = options.packages("install").parse_intermixed_args(line.split())
    assert (given.name, given.prefix, given.channel, given.file) == ("a", "b", ["c", "d"], ["e", "f"])
    assert all((given.override_channels, given.dry_run, given.quiet, given.json, given.no_deps, given.all))


@pytest.mark.parametrize("line", ["--clone x", "--offline", "--platform linux-64", "--frob", "-n"])
def test_what_would_change_the_result_is_refused(line: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^install: .* not conda itself"):
        options.packages("install").parse_intermixed_args(line.split())
