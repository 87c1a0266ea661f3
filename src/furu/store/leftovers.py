"""Removing what earlier attempts at a node left in the store.

Each function is called by the holder of the node's claim. Nothing is removed whose owner is alive or may
still publish.
"""

from __future__ import annotations

import contextlib
import logging
import os

from furu.errors import FuruStoreError
from furu.store.artifact import Artifact
from furu.store.layout import TRY
from furu.store.record import EndedRecord

__all__ = [
    "KEPT_RECORDS",
    "remove_if_empty",
    "remove_name",
    "remove_old_records",
    "remove_strays",
    "remove_superseded",
]

logger = logging.getLogger("furu.store")

# How many records of failed and cancelled attempts are kept for a node, with their files.
KEPT_RECORDS = 4


def remove_strays(artifact: Artifact) -> None:
    """Remove files without an attempt, which remain if `done` was removed by hand. Called under a claim of
    `try-1`."""
    numbered = artifact.numbered()
    if os.path.lexists(artifact.files.done):  # another machine took this attempt for dead, and published
        return
    attempts = {number for kind, number in numbered.values() if kind == TRY}
    for path, (_, number) in numbered.items():
        if number not in attempts:
            remove_name(path)


def remove_old_records(artifact: Artifact, number: int) -> None:
    """Remove the records of attempts before `number`, with their files, except the newest ones.

    Only attempts that have ended are removed: an owner that looks dead may still publish.
    """
    numbered = artifact.numbered()
    earlier = sorted(attempt for kind, attempt in numbered.values() if kind == TRY and attempt < number)
    old = {attempt for attempt in earlier[:-KEPT_RECORDS] if _has_ended(artifact, attempt)}
    for path, (kind, attempt) in numbered.items():
        if attempt in old and (kind, attempt) != (TRY, 1):
            remove_name(path)


def remove_superseded(artifact: Artifact, number: int) -> None:
    """Remove what attempts before `number`, which has published, left behind, except that of a live owner.

    The record of the last failure is kept, and `try-1` with it: see the top of `claim.py`.
    """
    try:
        numbered = artifact.numbered()
        kept = _kept(artifact, {attempt for _, attempt in numbered.values() if attempt < number})
    except (OSError, FuruStoreError) as error:
        logger.warning("could not clean up after earlier attempts: %s", error)
        return
    for path, (kind, attempt) in numbered.items():
        stale = attempt < number and (kind, attempt) not in kept
        if stale or kind == "rejected-":
            remove_name(path)


def _kept(artifact: Artifact, numbers: set[int]) -> set[tuple[str, int]]:
    kept: set[tuple[str, int]] = set()
    failed = 0
    for number in sorted(numbers, reverse=True):
        found = artifact.read_attempt(number)
        if found is not None and found.alive:
            kept |= {(TRY, number), ("a", number), ("tmp-", number)}
        elif found is not None and isinstance(found.record, EndedRecord) and not failed:
            failed = number if found.record.outcome == "failed" else 0
    return kept | {(TRY, failed), (TRY, 1)} if failed else kept


def _has_ended(artifact: Artifact, number: int) -> bool:
    found = artifact.read_attempt(number)
    return found is not None and isinstance(found.record, EndedRecord)


def remove_name(path: str) -> bool:
    """Remove a file or directory; return whether a file was removed. Logs a warning if that fails."""
    try:
        os.unlink(path)
        return True
    except FileNotFoundError:
        pass
    except OSError as error:
        if os.path.isdir(path) and not os.path.islink(path):
            import shutil  # takes 2 ms to import

            shutil.rmtree(path, ignore_errors=True)  # Linux reports EISDIR for one, macOS EPERM
        else:
            logger.warning("could not remove %s: %s", path, error)
    return False


def remove_if_empty(directory: str) -> None:
    """Remove a directory, unless it holds a name or is gone."""
    with contextlib.suppress(OSError):
        os.rmdir(directory)
