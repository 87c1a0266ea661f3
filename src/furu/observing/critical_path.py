"""The critical path: the chain of dependent nodes that takes longest. More workers do not shorten it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from furu.report import NAMED, NodeTime

__all__ = ["NO_CHAIN", "Chain", "CriticalPath", "add_slowest", "longest_chain"]

# How many chains to nodes that are done are kept. Discovery usually finds a dependent soon after its
# dependencies, so a dropped chain is rarely needed.
REMEMBERED_NODES = 4096


def longest_chain(nodes: Iterable[tuple[str, Iterable[str], float]]) -> tuple[float, list[str]]:
    """Return the duration of the longest chain in seconds, and the keys of its nodes, last node first.

    Each node is ``(key, depends_on, seconds)`` and must come after its dependencies. Keys in `depends_on`
    that are not among the nodes count as done.
    """
    length: dict[str, float] = {}
    before: dict[str, str | None] = {}
    for key, depends_on, sec in nodes:
        last = max((below for below in depends_on if below in length), key=length.__getitem__, default=None)
        before[key] = last
        length[key] = sec if last is None else length[last] + sec
    end = max(length, key=length.__getitem__, default=None)
    total_sec = 0.0 if end is None else length[end]
    chain: list[str] = []
    while end is not None:
        chain.append(end)
        end = before[end]
    return total_sec, chain


class Chain(NamedTuple):
    """The longest chain of computed nodes that ends with a given node: its duration and slowest nodes."""

    total_sec: float
    slowest: tuple[NodeTime, ...]


NO_CHAIN = Chain(0.0, ())


class CriticalPath:
    """Computes the critical path of a run while its plan grows. `longest` is the longest chain so far.

    Keeps the longest chain to the dependencies of each planned node. Also keeps the chains to the nodes
    that were computed last, because a node that is found later may depend on them.
    """

    def __init__(self) -> None:
        self.longest = NO_CHAIN
        self._before: dict[str, Chain] = {}  # only of nodes with a dependency that this run computed
        self._done: dict[str, Chain] = {}
        self._done_keys: deque[str] = deque()

    def found(self, key: str, depends_on: Iterable[str]) -> None:
        """Record the dependencies of a planned node."""
        if self._done:
            for dependency in depends_on:
                if (chain := self._done.get(dependency)) is not None:
                    self._lead(chain, key)

    def computed(self, key: str, name: str, duration_sec: float, dependents: Iterable[str]) -> None:
        """Record a computed node of the class `name`, and the planned nodes that depend on it."""
        before = self._before.pop(key, NO_CHAIN)
        slowest = add_slowest(before.slowest, key, name, duration_sec)
        chain = Chain(before.total_sec + duration_sec, slowest)
        if chain.total_sec > self.longest.total_sec:
            self.longest = chain
        for dependent in dependents:
            self._lead(chain, dependent)
        self._remember(key, chain)

    def gone(self, key: str) -> None:
        """Forget a node that will not be computed by this run."""
        self._before.pop(key, None)

    def _lead(self, chain: Chain, key: str) -> None:
        if chain.total_sec >= self._before.get(key, NO_CHAIN).total_sec:
            self._before[key] = chain

    def _remember(self, key: str, chain: Chain) -> None:
        if key not in self._done:
            self._done_keys.append(key)
        self._done[key] = chain
        if len(self._done_keys) > REMEMBERED_NODES:
            del self._done[self._done_keys.popleft()]


def add_slowest(
    slowest: tuple[NodeTime, ...], key: str, name: str, duration_sec: float
) -> tuple[NodeTime, ...]:
    """Return the `NAMED` slowest of the nodes in `slowest` and another node. If the other node is not among
    them, returns `slowest` itself, so that chains share the tuple."""
    if len(slowest) == NAMED and duration_sec <= slowest[-1].duration_sec:
        return slowest
    node = NodeTime(key, name, duration_sec)
    return tuple(sorted((*slowest, node), key=lambda node: -node.duration_sec)[:NAMED])
