"""The critical path: the longest chain of nodes that depend on each other, which no number of workers
shortens."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import NamedTuple

from furu.events import NodePlanned
from furu.report import NAMED, NodeTime

__all__ = ["CriticalPath", "add_slowest", "longest_chain"]

# The plan grows a few hundred nodes at a time: rarely does a new node depend on one done before this many.
REMEMBERED_NODES = 4096


def longest_chain(nodes: Iterable[tuple[str, Iterable[str], float]]) -> tuple[float, list[str]]:
    """Return the length of the longest chain in seconds, and the keys on it, the last one first.

    Each node is ``(key, depends_on, seconds)`` and comes after the nodes it depends on. Keys in
    `depends_on` that are not among the nodes count as done.
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
    """The longest chain of computed nodes that ends with a certain node, and its slowest nodes."""

    total_sec: float
    slowest: tuple[NodeTime, ...]


_NO_CHAIN = Chain(0.0, ())


class CriticalPath:
    """Follows a run whose plan grows while nodes run. `longest` is the longest chain so far.

    Keeps the dependencies of a node until it is done, and the chain to a node as long as a planned node
    depends on it, or one that is found soon may.
    """

    def __init__(self) -> None:
        self.longest = _NO_CHAIN
        self._depends_on: dict[str, tuple[str, ...]] = {}
        self._dependents: Counter[str] = Counter()  # those that are planned and not done
        self._chains: dict[str, Chain] = {}
        self._recent: deque[str] = deque()

    def planned(self, event: NodePlanned) -> None:
        """Note what a node depends on."""
        if event.depends_on and event.hash not in self._depends_on:
            self._depends_on[event.hash] = event.depends_on
            self._dependents.update(event.depends_on)

    def done(self, node: NodeTime) -> None:
        """Add a computed node. Costs its degree."""
        chains = [self._chains.get(key, _NO_CHAIN) for key in self._depends_on.get(node.hash, ())]
        before = max(chains, key=lambda chain: chain.total_sec, default=_NO_CHAIN)
        chain = Chain(before.total_sec + node.duration_sec, add_slowest(before.slowest, node))
        if chain.total_sec > self.longest.total_sec:
            self.longest = chain
        self._chains[node.hash] = chain
        if node.hash not in self._dependents:
            self._remember(node.hash)
        self.gone(node.hash)

    def gone(self, node_hash: str) -> None:
        """Forget the dependencies of a node that is done, failed, or need not be computed."""
        for key in self._depends_on.pop(node_hash, ()):
            self._dependents[key] -= 1
            if not self._dependents[key]:
                del self._dependents[key]
                self._chains.pop(key, None)

    def _remember(self, key: str) -> None:
        """Keep for a while the chain to a node without known dependents."""
        self._recent.append(key)
        if len(self._recent) > REMEMBERED_NODES:
            oldest = self._recent.popleft()
            if oldest not in self._dependents:
                self._chains.pop(oldest, None)


def add_slowest(slowest: tuple[NodeTime, ...], node: NodeTime) -> tuple[NodeTime, ...]:
    """Return the `NAMED` slowest of some nodes and one more. Returns the same tuple if nothing changes, so
    that chains share what they have in common."""
    if len(slowest) == NAMED and node.duration_sec <= slowest[-1].duration_sec:
        return slowest
    return tuple(sorted((*slowest, node), key=lambda node: -node.duration_sec)[:NAMED])
