"""Removes the files that earlier attempts at a node left in the store.

Callers must hold the node's claim. Files are kept if their owner is alive or may still publish.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets

from furu.errors import FuruStoreError
from furu.store.artifact import Artifact
from furu.store.layout import CHECKPOINT, REMOVED, TRY
from furu.store.record import EndedRecord

__all__ = [
    "KEPT_RECORDS",
    "checkpoints",
    "remove_checkpoints",
    "remove_if_empty",
    "remove_name",
    "remove_old_records",
    "remove_strays",
    "remove_superseded",
]

logger = logging.getLogger("furu.store")

# How many records of failed or cancelled attempts to keep for each node, with the attempts' files.
KEPT_RECORDS = 4


def remove_strays(artifact: Artifact) -> None:
    """Remove files that belong to no attempt; such files remain if a user removes `done`. The caller must
    hold `try-1`."""
    numbered = artifact.numbered()
    if os.path.lexists(artifact.files.done):  # another machine considered this attempt dead, and published
        return
    attempts = {number for kind, number in numbered.values() if kind == TRY}
    for path, (_, number) in numbered.items():
        if number not in attempts:
            remove_name(path)


def remove_old_records(artifact: Artifact, number: int) -> None:
    """Remove all but the newest records of attempts before `number`, and those attempts' files.

    Only attempts that have ended are removed, because an owner that looks dead may still publish.
    """
    numbered = artifact.numbered()
    earlier = sorted(attempt for kind, attempt in numbered.values() if kind == TRY and attempt < number)
    old = {attempt for attempt in earlier[:-KEPT_RECORDS] if _has_ended(artifact, attempt)}
    for path, (kind, attempt) in numbered.items():
        if attempt in old and (kind, attempt) != (TRY, 1):
            remove_name(path)


def remove_superseded(artifact: Artifact, number: int) -> None:
    """Remove the files of attempts before `number`, which has published. Files of live owners are kept.

    The record of the last failure is kept too, together with `try-1`: see the top of `claim.py`.
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
    remove_checkpoints(artifact)


def remove_checkpoints(artifact: Artifact) -> None:
    """Remove what attempts have kept for the next one. First it gets another name, at once, so that no
    attempt sees a part of it."""
    files = artifact.files
    for path in checkpoints(artifact):
        aside = f"{files.class_directory}/{REMOVED}{secrets.token_hex(8)}"
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            continue
        except OSError as error:
            logger.warning("could not remove %s: %s", path, error)
            continue
        remove_name(aside)


def checkpoints(artifact: Artifact) -> list[str]:
    """Return the paths of the directories that attempts have kept for the next one."""
    directory = artifact.files.directory
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    return [f"{directory}/{name}" for name in names if name.partition("-")[0] == CHECKPOINT]


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
    """Remove a file or directory. Returns whether a file was removed. Logs a warning if removing fails."""
    try:
        os.unlink(path)
        return True
    except FileNotFoundError:
        pass
    except OSError as error:
        if os.path.isdir(path) and not os.path.islink(path):
            import shutil  # takes 2 ms to import

            shutil.rmtree(path, ignore_errors=True)  # unlink fails: EISDIR on Linux, EPERM on macOS
        else:
            logger.warning("could not remove %s: %s", path, error)
    return False


def remove_if_empty(directory: str) -> None:
    """Remove a directory if it is empty. Ignores errors."""
    with contextlib.suppress(OSError):
        os.rmdir(directory)
