"""Feed what parses with mutated inputs: a seeded mutator, or atheris (libFuzzer) with `--guided`.

Usage: python tests/fuzz/parsers.py [--runs NUMBER] [--seconds NUMBER] [--seed NUMBER] [--guided] [TARGET...]
Runs and seconds are for each target; what comes first ends it. An input that fails is written to build/fuzz,
and goes to tests/fuzz/corpus with its mend.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import random
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
CORPUS = FOLDER / "corpus"
FOUND = FOLDER.parent.parent / "build" / "fuzz"
LONGEST = 4096  # bytes of an input

_TOKENS = (
    *(
        b"\0",
        b"\r\n",
        b"\n",
        b"\r\n\r\n",
        b"%",
        b"%(",
        b")s",
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b"\\",
        b",",
        b"/",
        b"*",
        b"=",
        b":",
    ),
    *(
        b"\xff",
        b"\xc3\xa4",
        b"\xed\xa0\x80",
        b"\xe2\x80\xae",
        b"-1",
        b"0",
        b"9" * 20,
        b"9" * 5000,
        b"1e999",
        b"NaN",
        b"max",
    ),
    *(
        b"\x00\x00\x00\x00",
        b"\xff\xff\xff\x7f",
        b"\x00\x00\x00\x80",
        b"\x08\x00\x00\x00",
        b"\xd9\xa3",
        b"\xc2\xb2",
        b"\x85",
    ),
    *(
        b"HTTP/1.1",
        b"Host: x\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\n",
        b"://",
        b"*999",
        b"..",
        b" - ",
    ),
)


def corpus(name: str) -> list[bytes]:
    """The inputs of a target, in the order of their names."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def mutated(rng: random.Random, inputs: list[bytes]) -> bytes:
    """One of the inputs, changed in a few places."""
    data = bytearray(rng.choice(inputs))
    for _ in range(rng.choice((1, 1, 2, 3, 5, 9))):
        at, how = rng.randrange(len(data) + 1), rng.randrange(8)
        end = min(len(data), at + rng.choice((1, 1, 2, 4, 8, 40)))
        if how == 0 and at < len(data):
            data[at] = rng.randrange(256)
        elif how == 1 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif how == 2:
            del data[at:end]
        elif how == 3:
            data[at:at] = data[at:end] * rng.choice((1, 2, 30))
        elif how == 4:
            other = rng.choice(inputs)
            begin = rng.randrange(len(other) + 1)
            data[at:end] = other[begin : begin + rng.choice((1, 4, 16, 64))]
        elif how == 5:
            data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 8)))
        else:
            data[at:at] = rng.choice(_TOKENS)
    return bytes(data[:LONGEST])


def feed(name: str, seed: int, runs: int, seconds: float) -> int:
    """Run one target; how many inputs it got. Raises what the target raises, and keeps the input."""
    from targets import TARGETS

    target, inputs, rng = TARGETS[name], corpus(name), random.Random(f"{name} {seed}")
    until, made = time.monotonic() + seconds, 0
    for data in inputs:
        _try(name, target, data)
    while made < runs and (made & 255 or time.monotonic() < until):
        _try(name, target, mutated(rng, inputs))
        made += 1
    return made + len(inputs)


def _try(name: str, target, data: bytes) -> None:
    try:
        target(data)
    except BaseException:
        kept = FOUND / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(data)
        print(f"{name}: this input failed: {kept}", file=sys.stderr)
        raise


def guide(name: str, seed: int, runs: int, seconds: float) -> None:
    """Run one target with atheris, which looks for inputs that reach new code. Does not return."""
    import atheris

    with atheris.instrument_imports(include=["mooring"]):
        from targets import TARGETS
    grown = FOUND / name
    grown.mkdir(parents=True, exist_ok=True)
    options = [
        f"-runs={runs}",
        f"-max_total_time={max(1, int(seconds))}",
        f"-seed={seed}",
        f"-max_len={LONGEST}",
    ]
    atheris.Setup(
        [
            sys.argv[0],
            *options,
            f"-artifact_prefix={FOUND}/{name}-",
            "-print_final_stats=1",
            str(grown),
            str(CORPUS / name),
        ],
        TARGETS[name],
    )
    atheris.Fuzz()


def _guided(name: str, given: argparse.Namespace) -> int:
    """The same in a process of its own, since libFuzzer ends the process; how many inputs it ran."""
    words = [f"--runs={given.runs}", f"--seconds={given.seconds}", f"--seed={given.seed % 2**31}"]
    done = subprocess.run(
        [sys.executable, __file__, "--inside", *words, name], check=False, stderr=subprocess.PIPE, text=True
    )
    count = next(
        (line.split()[-1] for line in done.stderr.splitlines() if "number_of_executed_units" in line), ""
    )
    if done.returncode or not count:
        raise SystemExit(f"{done.stderr[-6000:]}\n{name}: failed")
    return int(count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**31)
    parser.add_argument("--guided", action="store_true")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("targets", nargs="*")
    given = parser.parse_args()
    logging.disable()
    if given.inside:
        guide(given.targets[0], given.seed, given.runs, given.seconds)
        return
    print(f"--seed {given.seed}{' --guided' if given.guided else ''}", flush=True)
    total = 0
    for name in given.targets or sorted(path.name for path in CORPUS.iterdir()):
        began = time.monotonic()
        made = _guided(name, given) if given.guided else feed(name, given.seed, given.runs, given.seconds)
        total += made
        print(f"{name}: {made:,} inputs in {time.monotonic() - began:.0f} s", flush=True)
    print(f"{total:,} inputs in all", flush=True)


if __name__ == "__main__":
    main()
