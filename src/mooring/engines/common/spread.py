"""When to close each of many WebSockets: their clients all come back to the workers that are left."""

from __future__ import annotations

_FEW, _PACE = 20, 100.0  # so many at once; so many per second


def delays(count: int, left: float) -> list[float]:
    """Seconds from now for each of `count`: few at once, many over at most half of the `left` seconds."""
    if count <= _FEW:
        return [0.0] * count
    over = min(left / 2, count / _PACE)
    return [over * number / count for number in range(count)]
