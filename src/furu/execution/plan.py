"""Which nodes may start. Bookkeeping on keys only: never touches disk, clock or threads.

    add ──> blocked ──> ready ──> started ──> done (leaves the plan)
               │          ^          │
               │          └──────────┤ elsewhere: another owner is at it; added again when it is not
               └──> lost <───────────┘ failed, or below it something failed

In-degrees are counted, so every event costs its node's degree and nothing is ever searched. A key that
is not in the plan is done: a node is added after everything it depends on, and leaves when it is done.
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

from furu.errors import FuruError

Lane = TypeVar("Lane", bound=Hashable)


class State(enum.Enum):
    """Where a node of the plan is."""

    BLOCKED = "blocked"
    READY = "ready"
    STARTED = "started"
    ELSEWHERE = "elsewhere"


class _Entry(Generic[Lane]):
    __slots__ = ("dependents", "in_degree", "lane", "order", "state")

    def __init__(self, order: int, lane: Lane) -> None:
        self.order = order
        self.lane = lane
        self.state = State.BLOCKED
        self.in_degree = 0
        self.dependents: list[str] = []


class Plan(Generic[Lane]):
    """The nodes that are known and not done, and which of them may start.

    Ready nodes come out in the order in which they were added. Each has a *lane*, the kind of worker it
    needs: a lane without room keeps no other lane waiting.
    """

    def __init__(self) -> None:
        self._entries: dict[str, _Entry[Lane]] = {}
        self._ready: dict[Lane, list[tuple[int, str]]] = {}
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
        """Whether a node failed, or depends on one that did."""
        return key in self._lost

    def add(self, key: str, lane: Lane, depends_on: Iterable[str]) -> list[str]:
        """Add a node after all it depends on, each named once; a key not in the plan counts as done.

        A node that was elsewhere may be added again: it keeps its place and its dependents. If
        something it depends on is lost, so is the node, and whatever depends on it: returns those.
        """
        entry = self._entries.get(key)
        if entry is not None and entry.state is not State.ELSEWHERE:
            raise FuruError(f"{key} is in the plan already, {entry.state.value}")
        awaited = [dependency for dependency in depends_on if self._is_awaited(dependency)]
        if any(dependency in self._lost for dependency in awaited):
            return [key, *self.failed(key)]
        if entry is None:
            entry = self._enter(key, lane)
        else:
            entry.lane = lane
        for dependency in awaited:
            self._entries[dependency].dependents.append(key)
        entry.in_degree = len(awaited)
        self._set(entry, State.BLOCKED)
        if not awaited:
            self._make_ready(key, entry)
        return []

    def add_elsewhere(self, key: str, lane: Lane) -> None:
        """Add a node that another owner is computing: its dependents wait, and it needs no worker."""
        self._set(self._enter(key, lane), State.ELSEWHERE)

    def get_ready(self, has_room: Callable[[Lane], bool]) -> str | None:
        """Take the first ready node whose lane has room, which is thereby started; None if none."""
        best: list[tuple[int, str]] | None = None
        for lane, heap in self._ready.items():
            if heap and (best is None or heap[0] < best[0]) and has_room(lane):
                best = heap
        if best is None:
            return None
        key = heapq.heappop(best)[1]
        self._set(self._entries[key], State.STARTED)
        return key

    def done(self, key: str) -> None:
        """A started node, or one elsewhere, is done: it leaves the plan, and the dependents that waited
        for nothing else become ready."""
        self._entry(key, State.STARTED, State.ELSEWHERE)
        for dependent in self._leave(key):
            entry = self._entries.get(dependent)
            if entry is None:  # lost, through another of its dependencies
                continue
            entry.in_degree -= 1
            if entry.in_degree == 0:
                self._make_ready(dependent, entry)

    def elsewhere(self, key: str) -> None:
        """A started node turned out to be another owner's."""
        self._set(self._entry(key, State.STARTED), State.ELSEWHERE)

    def failed(self, key: str) -> list[str]:
        """A node failed: it leaves the plan, if it is there, with all that depends on it, which is
        returned."""
        self._lost.add(key)
        skipped: list[str] = []
        pending = self._leave(key) if key in self._entries else []
        while pending:
            dependent = pending.pop()
            if dependent in self._entries:
                self._lost.add(dependent)
                skipped.append(dependent)
                pending.extend(self._leave(dependent))
        return skipped

    def in_state(self, state: State) -> list[str]:
        """Return the nodes in a state, in their order. Looks at every node: not for the hot path."""
        found = [key for key, entry in self._entries.items() if entry.state is state]
        return sorted(found, key=lambda key: self._entries[key].order)

    def _is_awaited(self, key: str) -> bool:
        return key in self._entries or key in self._lost

    def _enter(self, key: str, lane: Lane) -> _Entry[Lane]:
        if key in self._entries:
            raise FuruError(f"{key} is in the plan already")
        entry = self._entries[key] = _Entry(self._next_order, lane)
        self._next_order += 1
        self._counts[entry.state] += 1
        return entry

    def _leave(self, key: str) -> list[str]:
        entry = self._entries.pop(key)
        self._counts[entry.state] -= 1
        return entry.dependents

    def _make_ready(self, key: str, entry: _Entry[Lane]) -> None:
        self._set(entry, State.READY)
        heapq.heappush(self._ready.setdefault(entry.lane, []), (entry.order, key))

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
