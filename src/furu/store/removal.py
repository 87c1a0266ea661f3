"""Removing nodes that are not being computed.

A removal claims the node like a computation, so no other owner holds it and later claimers find it taken.
Then the node's directory is renamed, and a new claim makes a new one.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator

from furu.errors import FuruInProgressError
from furu.settings import Settings
from furu.store.artifact import Artifact
from furu.store.attempt import Attempt
from furu.store.catalog import class_directories
from furu.store.claim import take
from furu.store.record import store_failed

__all__ = ["remove", "remove_left_over"]

_REMOVED = "removed-"


def remove(artifact: Artifact) -> bool:
    """Remove a node and all its files. Returns False if it is being computed, or is gone already.

    For concurrent readers the node is missing from then on. Raises `FuruStoreError` if the store cannot be
    written.
    """
    directory = artifact.files.directory
    if not os.path.isdir(directory):
        return False
    attempt = Attempt(artifact)
    aside = f"{os.path.dirname(directory)}/{_REMOVED}{secrets.token_hex(8)}"
    try:
        # The published artifact stays in place until the whole directory is renamed.
        if not take(attempt, rejects=lambda: True, set_aside=False):
            return False
        os.rename(directory, aside)
        attempt.forget()
    except (FuruInProgressError, FileNotFoundError):
        return False
    except OSError as error:
        raise store_failed("rename", directory, error) from error
    finally:
        attempt.close()
    _delete(aside)
    return True


def remove_left_over(settings: Settings) -> None:
    """Finish removals that killed processes have begun."""
    for path in _left_over(settings):
        _delete(path)


def _left_over(settings: Settings) -> Iterator[str]:
    for _, directory in class_directories(settings.store):
        with os.scandir(directory) as entries:
            yield from (
                entry.path
                for entry in entries
                if entry.name.startswith(_REMOVED) and entry.is_dir(follow_symlinks=False)
            )


def _delete(path: str) -> None:
    # Another process may be deleting it too, and files that stay are never read.
    shutil.rmtree(path, ignore_errors=True)
