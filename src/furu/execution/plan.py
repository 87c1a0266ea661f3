"""Decides which nodes may start. Pure bookkeeping on keys: no disk, no clock, no threads.

    add ──> BLOCKED <──> READY ──> STARTED ──> done: leaves the plan
               │           ^          │
               │           └──────────┤ WAITING: another owner computes the node, or it is retried later
               └──> lost <────────────┘ failed, or one of its dependencies failed

The plan counts the in-degree of each node, so an event costs only its node's degree, and nothing is
searched. A node is added after all its dependencies, and leaves the plan when it is done. So a dependency
that is neither in the plan nor lost is done.

Workers in serial mode compute one job after another. A node in their queue may be *presumed* done, so that
its dependents can be queued behind it before it has finished. If the node fails, `withdraw` cancels all
presumptions.

Ready nodes start in the order in which they were added. With `by_rank`, the node with the longest chain of
dependents starts first. The length of a chain is the sum of its nodes' weights: this is the upward rank of
HEFT (Topcuoglu, Hariri and Wu 2002). Ranks change while the plan grows, so they are computed again whenever
the nodes that were added since the last computation make up half of the plan.
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

import msgspec

from furu.errors import FuruError

Lane = TypeVar("Lane", bound=Hashable)


class State(enum.Enum):
    """The state of a node in the plan."""

    BLOCKED = "blocked"
    READY = "ready"
    STARTED = "started"
    WAITING = "waiting"

    # Faster than the hash of `enum.Enum`, which is written in Python. The plan counts states in a dict.
    __hash__ = object.__hash__


# Up to this many dependents are kept in a tuple, which Python's cyclic collector does not visit.
_FEW = 16


class _Entry(msgspec.Struct, Generic[Lane], gc=False):  # there may be a million, and none is in a cycle
    order: int
    lane: Lane
    weight: float
    rank: float = 0.0
    state: State = State.BLOCKED
    in_degree: int = 0
    # The number of dependencies that are presumed done. The in-degree does not include them.
    presumed: int = 0
    # Whether the node goes on if dependencies are lost.
    tolerates: bool = False
    dependents: tuple[str, ...] | list[str] = ()

    def add_dependent(self, key: str) -> None:
        if isinstance(self.dependents, list):
            self.dependents.append(key)
        elif len(self.dependents) < _FEW:
            self.dependents = (*self.dependents, key)
        else:
            self.dependents = [*self.dependents, key]


class Plan(Generic[Lane]):
    """The nodes that are known but not done. The plan decides which of them may start.

    Ready nodes start in the order in which they were added or, with `by_rank`, in the order of their ranks.
    Each node has a *lane*: the kind of worker that it needs. A lane without room does not delay others.
    """

    def __init__(self, *, by_rank: bool = False) -> None:
        self._entries: dict[str, _Entry[Lane]] = {}
        # Heaps of (-rank, order, key). Keys that are no longer ready are dropped when they reach the top.
        self._ready: dict[Lane, list[tuple[float, int, str]]] = {}
        self._by_rank = by_rank
        self._unranked = 0
        self._presumed: dict[str, None] = {}
        self._lost: set[str] = set()
        self._next_order = 0
        self._counts = dict.fromkeys(State, 0)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def count(self, state: State) -> int:
        """Return the number of nodes in a state."""
        return self._counts[state]

    def is_lost(self, key: str) -> bool:
        """Return whether a node has failed or depends on a failed node."""
        return key in self._lost

    def add(
        self,
        key: str,
        lane: Lane,
        depends_on: Iterable[str],
        weight: float = 1.0,
        *,
        tolerates: bool = False,
    ) -> list[str]:
        """Add a node, after all its dependencies. `depends_on` contains each dependency once; a key that is
        not in the plan counts as done. `weight` is the node's expected duration. If the node `tolerates`
        lost dependencies, they count as done too.

        A WAITING node may be added again: it keeps its order and its dependents. If a dependency is lost,
        the node and all nodes that depend on it are lost too. Returns the keys of the lost nodes.
        """
        entry = self._entries.get(key)
        if entry is not None and entry.state is not State.WAITING:
            raise FuruError(f"{key} is in the plan already, {entry.state.value}")
        awaited: list[_Entry[Lane]] = []
        presumed = 0
        for dependency in depends_on:
            below = self._entries.get(dependency)
            if below is not None:
                awaited.append(below)
                presumed += dependency in self._presumed
            elif dependency in self._lost and not tolerates:
                return [key, *self.failed(key)]
        if entry is None:
            entry = self._enter(key, lane, weight)
        else:
            entry.lane, entry.weight = lane, weight
        entry.tolerates = tolerates
        for below in awaited:
            below.add_dependent(key)
        entry.in_degree = len(awaited) - presumed
        entry.presumed = presumed
        self._set(entry, State.BLOCKED)
        self._make_ready_if_free(key, entry)
        return []

    def add_waiting(self, key: str, lane: Lane) -> None:
        """Add a node that another owner is computing. The node needs no worker, but its dependents wait."""
        self._set(self._enter(key, lane, 0.0), State.WAITING)

    def get_ready(self, may_start: Callable[[Lane, bool], bool]) -> str | None:
        """Mark the first ready node whose lane has room as STARTED, and return its key. Returns None if
        there is no such node.

        `may_start(lane, presuming)` returns whether the lane has room for a node. `presuming` means that
        some dependencies of the node are only presumed done.
        """
        if self._by_rank and self._unranked and 2 * self._unranked >= len(self._entries):
            self.rank()
        best: list[tuple[float, int, str]] | None = None
        for lane, heap in self._ready.items():
            while heap and not self._is_ready(heap[0][2]):
                heapq.heappop(heap)
            if not heap or (best is not None and best[0] < heap[0]):
                continue
            if may_start(lane, self._entries[heap[0][2]].presumed > 0):
                best = heap
        if best is None:
            return None
        key = heapq.heappop(best)[2]
        self._set(self._entries[key], State.STARTED)
        return key

    def rank(self) -> None:
        """Compute the ranks of all nodes, if the plan uses ranks. Visits each node and each edge once."""
        if not self._by_rank:
            return
        self._unranked = 0
        # In reverse, so that dependents come before dependencies. A node that was added again may come
        # after its dependencies. Their ranks are then too small, which only costs time.
        for entry in reversed(self._entries.values()):
            longest = max([above.rank for _, above in self._known(entry.dependents)], default=0.0)
            entry.rank = entry.weight + longest
        self._ready.clear()
        for key, entry in self._entries.items():
            if entry.state is State.READY:
                self._ready.setdefault(entry.lane, []).append((-entry.rank, entry.order, key))
        for heap in self._ready.values():
            heapq.heapify(heap)

    def presume_done(self, key: str) -> None:
        """Presume that a started node is done, so that its dependents can be queued behind it."""
        self._presumed[key] = None
        for dependent, entry in self._known(self._entry(key, State.STARTED).dependents):
            entry.in_degree -= 1
            entry.presumed += 1
            self._make_ready_if_free(dependent, entry)

    def withdraw(self, not_begun: Iterable[str]) -> None:
        """Cancel all presumptions. The started nodes in `not_begun` become ready or blocked again."""
        for key in self._presumed:
            for _, entry in self._known(self._entries[key].dependents):
                entry.in_degree += 1
                entry.presumed -= 1
                if entry.state is State.READY:
                    self._set(entry, State.BLOCKED)
        self._presumed.clear()
        for key in not_begun:
            entry = self._entry(key, State.STARTED)
            self._set(entry, State.BLOCKED)
            self._make_ready_if_free(key, entry)

    def done(self, key: str) -> list[str]:
        """Remove a started or waiting node that is done, and return the keys of its dependents. Those that
        waited only for this node become ready."""
        self._entry(key, State.STARTED, State.WAITING)
        presumed = key in self._presumed
        if presumed:
            del self._presumed[key]
        dependents: list[str] = []
        for dependent, entry in self._known(self._leave(key)):
            dependents.append(dependent)
            if presumed:
                entry.presumed -= 1
            else:
                entry.in_degree -= 1
                self._make_ready_if_free(dependent, entry)
        return dependents

    def path(self, key: str, goals: Iterable[str]) -> list[str]:
        """Return a path of dependents from a node to one of `goals`; empty if there is none. If the node is
        about to depend on the `goals`, the path closes a cycle."""
        wanted = set(goals)
        before: dict[str, str] = {key: key}
        pending = [key]
        while pending and not wanted.isdisjoint(self._entries):
            reached = pending.pop()
            if reached in wanted:
                path = [reached]
                while path[-1] != key:
                    path.append(before[path[-1]])
                return path[::-1]
            for dependent, _ in self._known(self._entries[reached].dependents):
                if dependent not in before:
                    before[dependent] = reached
                    pending.append(dependent)
        return []

    def waits(self, key: str) -> None:
        """Mark a started node as WAITING, for another owner, for a retry, or until it has been looked at
        again. The node must not be presumed done."""
        self._set(self._entry(key, State.STARTED), State.WAITING)

    def failed(self, key: str) -> list[str]:
        """Remove a failed node and all nodes that depend on it, except those that tolerate lost
        dependencies. Returns the keys of the removed dependents. The failed node need not be in the plan,
        but must not be presumed done."""
        self._lost.add(key)
        skipped: list[str] = []
        pending = list(self._leave(key)) if key in self._entries else []
        while pending:
            dependent = pending.pop()
            entry = self._entries.get(dependent)
            if entry is not None and entry.tolerates:
                entry.in_degree -= 1
                self._make_ready_if_free(dependent, entry)
            elif entry is not None:
                self._lost.add(dependent)
                skipped.append(dependent)
                pending.extend(self._leave(dependent))
        return skipped

    def in_state(self, state: State) -> list[str]:
        """Return the keys of the nodes in a state, in the order in which they were added. Slow, because it
        visits all nodes."""
        found = [key for key, entry in self._entries.items() if entry.state is state]
        return sorted(found, key=lambda key: self._entries[key].order)

    def _enter(self, key: str, lane: Lane, weight: float) -> _Entry[Lane]:
        if key in self._entries:
            raise FuruError(f"{key} is in the plan already")
        entry = self._entries[key] = _Entry(self._next_order, lane, weight)
        self._unranked += 1
        self._next_order += 1
        self._counts[entry.state] += 1
        return entry

    def _leave(self, key: str) -> Sequence[str]:
        entry = self._entries.pop(key)
        self._counts[entry.state] -= 1
        return entry.dependents

    def _known(self, keys: Iterable[str]) -> Iterator[tuple[str, _Entry[Lane]]]:
        """Yield the entries of dependents. Skips lost dependents, which have no entry."""
        for key in keys:
            if (entry := self._entries.get(key)) is not None:
                yield key, entry

    def _is_ready(self, key: str) -> bool:
        entry = self._entries.get(key)
        return entry is not None and entry.state is State.READY

    def _make_ready_if_free(self, key: str, entry: _Entry[Lane]) -> None:
        if entry.in_degree == 0 and entry.state is State.BLOCKED:
            self._set(entry, State.READY)
            heapq.heappush(self._ready.setdefault(entry.lane, []), (-entry.rank, entry.order, key))

    def _set(self, entry: _Entry[Lane], state: State) -> None:
        self._counts[entry.state] -= 1
        entry.state = state
        self._counts[state] += 1

    def _entry(self, key: str, *allowed: State) -> _Entry[Lane]:
        entry = self._entries.get(key)
        if entry is None or entry.state not in allowed:
            was = "not in the plan" if entry is None else entry.state.value
            raise FuruError(f"{key} is {was}, not {' or '.join(state.value for state in allowed)}")
        return entry
