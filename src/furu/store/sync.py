"""Makes files and their names survive a power cut.

The content of a file and the names in a directory are synced separately. The order matters: a file before
the name that leads to it.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from furu.store.record import READ_FLAGS


class DirectorySyncs:
    """Syncs the directories of classes. Threads that wait for a sync of the same directory share it."""

    def __init__(self, make_lock: Callable[[], AbstractContextManager[object]] = threading.Lock) -> None:
        self._make_lock = make_lock
        self._lock = threading.Lock()
        self._turns: dict[str, _Turns] = {}
        self._above: set[Path] = set()

    def sync(self, directory: str, store: Path) -> None:
        """Make the names that are in a class's directory now survive a power cut, and that of the directory
        itself. Raises `OSError`.

        Directories above it are synced once for each directory, as only then they may be new.
        """
        with self._lock:
            turns = self._turns.setdefault(directory, _Turns(self._make_lock()))
        turn = turns.begun + 1  # a sync that runs now may have begun too early for the caller's names
        with turns.lock:
            if turns.done >= turn:
                return
            turns.begun += 1
            inode = sync_directory(directory)
            if inode != turns.inode:
                self._sync_upwards(os.path.dirname(directory), store)
                turns.inode = inode
            turns.done = turns.begun

    def forget(self, directory: str) -> None:
        """Sync the directories above this one again, because it was made anew."""
        with self._lock:
            self._turns.pop(directory, None)

    def _sync_upwards(self, directory: str, store: Path) -> None:
        above = os.path.dirname(store)
        while directory != above:
            sync_directory(directory)
            directory = os.path.dirname(directory)
        if store not in self._above:
            _sync_above(above)
            self._above.add(store)


class _Turns:
    """The syncs of one directory, counted: how many have begun, and the last one that succeeded."""

    __slots__ = ("begun", "done", "inode", "lock")

    def __init__(self, lock: AbstractContextManager[object]) -> None:
        self.lock = lock
        self.begun = 0
        self.done = 0
        self.inode: tuple[int, int] | None = None


def sync_directory(path: str) -> tuple[int, int]:
    """Make the names in a directory survive a power cut. Returns what identifies the directory."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
        info = os.fstat(descriptor)
        return info.st_dev, info.st_ino
    finally:
        os.close(descriptor)


def sync_tree(directory: str) -> None:
    """Sync a directory and everything in it. Raises `OSError`."""
    for parent, _, names in os.walk(directory):
        for name in names:
            path = f"{parent}/{name}"
            if stat.S_ISREG(os.lstat(path).st_mode):
                descriptor = os.open(path, READ_FLAGS)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        sync_directory(parent)


def _sync_above(directory: str) -> None:
    """Sync the parents of a store, which may be new too, up to the root of the filesystem. A directory that
    this process may not read is skipped: this process has not made it."""
    device = os.stat(directory).st_dev
    while os.stat(directory).st_dev == device:
        with contextlib.suppress(PermissionError):
            sync_directory(directory)
        if directory == os.path.dirname(directory):
            return
        directory = os.path.dirname(directory)
