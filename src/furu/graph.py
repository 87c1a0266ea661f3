"""The graph of some roots and everything they depend on: a walk over the graph, and its nodes and classes
as plain values.

A walk calls `_dependencies` of the nodes, which may read files. So async code must walk in a thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from furu.events import class_labels
from furu.node.base import Node, class_name_of
from furu.node.dependencies import ClassNames, Dependencies, dependencies, postorder

__all__ = ["UNNEEDED", "ClassNode", "Graph", "GraphNode", "make_graph", "walk"]

# The state of a node that a run does not need, for example because all its dependents were reused.
UNNEEDED = "unneeded"


@dataclass(frozen=True, slots=True)
class GraphNode:
    """A node of class ``module:Class``. `level` is the length of its longest chain of dependencies."""

    hash: str
    node_class: str
    level: int
    depends_on: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClassNode:
    """All nodes of one class in a graph. `depends_on` names the other classes that these nodes need."""

    node_class: str
    level: int
    hashes: tuple[str, ...]
    depends_on: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """Some roots and everything they depend on, dependencies first. If `is_cut`, some nodes were left out.

    `sources` maps each hash to its node; `roots` contains the hashes of the roots.
    """

    nodes: tuple[GraphNode, ...]
    is_cut: bool
    sources: Mapping[str, Node[Any]]
    roots: frozenset[str]

    def labels(self) -> dict[str, str]:
        """Return a label for each class: its name, or ``module:Class`` if two classes share the name."""
        return class_labels({node.node_class for node in self.nodes})

    def by_class(self) -> tuple[ClassNode, ...]:
        """Return the classes, sorted by level."""
        members: dict[str, list[GraphNode]] = {}
        class_of = {node.hash: node.node_class for node in self.nodes}
        for node in self.nodes:
            members.setdefault(node.node_class, []).append(node)
        classes = [
            ClassNode(
                node_class,
                max(node.level for node in nodes),
                tuple(node.hash for node in nodes),
                _other_classes(node_class, nodes, class_of),
            )
            for node_class, nodes in members.items()
        ]
        return tuple(sorted(classes, key=lambda cls: (cls.level, cls.node_class)))

    def states(self, known: Mapping[str, str], *, is_finished: bool) -> dict[str, str]:
        """Return the state of every node: its state in `known`, or else ``unneeded`` or ``pending``.

        A node without a known state is ``unneeded`` if all its dependents are reused or unneeded, or if the
        run has finished. Otherwise the node is ``pending``.
        """
        states: dict[str, str] = {}
        wanted = set(self.roots)
        for node in reversed(self.nodes):  # dependents first
            state = known.get(node.hash)
            if state is None:
                state = "pending" if node.hash in wanted and not is_finished else UNNEEDED
            states[node.hash] = state
            if state not in ("reused", UNNEEDED):
                wanted.update(node.depends_on)
        return states


def walk(
    roots: Iterable[Node[Any]], max_nodes: int | None = None
) -> Iterator[tuple[Node[Any], Dependencies]]:
    """Yield each node of the graph of `roots` once, after its dependencies, together with them.

    At most `max_nodes` nodes are yielded. Raises `FuruCycleError`; `FuruUsageError` if two classes share a
    name; `FuruError` if a node's `_dependencies` raises.
    """
    known: dict[str, Dependencies] = {}

    def expand(node: Node[Any]) -> Dependencies | None:
        if node.furu_hash in known or len(known) == max_nodes:
            return None
        below = known[node.furu_hash] = dependencies(node)
        return below

    classes = ClassNames()
    for root in roots:
        for node in postorder(root, expand, classes):
            yield node, known[node.furu_hash]


def make_graph(roots: Iterable[Node[Any]], max_nodes: int | None = None) -> Graph:
    """Return the graph of `roots`, with at most `max_nodes` nodes. Raises the same errors as `walk`."""
    roots = tuple(roots)
    root_hashes = frozenset(root.furu_hash for root in roots)
    levels: dict[str, int] = {}
    nodes: list[GraphNode] = []
    sources: dict[str, Node[Any]] = {}
    for node, below in walk(roots, max_nodes):
        key = node.furu_hash
        depends_on = tuple([dependency.furu_hash for dependency in below])
        levels[key] = 1 + max((levels[other] for other in depends_on if other in levels), default=-1)
        sources[key] = node
        nodes.append(GraphNode(key, class_name_of(node), levels[key], depends_on))
    named = root_hashes.union(*(node.depends_on for node in nodes))
    return Graph(tuple(nodes), len(named) > len(nodes), sources, root_hashes)


def _other_classes(node_class: str, nodes: list[GraphNode], class_of: dict[str, str]) -> tuple[str, ...]:
    needed = {class_of[key] for node in nodes for key in node.depends_on if key in class_of}
    return tuple(sorted(needed - {node_class}))
