"""Search for nodes inside values, and the order in which the nodes of a graph are computed.

This module does not read the store: the caller decides whether to visit a node's dependencies.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

from furu._common.origin import place
from furu._common.shapes import field_values
from furu._common.text import a_type, shown
from furu.errors import FuruCycleError, FuruMissingArtifactError, FuruUsageError
from furu.node.base import Node, describe, overrides
from furu.node.hooks import ask_dependencies
from furu.node.identity import MAX_DEPTH, canonical_form
from furu.node.names import Identified, stored_name
from furu.node.questions import Question

N = TypeVar("N", bound=Identified)
_LEAVES = frozenset({type(None), bool, int, float, str, bytes})
_NO_VALUE = object()


def nodes_within(values: Iterable[Any], kind: type[N]) -> list[N]:
    """Return the nodes of `kind` inside values, each once, in an order that does not depend on the hash
    seed.

    Searches lists, tuples, dicts (keys too), sets, objects with fields and values of registered types, but
    not the fields of the nodes that it finds. Raises `FuruUsageError` if a container contains itself, or if
    nodes of different classes have the same hash.
    """
    found: dict[str, N] = {}
    pending = [iter(values)]
    while pending:
        for value in pending[-1]:
            if type(value) in _LEAVES:
                continue
            if not isinstance(value, kind):
                value = canonical_form(value)
            if isinstance(value, kind):
                known = found.setdefault(value._furu_hash, value)
                if type(known) is not type(value):
                    raise _two_classes(type(known), type(value))
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
    if isinstance(value, (set, frozenset)):  # the order of a set depends on the hash seed
        return iter(sorted(nodes_within(value, kind), key=lambda node: node._furu_hash))
    fields = field_values(value)
    return None if fields is None else iter(fields.values())


class ClassNames:
    """The classes of a graph's nodes. Detects two classes with the same full name, which would share
    artifacts."""

    def __init__(self) -> None:
        self._classes: set[type] = set()
        self._by_name: dict[str, type] = {}

    def add(self, node: Identified) -> None:
        """Add a node's class. Raises `FuruUsageError` if another class in the graph has the same name."""
        cls = type(node)
        if cls in self._classes:
            return
        other = self._by_name.setdefault(stored_name(cls), cls)
        if other is not cls:
            raise _two_classes(other, cls)
        self._classes.add(cls)


def _two_classes(one: type, other: type) -> FuruUsageError:
    return FuruUsageError(
        f"two classes in one graph are called {stored_name(one)}, and their nodes would share artifacts: "
        f"one is defined in {place(one)}, the other in {place(other)}. Give them different names. If the "
        "class was defined again (a notebook cell, a reload), make the nodes of the old class again."
    )


def postorder(
    root: N,
    below: Callable[[N], Iterable[N] | None],
    classes: ClassNames | None = None,
    known: Container[str] = (),
) -> Iterator[N]:
    """Yield `root` and everything it depends on in post-order: each node after its dependencies.

    `below(node)` returns the dependencies to visit before `node`, or None to skip `node`. It may return a
    generator, which continues when the caller has received the nodes that it yielded before. The walk calls
    `below` each time that it reaches `node`, unless the node's hash is in `known`. Pass the same `classes`
    to all walks over parts of one graph. The walk does not recurse, so that it works for long chains of
    nodes.

    Raises `FuruCycleError` if a node depends on itself, directly or through other nodes, and
    `FuruUsageError` if two classes have the same name.
    """
    classes = ClassNames() if classes is None else classes
    path: dict[str, N] = {}
    branches = [iter((root,))]
    while branches:
        # This runs for every edge of the graph, and most edges lead to known nodes.
        for node in branches[-1]:
            key = node._furu_hash
            classes.add(node)
            if key in path:
                raise cycle_error(list(path.values()), node)
            if key not in known and (under := below(node)) is not None:
                path[key] = node
                branches.append(iter(under))
                break
        else:
            branches.pop()
            if path:
                yield path.popitem()[1]


