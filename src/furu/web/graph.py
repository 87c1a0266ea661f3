"""The graph under a run's roots, as plain values to show. Starts nothing; computes nothing.

It asks nodes what they depend on, which may run their classes' `_dependencies` and read input files, so
a running loop does it in a thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from furu.core import Furu, dependencies
from furu.dependencies import postorder
from furu.origin import class_name

# Beyond this a page with every node is of no use to people.
MAX_GRAPH_NODES = 20_000


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
    """The nodes under some roots, each after what it depends on. `is_cut`: there are more."""

    nodes: tuple[GraphNode, ...]
    is_cut: bool

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


def walk_graph(roots: Iterable[Furu[Any]], max_nodes: int = MAX_GRAPH_NODES) -> Graph:
    """Return the graph at and under `roots`, of at most `max_nodes` nodes.

    Raises `FuruCycleError`, and what the nodes' own `_dependencies` raise.
    """
    known: dict[str, int] = {}
    below_of: dict[str, tuple[str, ...]] = {}
    nodes: list[GraphNode] = []
    is_cut = False

    def below(node: Furu[Any]) -> list[Furu[Any]] | None:
        nonlocal is_cut
        if node.furu_hash in below_of:
            return None
        if len(below_of) >= max_nodes:
            is_cut = True
            return None
        found = dependencies(node)
        below_of[node.furu_hash] = tuple([one.furu_hash for one in found])
        return found

    for root in roots:
        for node in postorder(root, below):
            depends_on = below_of[node.furu_hash]
            level = 1 + max((known[key] for key in depends_on if key in known), default=-1)
            known[node.furu_hash] = level
            nodes.append(GraphNode(node.furu_hash, class_name(type(node)), level, depends_on))
    return Graph(tuple(nodes), is_cut)


def _others(node_class: str, nodes: list[GraphNode], class_of: dict[str, str]) -> tuple[str, ...]:
    needed = {class_of[key] for node in nodes for key in node.depends_on if key in class_of}
    return tuple(sorted(needed - {node_class}))
