"""Nodes and graphs for tests, and a record of the nodes that were computed."""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from furu import Furu


class Computed:
    """The names of computed nodes, in the order in which they started. Shared by the threads of a run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.order: list[str] = []

    def add(self, name: str) -> None:
        with self._lock:
            self.order.append(name)

    def counts(self) -> Counter[str]:
        return Counter(self.order)


computed = Computed()
# What a node does in its `_create`, by the node's name: for example, raise or block.
actions: dict[str, Callable[[], object]] = {}


@contextmanager
def recording() -> Iterator[Computed]:
    """Start with an empty record and without actions; clear the actions after the block."""
    computed.order.clear()
    actions.clear()
    try:
        yield computed
    finally:
        actions.clear()


class Node(Furu[int]):
    """Counts the dependency paths that begin at this node, and records that it was computed."""

    name: str
    below: tuple[Furu[int], ...] = ()
    kind: str = dataclasses.field(default="default", compare=False)

    def _executor_spec_key(self) -> str:
        return self.kind

    def _create(self) -> int:
        computed.add(self.name)
        if self.name in actions:
            actions[self.name]()
        return 1 + sum(node.get() for node in self.below)


class AsyncNode(Furu[int]):
    """Like `Node`, but computed on the event loop."""

    name: str
    below: tuple[Furu[int], ...] = ()

    async def _create(self) -> int:
        computed.add(self.name)
        if self.name in actions:
            result: Any = actions[self.name]()
            if result is not None:
                await result
        return 1 + sum([await node.aget() for node in self.below])


def chain(length: int) -> Node:
    """Make a chain: n0 <- n1 <- n2 ..."""
    node = Node(name="n0")
    for number in range(1, length):
        node = Node(name=f"n{number}", below=(node,))
    return node


def diamond() -> Node:
    """
     top
    /   \\
    left right
    \\   /
     base
    """
    base = Node(name="base")
    left, right = Node(name="left", below=(base,)), Node(name="right", below=(base,))
    return Node(name="top", below=(left, right))


def flat(width: int) -> list[Node]:
    """Make `width` nodes that do not depend on each other."""
    return [Node(name=f"f{number}") for number in range(width)]


def from_edges(graph: list[list[int]], *, asynchronous: frozenset[int] = frozenset()) -> list[Any]:
    """Make a node for each list in `graph`. A list has the numbers of its node's dependencies."""
    nodes: list[Any] = []
    for number, below in enumerate(graph):
        cls = AsyncNode if number in asynchronous else Node
        nodes.append(cls(name=f"r{number}", below=tuple(nodes[i] for i in below)))
    return nodes
