"""Where the time of a stage goes: seconds by part, summed over one scan in one process.

    with part("decode"):
        …

Parts do not nest. `take` ends a scan: it returns the sums and starts anew. A stage works in one thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

_seconds: dict[str, float] = {}


@contextmanager
def part(name: str) -> Iterator[None]:
    """Add the time that the block takes to the part of this name."""
    start = time.perf_counter()
    try:
        yield
    finally:
        _seconds[name] = _seconds.get(name, 0.0) + time.perf_counter() - start


def take() -> dict[str, float]:
    """Seconds by part since the last call."""
    taken = dict(_seconds)
    _seconds.clear()
    return taken
