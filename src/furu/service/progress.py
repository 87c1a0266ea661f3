"""How far one run has come: its nodes by their last change, numbered. Touches no disk, and starts nothing.

A follower that has seen change n asks for the changes after n. It gets the latest state of each node that
changed, once: a follower may be away for any time, and no list of events grows. A page starts from a
snapshot, which has the number of its last change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import anyio

from furu.events import (
    Event,
    NodeAbandoned,
    NodeDone,
    NodeFailed,
    NodeOverran,
    NodePlanned,
    NodeRetried,
    NodeReused,
    NodeStarted,
    NodeWaiting,
    RunFinished,
)

NodeState = Literal[
    "planned",
    "running",
    "waiting",
    "retrying",
    "overran",
    "done",
    "reused",
    "failed",
    "abandoned",
    "stopped",
]

_NodeEvent = (
    NodePlanned
    | NodeStarted
    | NodeWaiting
    | NodeRetried
    | NodeOverran
    | NodeDone
    | NodeReused
    | NodeFailed
    | NodeAbandoned
)
_STATES: dict[type[Event], NodeState] = {
    NodePlanned: "planned",
    NodeStarted: "running",
    NodeWaiting: "waiting",
    NodeRetried: "retrying",
    NodeOverran: "overran",
    NodeDone: "done",
    NodeReused: "reused",
    NodeFailed: "failed",
    NodeAbandoned: "abandoned",
}
_RUNNING = ("running", "overran")
_UNSETTLED = (*_RUNNING, "waiting", "retrying")
# Of more nodes that run at once, clients see the first.
_MAX_RUNNING_SHOWN = 50


@dataclass(frozen=True, slots=True)
class NodeProgress:
    """A node after change number `change`. `name` is its class; `error` is one line."""

    hash: str
    name: str
    state: NodeState
    change: int
    duration_sec: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run's progress after change number `last_change`: every part of it belongs to that moment."""

    last_change: int
    counts: Mapping[NodeState, int]
    nodes: Mapping[str, NodeProgress]
    running: tuple[NodeProgress, ...]


class Progress:
    """Takes a run's events, on its loop. It keeps one small value for each node of the run.

    `last_change` is the number of the last change, from 1; 0 before any. `class_counts` are the counts of
    each class, by the name that events have for it.
    """

    def __init__(self) -> None:
        self.counts: Counter[NodeState] = Counter()
        self.class_counts: dict[str, Counter[NodeState]] = {}
        self.last_change = 0
        self._nodes: dict[str, NodeProgress] = {}  # by their last change, oldest first
        self._unsettled: dict[str, None] = {}
        self._running: dict[str, None] = {}  # in the order in which they began
        self._changed: anyio.Event | None = None  # only while a follower waits

    def __call__(self, event: Event) -> None:
        """Take an event of the run."""
        if isinstance(event, RunFinished):
            for key in list(self._unsettled):
                self._set(key, self._nodes[key].name, "stopped")
            self.touch()
        elif isinstance(event, _NodeEvent):
            self._set(
                event.hash,
                event.name,
                _STATES[type(event)],
                getattr(event, "duration_sec", None),
                getattr(event, "error", ""),
            )

    def touch(self) -> None:
        """Count a change of the run itself, and wake those that wait for one."""
        self.last_change += 1
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def snapshot(self) -> Snapshot:
        """Return the progress as it is now; what happens later does not change it."""
        return Snapshot(self.last_change, +self.counts, dict(self._nodes), self.running())

    def running(self) -> tuple[NodeProgress, ...]:
        """Return the first nodes of those that run, the longest running first."""
        return tuple([self._nodes[key] for key in islice(self._running, _MAX_RUNNING_SHOWN)])

    def since(self, change: int) -> list[NodeProgress]:
        """Return the nodes that changed after `change`, in the order of their last change."""
        found = []
        for node in reversed(self._nodes.values()):
            if node.change <= change:
                break
            found.append(node)
        return found[::-1]

    async def wait_changed(self, change: int) -> None:
        """Return once there was a change after `change`."""
        while self.last_change <= change:
            self._changed = self._changed or anyio.Event()
            await self._changed.wait()

    def _set(
        self, key: str, name: str, state: NodeState, duration_sec: float | None = None, error: str = ""
    ) -> None:
        counts = self.class_counts.setdefault(name, Counter())
        earlier = self._nodes.pop(key, None)
        if earlier is not None:
            self.counts[earlier.state] -= 1
            counts[earlier.state] -= 1
        self.counts[state] += 1
        counts[state] += 1
        self.touch()
        self._nodes[key] = NodeProgress(key, name, state, self.last_change, duration_sec, error)
        _keep(self._unsettled, key, state in _UNSETTLED)
        _keep(self._running, key, state in _RUNNING)


def _keep(keys: dict[str, None], key: str, wanted: bool) -> None:
    if wanted:
        keys[key] = None
    else:
        keys.pop(key, None)