def cycle_error(path: Sequence[N], again: N) -> FuruCycleError:
    """Return the error for a path of nodes that leads to one of them `again`."""
    start = next(i for i, node in enumerate(path) if node._furu_hash == again._furu_hash)
    cycle = [*path[start:], again]
    listed = cycle if len(cycle) <= 12 else [*cycle[:6], None, *cycle[-5:]]
    arrows = "\n  -> ".join("..." if node is None else shown(node) for node in listed)
    return FuruCycleError(
        f"these nodes depend on each other in a circle:\n     {arrows}\n"
        "Remove one of these dependencies (look at the _dependencies() of these classes).",
        cycle=cycle,
    )


class Dependencies(list[Node[Any]]):
    """The known dependencies of a node, each once. If `_dependencies()` has asked for values of nodes that
    are not done, these are `awaited`, and there may be more dependencies once they are done, or have failed
    if they `may_fail`. Nodes whose failures it has accepted are not among the dependencies."""

    awaited: tuple[Node[Any], ...] = ()
    may_fail: bool = False


def dependencies(
    node: Node[Any],
    is_replaced: Callable[[Node[Any]], bool] | None = None,
    failures: Mapping[str, str] = MappingProxyType({}),
) -> Dependencies:
    """Return a node's dependencies: nodes in its fields, then nodes from `_dependencies()`, and those whose
    values `_dependencies()` has looked at. It does not read values of nodes that are `is_replaced`.
    `failures` are those of this run, by hash.

    Raises `FuruError` if `_dependencies()` raises.
    """
    fields = [getattr(node, name, _NO_VALUE) for name in type(node)._facts.field_names]
    values = [value for value in fields if value is not _NO_VALUE]
    if not overrides(type(node), "_dependencies"):
        return Dependencies(nodes_within(values, Node))
    question = Question(node, is_replaced, failures)
    added = ask_dependencies(node, question)
    for item in added:
        if not isinstance(item, Node):
            raise FuruUsageError(
                f"{describe(node)}._dependencies() returned {a_type(item)} among the nodes: {shown(item)}"
            )
    looked_at = (*question.awaited.values(), *question.seen.values())
    named = nodes_within([*values, *added, *looked_at], Node)
    found = Dependencies([one for one in named if one._furu_hash not in question.failed])
    found.awaited, found.may_fail = tuple(question.awaited.values()), question.may_fail
    return found


def growing_dependencies(
    node: Node[Any], try_all: Callable[[Iterable[Node[Any]]], Mapping[str, str]]
) -> Iterator[Node[Any]]:
    """Yield a node's dependencies for a caller that computes each of them before it asks for the next.
    `try_all` computes those that may fail, and returns their failures by hash.

    Asks `_dependencies()` again whenever the nodes that it awaited are done. Raises the same errors as
    `dependencies`, and `FuruMissingArtifactError` if a node is computed and still not done.
    """
    failures: dict[str, str] = {}
    found = dependencies(node, None, failures)
    while True:
        yield from (one for one in found if not (found.may_fail and one in found.awaited))
        if not found.awaited:
            return
        if found.may_fail:
            failures.update(try_all(found.awaited))
        before = {awaited._furu_hash for awaited in found.awaited}
        found = dependencies(node, None, failures)
        refuse_lost_values(node, found, before)


def refuse_lost_values(node: Node[Any], found: Dependencies, done: Container[str]) -> None:
    """Raise `FuruMissingArtifactError` if `_dependencies()` awaits a node that was `done` a moment ago.
    Asking it again would never end."""
    for awaited in found.awaited:
        if awaited._furu_hash in done:
            raise FuruMissingArtifactError(
                f"{describe(node)}._dependencies() asked for {describe(awaited)}, which was computed and "
                "is missing again: its _validate() rejects the artifact, or another program removed it",
                node=awaited,
                asked_by=node,
            )
