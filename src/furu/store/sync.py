"""Makes files and their names survive a power cut.

The content of a file and the names in a directory are synced separately. The order matters: a file before
the name that leads to it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from furu.store.record import READ_FLAGS


def sync_directory(path: str) -> None:
    """Make the names in a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
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


def sync_upwards(directory: str, store: Path, synced_above: set[Path]) -> None:
    """Sync the directory of a class and its parents, which may be new too.

    `synced_above` holds the stores whose parents this process has synced already.
    """
    above = os.path.dirname(store)
    while directory != above:
        sync_directory(directory)
        directory = os.path.dirname(directory)
    if store not in synced_above:
        _sync_above(above)
        synced_above.add(store)


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
