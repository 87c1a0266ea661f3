"""Counts the active roots of a run and limits their number, according to `window_size`:

"dfs"   one root at a time
"bfs"   all roots at once
k >= 1  at most k roots; when a root completes, the next one becomes active
"""

from __future__ import annotations

from furu.errors import FuruError


class Window:
    """Counts the active roots. A run reads another root only when its window has `room()`, so it reads a
    generator of a million roots little by little."""

    def __init__(self, window_size: str | int) -> None:
        self._limit = parse_window_size(window_size)
        self._active = 0

    @property
    def active(self) -> int:
        """The number of active roots."""
        return self._active

    def room(self) -> int | None:
        """Return how many more roots may become active (None: any number)."""
        return None if self._limit is None else self._limit - self._active

    def activated(self, count: int = 1) -> None:
        """Record that more roots are active. Raises `FuruError` if the window has no room for them."""
        room = self.room()
        if room is not None and count > room:
            raise FuruError(f"{count} roots activated in a window with room for {room}")
        self._active += count

    def completed(self) -> None:
        """Record that an active root has completed."""
        if self._active == 0:
            raise FuruError("a root completed and none is active")
        self._active -= 1


def parse_window_size(window_size: str | int) -> int | None:
    """Return the maximum number of active roots (None: no limit). Raises `TypeError` or `ValueError`."""
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
