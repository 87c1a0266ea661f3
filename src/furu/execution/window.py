"""How many roots are active at once. Pure counting.

"dfs"   one root at a time
"bfs"   all roots
k >= 1  up to k roots; the next is activated when one completes
"""

from __future__ import annotations

from furu.errors import FuruError


class Window:
    """Counts active roots. Roots are read only when there is `room()`, so a generator of a million roots is
    read as the window moves."""

    def __init__(self, window_size: str | int) -> None:
        self._limit = parse_window_size(window_size)
        self._active = 0

    @property
    def active(self) -> int:
        """The number of active roots."""
        return self._active

    def room(self) -> int | None:
        """Return how many more roots may become active; None for any number."""
        return None if self._limit is None else self._limit - self._active

    def activated(self, count: int = 1) -> None:
        """Count roots that became active. Raises `FuruError` if there was no room for them."""
        room = self.room()
        if room is not None and count > room:
            raise FuruError(f"{count} roots activated in a window with room for {room}")
        self._active += count

    def completed(self) -> None:
        """Count one active root as completed."""
        if self._active == 0:
            raise FuruError("a root completed and none is active")
        self._active -= 1


def parse_window_size(window_size: str | int) -> int | None:
    """Return the greatest number of active roots; None for all. Raises `TypeError` or `ValueError`."""
    allowed = "window_size must be 'dfs' (one root at a time), 'bfs' (all roots) or an int of 1 or more"
    if isinstance(window_size, bool) or not isinstance(window_size, (str, int)):
        raise TypeError(f"{allowed}, not {window_size!r}")
    if window_size == "bfs":
        return None
    if window_size == "dfs":
        return 1
    if isinstance(window_size, str) or window_size < 1:
        raise ValueError(f"{allowed}, not {window_size!r}")
    return int(window_size)
