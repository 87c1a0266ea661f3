"""The differences between two recorded configurations. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from furu.store.references import is_reference, same_node

_MISSING = object()


@dataclass(frozen=True, slots=True)
class Difference:
    """A path at which two configurations differ. If only one configuration has a value there, `only` is
    ``"before"`` or ``"after"``, and the other value is None."""

    path: str
    before: Any
    after: Any
    only: str = ""


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Return the differences between the leaves of two configurations. Nodes count as leaves."""
    old, new = dict(leaves(before)), dict(leaves(after))
    found = []
    for path in dict.fromkeys([*old, *new]):
        one, other = old.get(path, _MISSING), new.get(path, _MISSING)
        if one is _MISSING:
            found.append(Difference(path, None, other, "after"))
        elif other is _MISSING:
            found.append(Difference(path, one, None, "before"))
        elif (type(one) is not type(other) or one != other) and not same_node(one, other):
            found.append(Difference(path, one, other))
    return found


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a configuration with their paths, such as ``optimizer.schedule[2]``."""
    pending = [(path, value)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, dict) and value and not is_reference(value):
            inside = [(f"{path}.{key}" if path else str(key), item) for key, item in value.items()]
            pending += reversed(inside)
        elif isinstance(value, list) and value:
            pending += reversed([(f"{path}[{number}]", item) for number, item in enumerate(value)])
        else:
            yield path, value
