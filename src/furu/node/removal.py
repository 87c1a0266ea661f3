"""Removing a node from the store."""

from __future__ import annotations

import os
from typing import Any

from furu.errors import FuruInProgressError, FuruUsageError
from furu.node.base import Node, artifact_of, describe
from furu.store.removal import remove

__all__ = ["forget"]


def forget(node: Node[Any]) -> bool:
    """Remove a node's artifact, attempts and files. Returns False if there are none. See `Furu.forget`."""
    if type(node)._facts.is_input:
        raise FuruUsageError(f"{describe(node)} is an input, which has no artifact")
    artifact = artifact_of(node)
    if remove(artifact):
        return True
    if not any(map(os.path.lexists, artifact.files.all)):
        return False
    raise FuruInProgressError(
        f"{describe(node)} is being computed, so it was not removed: {artifact.files.done}", owner=""
    )
