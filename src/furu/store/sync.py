"""Makes files and their names survive a power cut.

The content of a file and the names in a directory are synced separately. The order matters: sync a file
before you sync the directory with its name.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from furu.store.layout import NodeFiles
from furu.store.record import READ_FLAGS

logger = logging.getLogger("furu.store")


class DirectorySyncs:
    """Syncs class directories. Threads that wait to sync the same directory share one sync."""

    def __init__(self, make_lock: Callable[[], AbstractContextManager[object]] = threading.Lock) -> None:
        self._make_lock = make_lock
        self._lock = threading.Lock()
        self._turns: dict[str, _Turns] = {}
        self._above: set[Path] = set()

    def sync(self, directory: str, store: Path) -> None:
        """Make a class's directory, and the names that are in it now, survive a power cut.

        The first sync of a directory also syncs the directories above it, because they may be new. Raises
        `OSError`.
        """
        with self._lock:
            turns = self._turns.setdefault(directory, _Turns(self._make_lock()))
        turn = turns.begun + 1  # a sync in progress may have begun before the caller's names existed
        with turns.lock:
            if turns.done >= turn:
                return
            turns.begun += 1
            inode = sync_directory(directory)
            if inode != turns.inode:
                self._sync_upwards(os.path.dirname(directory), store)
                turns.inode = inode
            turns.done = turns.begun

    def sync_published(self, files: NodeFiles, store: Path) -> None:
        """Make the name of a published artifact survive a power cut. Logs an error if that fails: `done`
        stays, because other processes may have read it."""
        try:
            self.sync(files.class_directory, store)
        except OSError as error:
            logger.error("%s is published, but may not survive a power cut: %s", files.done, error)

    def forget(self, directory: str) -> None:
        """Forget a directory that was created again: the next `sync` also syncs those above it."""
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
    """Counters of one directory's syncs: `begun` counts those that have begun, and `done` is the number of
    the last sync that succeeded."""

    __slots__ = ("begun", "done", "inode", "lock")

    def __init__(self, lock: AbstractContextManager[object]) -> None:
        self.lock = lock
        self.begun = 0
        self.done = 0
        self.inode: tuple[int, int] | None = None


def sync_directory(path: str) -> tuple[int, int]:
    """Make the names in a directory survive a power cut. Returns its device and inode numbers."""
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
    """Sync the directories above a store, up to the root of their filesystem, because they may be new too.
    A directory that this process may not read is skipped, because this process cannot have created it."""
    device = os.stat(directory).st_dev
    while os.stat(directory).st_dev == device:
        with contextlib.suppress(PermissionError):
            sync_directory(directory)
        if directory == os.path.dirname(directory):
            return
        directory = os.path.dirname(directory)
