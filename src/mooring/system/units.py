"""Numbers for people: rates, latencies, sizes and ages in a few characters. Pure."""

from __future__ import annotations


def per_second(value: float | None) -> str:
    """`3.4`, `87`, `12,345`; `-` for None."""
    if value is None:
        return "-"
    return f"{value:,.1f}" if 0 < value < 9.95 else f"{value:,.0f}"


def latency(seconds: float | None) -> str:
    """Three digits: `87.2 µs`, `1.15 ms`, `340 ms`, `12.0 s`; `-` for None."""
    if seconds is None:
        return "-"
    for unit, factor in (("µs", 1e6), ("ms", 1e3), ("s", 1.0)):
        value = float(f"{seconds * factor:.3g}")
        if value < 1000 or unit == "s":
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"
    raise AssertionError


def size(count: float | None) -> str:
    """Bytes as `52 MiB`, `1.4 GiB`; `-` for None."""
    if count is None:
        return "-"
    mebibytes = count / 2**20
    if mebibytes < 1000:
        return f"{mebibytes:.0f} MiB" if mebibytes >= 9.95 else f"{mebibytes:.1f} MiB"
    return f"{mebibytes / 1024:.1f} GiB"


def age(seconds: float) -> str:
    """`12s`, `2m 13s`, `3h 12m`, `4d 3h`."""
    whole = int(seconds)
    for unit, long, smaller, short in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= long:
            return f"{whole // long}{unit} {whole % long // short}{smaller}"
    return f"{whole}s"
