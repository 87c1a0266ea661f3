"""Values that a process has loaded and keeps in memory, so that it loads them once."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Any, NamedTuple

__all__ = ["Memory"]

# How long a thread waits for another thread that loads the same value. Then it loads the value itself.
_MAX_WAIT_SEC = 10.0


class _Entry(NamedTuple):
    identity: Hashable
    value: Any
    size_bytes: int


class Memory:
    """Values by key, bounded by their total size: the least recently used are dropped first.

    An entry is valid only for the identity that it was kept with.
    """

    def __init__(self) -> None:
        # Re-entrant, because a signal handler may load a node while its thread holds the lock.
        self._lock = threading.RLock()
        self._entries: dict[Hashable, _Entry] = {}
        self._loading: dict[Hashable, threading.Event] = {}
        self.size_bytes = 0

    def find(self, key: Hashable, identity: Hashable) -> Any | None:
        """Return the value with this key and identity, None if there is none."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or entry.identity != identity:
                return None
            del self._entries[key]
            self._entries[key] = entry  # the last entry is the most recently used
            return entry.value

    def keep(
        self, key: Hashable, identity: Hashable, value: Any, size_bytes: int, limit_bytes: int
    ) -> None:
        """Keep a value, and drop others until all together have at most `limit_bytes`."""
        with self._lock:
            self._drop(key)
            if size_bytes > limit_bytes:
                return
            self._entries[key] = _Entry(identity, value, size_bytes)
            self.size_bytes += size_bytes
            while self.size_bytes > limit_bytes:
                self._drop(next(iter(self._entries)))

    def begin(self, key: Hashable) -> bool:
        """Announce that this thread loads a value. If another thread is loading it, wait for that thread,
        and return False. If this returns True, the caller must call `end`."""
        with self._lock:
            other = self._loading.get(key)
            if other is None:
                self._loading[key] = threading.Event()
                return True
        other.wait(_MAX_WAIT_SEC)
        return False

    def end(self, key: Hashable) -> None:
        """Wake the threads that wait for this thread to load a value."""
        with self._lock:
            self._loading.pop(key).set()

    def _drop(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size_bytes -= entry.size_bytes
