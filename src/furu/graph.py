"""The graph under a run's roots, as plain values to show. Starts nothing; computes nothing.

It calls the classes' `_dependencies`, which may read input files, so a running loop does it in a thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from furu._common.origin import class_name
from furu.node.base import Node
from furu.node.dependencies import dependencies, postorder

# A page with more nodes than this does not help people.
MAX_GRAPH_NODES = 20_000
# The state of a node that a run did not look at, because what depends on it was reused.
UNNEEDED = "unneeded"


@dataclass(frozen=True, slots=True)
class GraphNode:
    """A node, its class as ``module:Class``, and how many nodes at most lie below it in a row."""

    hash: str
    node_class: str
    level: int
    depends_on: tuple[str, ...]

    @property
    def name(self) -> str:
        """The class without its module."""
        return self.node_class.rpartition(":")[2]


@dataclass(frozen=True, slots=True)
class ClassNode:
    """All nodes of one class in a graph; `depends_on` names the other classes that they need."""

    node_class: str
    level: int
    hashes: tuple[str, ...]
    depends_on: tuple[str, ...]

    @property
    def name(self) -> str:
        """The class without its module."""
        return self.node_class.rpartition(":")[2]


@dataclass(frozen=True, slots=True)
class Graph:
    """The nodes under some roots, each after what it depends on. `is_cut`: there are more.

    `sources` has the nodes themselves by hash; `roots` are the hashes of the roots.
    """

    nodes: tuple[GraphNode, ...]
    is_cut: bool
    sources: Mapping[str, Node[Any]]
    roots: frozenset[str]

    def by_class(self) -> tuple[ClassNode, ...]:
        """Return the classes, those that come first in a run first."""
        members: dict[str, list[GraphNode]] = {}
        class_of = {node.hash: node.node_class for node in self.nodes}
        for node in self.nodes:
            members.setdefault(node.node_class, []).append(node)
        found = [
            ClassNode(
                node_class,
                max(node.level for node in nodes),
                tuple(node.hash for node in nodes),
                _others(node_class, nodes, class_of),
            )
            for node_class, nodes in members.items()
        ]
        return tuple(sorted(found, key=lambda one: (one.level, one.node_class)))

    def states(self, known: Mapping[str, str], *, is_finished: bool) -> dict[str, str]:
        """Return the state of every node: that in `known`, ``unneeded`` if all that depends on the node was
        reused (or the run has finished without it), else ``pending``."""
        found: dict[str, str] = {}
        wanted = set(self.roots)
        for node in reversed(self.nodes):  # those that depend on a node come before it
            state = known.get(node.hash)
            if state is None:
                state = "pending" if node.hash in wanted and not is_finished else UNNEEDED
            found[node.hash] = state
            if state not in ("reused", UNNEEDED):
                wanted.update(node.depends_on)
        return found


def walk_graph(roots: Iterable[Node[Any]], max_nodes: int = MAX_GRAPH_NODES) -> Graph:
    """Return the graph at and under `roots`, of at most `max_nodes` nodes.

    Raises `FuruCycleError`, and what the nodes' own `_dependencies` raise.
    """
    known: dict[str, int] = {}
    below_of: dict[str, tuple[str, ...]] = {}
    sources: dict[str, Node[Any]] = {}
    nodes: list[GraphNode] = []
    is_cut = False

    def below(node: Node[Any]) -> list[Node[Any]] | None:
        nonlocal is_cut
        if node.furu_hash in below_of:
            return None
        if len(below_of) >= max_nodes:
            is_cut = True
            return None
        found = dependencies(node)
        below_of[node.furu_hash] = tuple([one.furu_hash for one in found])
        return found

    wanted = tuple(roots)
    for root in wanted:
        for node in postorder(root, below):
            depends_on = below_of[node.furu_hash]
            level = 1 + max((known[key] for key in depends_on if key in known), default=-1)
            known[node.furu_hash] = level
            sources[node.furu_hash] = node
            nodes.append(GraphNode(node.furu_hash, class_name(type(node)), level, depends_on))
    return Graph(tuple(nodes), is_cut, sources, frozenset(root.furu_hash for root in wanted))


def _others(node_class: str, nodes: list[GraphNode], class_of: dict[str, str]) -> tuple[str, ...]:
    needed = {class_of[key] for node in nodes for key in node.depends_on if key in class_of}
    return tuple(sorted(needed - {node_class}))
