"""References to nodes in recorded configurations.

A node inside a configuration is recorded as ``{"node": class, "hash": hash}``. A reference to an input file
also has the file's ``"path"``, for people: the hash alone identifies the node.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from furu.store.layout import is_identifier

__all__ = ["is_reference", "references_within", "same_node", "same_value"]

_KEYS = frozenset({"node", "hash"})
_ALL_KEYS = _KEYS | {"path"}


def is_reference(value: Any) -> bool:
    """Whether a value in a configuration refers to a node."""
    if not isinstance(value, dict) or not _KEYS <= value.keys() <= _ALL_KEYS:
        return False
    node_hash = value["hash"]
    return isinstance(node_hash, str) and is_identifier(node_hash)


def same_node(one: Any, other: Any) -> bool:
    """Whether two values of configurations refer to the same node. Paths of files do not count."""
    if not (is_reference(one) and is_reference(other)):
        return False
    return bool(one["node"] == other["node"] and one["hash"] == other["hash"])


def same_value(one: Any, other: Any) -> bool:
    """Whether two recorded values are equal. True is not 1."""
    if isinstance(one, bool) != isinstance(other, bool):
        return False
    return same_node(one, other) or bool(one == other)


def references_within(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the references in a configuration, in order, at any depth."""
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if is_reference(value):
                yield value
            else:
                pending += reversed(value.values())
        elif isinstance(value, list):
            pending += reversed(value)
