"""The nodes inside values, and the order in which a graph of nodes has to be computed.

Reads no disk: whether to go below a node is the caller's decision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from furu.errors import FuruCycleError, FuruUsageError
from furu.identity import MAX_DEPTH, Identified, all_fields, canonical_form

N = TypeVar("N", bound=Identified)
_LEAVES = frozenset({type(None), bool, int, float, str, bytes})


def nodes_within(values: Iterable[Any], kind: type[N]) -> list[N]:
    """Return the nodes of `kind` inside values, each once, in an order that no hash seed changes.

    Looks into lists, tuples, dicts (keys too), sets, dataclasses, msgspec structs and registered
    foreign types; does not look into the nodes that it finds. Raises `FuruUsageError` for a
    container that holds itself.
    """
    found: dict[str, N] = {}
    pending = [iter(values)]
    while pending:
        for value in pending[-1]:
            if type(value) in _LEAVES:
                continue
            value = canonical_form(value)
            if isinstance(value, kind):
                found.setdefault(value._furu_hash, value)
            elif (inside := _contents(value, kind)) is not None:
                pending.append(inside)
                break
        else:
            pending.pop()
        if len(pending) > MAX_DEPTH + 1:  # the values themselves are at depth 0
            raise FuruUsageError(
                f"a value is nested deeper than {MAX_DEPTH} levels; does a container hold itself?"
            )
    return list(found.values())


def _contents(value: Any, kind: type[N]) -> Iterator[Any] | None:
    if isinstance(value, (list, tuple)):
        return iter(value)
    if isinstance(value, dict):
        return iter([part for pair in value.items() for part in pair])
    if isinstance(value, (set, frozenset)):  # iterates as the hash seed falls: put in order
        return iter(sorted(nodes_within(value, kind), key=lambda node: node._furu_hash))
    fields = all_fields(value)
    return None if fields is None else iter(fields.values())


def postorder(root: N, below: Callable[[N], Iterable[N] | None]) -> Iterator[N]:
    """Yield the nodes at and under `root`, each after everything under it, without recursion.

    `below(node)` returns what to go down into first, or None for a node that is not to be yielded: it
    is known, or done. It is called once a visit, before anything under the node is visited.

    Raises `FuruCycleError` where a node is reached again from below itself.
    """
    first = below(root)
    if first is None:
        return
    path: dict[str, N] = {root._furu_hash: root}
    branches = [iter(first)]
    while branches:
        for node in branches[-1]:
            if node._furu_hash in path:
                raise _cycle(list(path.values()), node)
            under = below(node)
            if under is not None:
                path[node._furu_hash] = node
                branches.append(iter(under))
                break
        else:
            branches.pop()
            yield path.popitem()[1]


def _cycle(path: list[N], again: N) -> FuruCycleError:
    start = next(i for i, node in enumerate(path) if node._furu_hash == again._furu_hash)
    cycle = [*path[start:], again]
    shown = cycle if len(cycle) <= 12 else [*cycle[:6], None, *cycle[-5:]]
    arrows = "\n  -> ".join("..." if node is None else repr(node) for node in shown)
    return FuruCycleError(
        f"these nodes depend on each other in a circle:\n     {arrows}\n"
        "Remove one of these dependencies (look at the _dependencies() of these classes).",
        cycle=cycle,
    )
