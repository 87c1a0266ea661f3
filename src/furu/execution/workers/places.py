"""Names for the workers of a crew."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from contextlib import contextmanager


class Places:
    """Assigns the names ``<kind>-1``, ``<kind>-2``, …, always with the lowest free number."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._count = 0
        self._free: list[int] = []  # numbers up to `_count` that are free again

    @contextmanager
    def taken(self) -> Iterator[str]:
        """Reserve a worker's name for the duration of a `with` block."""
        if self._free:
            place = heapq.heappop(self._free)
        else:
            self._count += 1
            place = self._count
        try:
            yield f"{self._kind}-{place}"
        finally:
            heapq.heappush(self._free, place)
