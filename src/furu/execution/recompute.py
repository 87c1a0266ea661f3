"""Decides which DONE nodes a run computes again: those that its caller asks for, those that were made by
other code, and those that depend on a node that is computed again.

To decide this for one node, the whole graph below it is visited, and every record in it is read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from furu.node.base import Node, artifact_of, is_input
from furu.node.dependencies import ClassNames, dependencies, postorder
from furu.store.artifact import Done, FileId

__all__ = ["Recompute"]


class Recompute:
    """The artifacts that one run replaces: those for which `is_to_replace(node)` is True, and those that
    depend on them. `check` is called for each node that is visited, and may raise an exception to end a
    long visit."""

    def __init__(self, is_to_replace: Callable[[Node[Any]], bool], check: Callable[[], object]) -> None:
        self._is_to_replace = is_to_replace
        self._check = check
        self._classes = ClassNames()
        # For each visited node, whether its value may change.
        self._changes: dict[str, bool] = {}
        # What identifies the artifacts that are replaced.
        self._replaced: dict[str, FileId] = {}
        self._below: dict[str, list[str]] = {}
        self._done: set[str] = set()

    def done(self, key: str) -> None:
        """Record that a node is done in this run, so that its artifact is not replaced any more."""
        self._done.add(key)

    def replaced_by(self, node: Node[Any]) -> FileId | None:
        """Return what identifies the artifact of a DONE node that is computed again; None if the artifact
        is kept, or has been replaced already."""
        if node.furu_hash not in self._changes:
            for visited in postorder(node, self._visit, self._classes):
                self._judge(visited)
        known = self._replaced.get(node.furu_hash)
        return known if known is not None and artifact_of(node).look_at_done()[1] == known else None

    def _visit(self, node: Node[Any]) -> list[Node[Any]] | None:
        self._check()
        if node.furu_hash in self._changes:
            return None
        if is_input(node):
            self._changes[node.furu_hash] = False
            return None
        below: list[Node[Any]] = []
        with contextlib.suppress(Exception):  # from `_dependencies`; if the node is needed, the run fails
            below = dependencies(node)
        self._below[node.furu_hash] = [dependency.furu_hash for dependency in below]
        return below

    def _judge(self, node: Node[Any]) -> None:
        below = self._below.pop(node.furu_hash)
        done, identity = artifact_of(node).look_at_done()
        changes = any(self._changes.get(dependency, False) for dependency in below)
        is_new = node.furu_hash in self._done
        if done is Done.PUBLISHED and not is_new and (self._is_to_replace(node) or changes):
            changes = True
            assert identity is not None  # noqa: S101  # the artifact is published
            self._replaced[node.furu_hash] = identity
        self._changes[node.furu_hash] = changes
