"""Removing what earlier attempts left in a node's directory.

Each function is called by the holder of the node's claim. Nothing is removed whose owner is alive or may
still publish.
"""

from __future__ import annotations

import logging
import os

from furu.errors import FuruStoreError
from furu.store.artifact import Artifact
from furu.store.layout import DONE, parse_numbered
from furu.store.record import EndedRecord, relative_to

__all__ = ["KEPT_RECORDS", "remove_name", "remove_old_records", "remove_strays", "remove_superseded"]

logger = logging.getLogger("furu.store")

# How many records of failed and cancelled attempts are kept for a node, with their files.
KEPT_RECORDS = 4


def remove_strays(artifact: Artifact) -> None:
    """Remove files without an attempt, which remain if `done` was removed by hand. Called under a claim of
    `try-1`."""
    names = artifact.names()
    if DONE in names:  # another machine has taken this attempt for dead, and has published
        return
    for name in names:
        kind, number = parse_numbered(name) or ("", 0)
        if kind in ("a", "tmp-", "rejected-") and f"try-{number}" not in names:
            remove_name(f"{artifact.files.directory}/{name}")


def remove_old_records(artifact: Artifact, number: int) -> None:
    """Remove the records of attempts before `number`, with their files, except the newest ones.

    Only attempts that have ended are removed: an owner that looks dead may still publish.
    """
    parsed = {name: parse_numbered(name) for name in artifact.names()}
    tries = sorted({split[1] for split in parsed.values() if split and split[0] == "try-"})
    earlier = [attempt for attempt in tries if attempt < number]
    old = {attempt for attempt in earlier[:-KEPT_RECORDS] if _has_ended(artifact, attempt)}
    for name, split in parsed.items():
        if split is not None and split[1] in old and split != ("try-", 1):
            remove_name(f"{artifact.files.directory}/{name}")


def remove_superseded(artifact: Artifact, number: int) -> None:
    """Remove what attempts before `number`, which has published, left behind, except that of a live owner.

    The record of the last failure is kept, and `try-1` with it: see the top of `claim.py`.
    """
    try:
        parsed = {name: parse_numbered(name) or ("", 0) for name in artifact.names()}
        kept = _kept(artifact, {attempt for _, attempt in parsed.values() if 0 < attempt < number})
    except (OSError, FuruStoreError) as error:
        logger.warning("could not clean up after earlier attempts: %s", error)
        return
    for name, (kind, attempt) in parsed.items():
        stale = 0 < attempt < number and (kind, attempt) not in kept
        if stale or kind == "rejected-":
            remove_name(f"{artifact.files.directory}/{name}")


def _kept(artifact: Artifact, numbers: set[int]) -> set[tuple[str, int]]:
    kept: set[tuple[str, int]] = set()
    failed = 0
    for number in sorted(numbers, reverse=True):
        found = artifact.read_attempt(number)
        if found is not None and found.alive:
            kept |= {("try-", number), ("a", number), ("tmp-", number)}
        elif found is not None and isinstance(found.record, EndedRecord) and not failed:
            failed = number if found.record.outcome == "failed" else 0
    return kept | {("try-", failed), ("try-", 1)} if failed else kept


def _has_ended(artifact: Artifact, number: int) -> bool:
    found = artifact.read_attempt(number)
    return found is not None and isinstance(found.record, EndedRecord)


def remove_name(path: str, directory: int | None = None) -> bool:
    """Remove a file or directory; return whether a file was removed. Logs a warning if that fails.

    With `directory`, a directory's descriptor, the path is relative to it and must name a file.
    """
    try:
        os.unlink(path, **relative_to(directory))
        return True
    except FileNotFoundError:
        pass
    except OSError as error:
        if directory is None and os.path.isdir(path) and not os.path.islink(path):
            import shutil  # takes 2 ms to import

            shutil.rmtree(path, ignore_errors=True)  # Linux reports EISDIR for one, macOS EPERM
        else:
            logger.warning("could not remove %s: %s", path, error)
    return False
