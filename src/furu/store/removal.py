"""Removes nodes that are not being computed.

A removal claims the node as a computation does, so no other attempt holds the node meanwhile. First it
renames `done`, so that `done` never refers to files that are gone. Then it moves the claim to `try-1` and
renames the node's directory. Then it renames any new `done`: an owner that lost its claim while it was
paused may have published from that directory. The last step frees `try-1`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

from furu.errors import FuruInProgressError
from furu.settings import Settings
from furu.store.artifact import Artifact
from furu.store.attempt import Attempt
from furu.store.catalog import class_directories
from furu.store.claim import take
from furu.store.layout import REMOVED
from furu.store.leftovers import remove_name
from furu.store.record import store_failed

__all__ = ["remove", "remove_left_over"]


def remove(artifact: Artifact) -> bool:
    """Remove a node and all its files. Returns False if the node is being computed or does not exist.

    Afterwards, concurrent readers find no artifact. Raises `FuruStoreError` if the store cannot be written.
    """
    files = artifact.files
    if not any(map(os.path.lexists, files.all)):
        return False
    attempt = Attempt(artifact)
    aside = f"{files.class_directory}/{REMOVED}{secrets.token_hex(8)}"
    renamed: list[str] = []
    try:
        if not take(attempt, rejects=lambda: True, set_aside=False):
            return False
        for number, path in enumerate((files.done, files.directory, files.done)):
            if path == files.directory:
                attempt.take_first_name()
            if _rename(path, f"{aside}-{number}"):
                renamed.append(f"{aside}-{number}")
    except FuruInProgressError:
        return False
    except OSError as error:
        raise store_failed("rename", files.done, error) from error
    finally:
        attempt.close()
        for path in renamed:
            remove_name(path)
    return True


def _rename(path: str, aside: str) -> bool:
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return False
    return True


def remove_left_over(settings: Settings) -> None:
    """Finish removals that killed processes began."""
    for path in _left_over(settings):
        remove_name(path)


def _left_over(settings: Settings) -> Iterator[str]:
    for _, directory in class_directories(settings.store):
        with os.scandir(directory) as entries:
            yield from (entry.path for entry in entries if entry.name.startswith(REMOVED))
