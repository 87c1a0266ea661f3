"""Which nodes may start. Pure bookkeeping on keys: no disk, no clock, no threads.

    add ──> BLOCKED <──> READY ──> STARTED ──> done: leaves the plan
               │           ^          │
               │           └──────────┤ WAITING: another owner computes it, or it will be retried later
               └──> lost <────────────┘ failed, or one of its dependencies failed

The plan counts in-degrees, so each event costs its node's degree and nothing is searched. A key that is not
in the plan is done: a node is added after all its dependencies, and leaves when it is done.

Workers that compute serially run one job after another. A node in their queue may be *presumed* done, so
that its dependents can follow it in the same queue before it has ended. If it fails, `withdraw` takes every
presumption back.

Ready nodes start in the order in which they were added. A plan that is `by_rank` starts the node first that
has the longest chain of dependents, by the nodes' weights: upward rank, as in HEFT (Topcuoglu, Hariri and
Wu 2002). Ranks change while the plan grows, so they are worked out again each time that it has grown by
half.
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

    # Every step counts states, and the hash of `enum.Enum` is written in Python.
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
    # How many dependencies are presumed done; they do not count in the in-degree.
    presumed: int = 0
    dependents: tuple[str, ...] | list[str] = ()

    def add_dependent(self, key: str) -> None:
        if isinstance(self.dependents, list):
            self.dependents.append(key)
        elif len(self.dependents) < _FEW:
            self.dependents = (*self.dependents, key)
        else:
            self.dependents = [*self.dependents, key]


class Plan(Generic[Lane]):
    """The nodes that are known but not done, and which of them may start.

    Ready nodes are taken in the order in which they were added, or `by_rank`. Each has a *lane*, the kind
    of worker it needs: a lane without room does not delay other lanes.
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
        """How many nodes are in a state."""
        return self._counts[state]

    def is_lost(self, key: str) -> bool:
        """Whether a node failed, or depends on a node that did."""
        return key in self._lost

    def add(self, key: str, lane: Lane, depends_on: Iterable[str], weight: float = 1.0) -> list[str]:
        """Add a node after all its dependencies, each named once. A key not in the plan counts as done.
        `weight` is how long the node is expected to take.

        A node that is waiting may be added again: it keeps its order and its dependents. If a dependency is
        lost, the node and everything that depends on it are lost too. Returns the keys of the lost nodes.
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
            elif dependency in self._lost:
                return [key, *self.failed(key)]
        if entry is None:
            entry = self._enter(key, lane, weight)
        else:
            entry.lane, entry.weight = lane, weight
        for below in awaited:
            below.add_dependent(key)
        entry.in_degree = len(awaited) - presumed
        entry.presumed = presumed
        self._set(entry, State.BLOCKED)
        self._make_ready_if_free(key, entry)
        return []

    def add_waiting(self, key: str, lane: Lane) -> None:
        """Add a node that another owner is computing: its dependents wait, but it needs no worker."""
        self._set(self._enter(key, lane, 0.0), State.WAITING)

    def get_ready(self, may_start: Callable[[Lane, bool], bool]) -> str | None:
        """Start the first ready node whose lane has room, and return its key; None if there is none.

        `may_start(lane, presuming)` returns whether the lane has room. `presuming` means that some
        dependencies of the node are only presumed done.
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
        """Work out the ranks of all nodes, if the plan is by rank. Costs a look at each node and edge."""
        if not self._by_rank:
            return
        self._unranked = 0
        # A node was added after its dependencies. (One that was added again may be out of order: its rank
        # is then too small, which only costs time.)
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
        """Count a started node as done for dependents that will follow it in the same queue."""
        self._presumed[key] = None
        for dependent, entry in self._known(self._entry(key, State.STARTED).dependents):
            entry.in_degree -= 1
            entry.presumed += 1
            self._make_ready_if_free(dependent, entry)

    def withdraw(self, not_begun: Iterable[str]) -> None:
        """Take back every presumption. The started nodes in `not_begun` are ready or blocked again."""
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
        """Remove a started or waiting node that is done, and return its dependents. Those that waited only
        for it become ready."""
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

    def waits(self, key: str) -> None:
        """Let a started node wait, for another owner or for a retry. It must not be presumed done."""
        self._set(self._entry(key, State.STARTED), State.WAITING)

    def failed(self, key: str) -> list[str]:
        """Remove a failed node and all nodes that depend on it; return the latter. The failed node may be
        unknown to the plan, and must not be presumed done."""
        self._lost.add(key)
        skipped: list[str] = []
        pending = list(self._leave(key)) if key in self._entries else []
        while pending:
            dependent = pending.pop()
            if dependent in self._entries:
                self._lost.add(dependent)
                skipped.append(dependent)
                pending.extend(self._leave(dependent))
        return skipped

    def in_state(self, state: State) -> list[str]:
        """Return the nodes in a state, in order. Looks at every node: not for the hot path."""
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
        """Look up dependents. Those that are missing were lost through another dependency."""
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
