"""The critical path: the chain of dependent nodes that takes longest. More workers do not shorten it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import NamedTuple

from furu.events import NodePlanned
from furu.report import NAMED, NodeTime

__all__ = ["CriticalPath", "add_slowest", "longest_chain"]

# How many chains to nodes without known dependents are kept. Discovery usually finds a dependent soon after
# its dependencies, so a dropped chain is rarely needed.
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


_NO_CHAIN = Chain(0.0, ())


class CriticalPath:
    """Computes the critical path of a run while its plan grows. `longest` is the longest chain so far.

    The dependencies of a node are kept until the node is done. The longest chain to a node is kept while
    planned nodes depend on the node. If no dependent is known when the node is done, the chain is kept for
    a while, because dependents may be found later.
    """

    def __init__(self) -> None:
        self.longest = _NO_CHAIN
        self._depends_on: dict[str, tuple[str, ...]] = {}
        self._dependents: Counter[str] = Counter()  # the number of planned dependents of a node
        self._chains: dict[str, Chain] = {}
        self._recent: deque[str] = deque()

    def planned(self, event: NodePlanned) -> None:
        """Record the dependencies of a planned node."""
        if event.depends_on and event.hash not in self._depends_on:
            self._depends_on[event.hash] = event.depends_on
            self._dependents.update(event.depends_on)

    def done(self, node: NodeTime) -> None:
        """Add a computed node, in time proportional to the number of its dependencies."""
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
        """Forget the dependencies of a node that is done, has failed or was reused."""
        for key in self._depends_on.pop(node_hash, ()):
            self._dependents[key] -= 1
            if not self._dependents[key]:
                del self._dependents[key]
                self._chains.pop(key, None)

    def _remember(self, key: str) -> None:
        """Keep the chain to a node without known dependents, and drop the oldest such chain if there are
        too many."""
        self._recent.append(key)
        if len(self._recent) > REMEMBERED_NODES:
            oldest = self._recent.popleft()
            if oldest not in self._dependents:
                self._chains.pop(oldest, None)


def add_slowest(slowest: tuple[NodeTime, ...], node: NodeTime) -> tuple[NodeTime, ...]:
    """Return the `NAMED` slowest of the nodes in `slowest` and `node`. If `node` is not among them, returns
    `slowest` itself, so that chains share the tuple."""
    if len(slowest) == NAMED and node.duration_sec <= slowest[-1].duration_sec:
        return slowest
    return tuple(sorted((*slowest, node), key=lambda node: -node.duration_sec)[:NAMED])
