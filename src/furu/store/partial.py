"""Partial artifacts: those that were made although nodes that they ask for had failed.

The record of such an artifact names these nodes. `<store>/partial` exists if any artifact of the store may
be partial, so that runs need not read records otherwise.
"""

from __future__ import annotations

import os

from furu.errors import FuruStoreError
from furu.settings import Settings
from furu.store.artifact import Artifact
from furu.store.layout import PARTIAL
from furu.store.record import MAX_RECORD_BYTES, store_failed

__all__ = ["has_partial", "is_partial", "note_partial"]


def note_partial(settings: Settings) -> None:
    """Record that the store is to have a partial artifact. Raises `FuruStoreError`."""
    path = os.path.join(settings.store, PARTIAL)
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666))
    except OSError as error:
        raise store_failed("write", path, error) from error


def has_partial(settings: Settings) -> bool:
    """Whether the store may have partial artifacts."""
    return os.path.lexists(os.path.join(settings.store, PARTIAL))


def is_partial(artifact: Artifact) -> bool:
    """Whether an artifact was made without nodes that had failed. False if it cannot be read."""
    try:
        record = artifact.read(MAX_RECORD_BYTES)
    except FuruStoreError:
        return False
    return record is not None and bool(record.missing)
