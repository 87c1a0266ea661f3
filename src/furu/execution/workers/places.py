"""The places of a crew, so that what runs side by side can be told apart. Knows nothing of jobs."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from contextlib import contextmanager


class Places:
    """Names a crew's workers ``<kind>-1``, ``<kind>-2`` …; the lowest that is free is taken first."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._count = 0
        self._free: list[int] = []  # of those that were taken before

    @contextmanager
    def taken(self) -> Iterator[str]:
        """Take a place for a block."""
        if self._free:
            place = heapq.heappop(self._free)
        else:
            self._count += 1
            place = self._count
        try:
            yield f"{self._kind}-{place}"
        finally:
            heapq.heappush(self._free, place)
