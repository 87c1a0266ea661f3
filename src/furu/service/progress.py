"""The progress of a run: the state of each node, and the number of its last change. Pure.

Each change has a number. A follower that has seen change n asks for the changes after n, and receives the
latest state of each node that has changed since. A follower may pause for any length of time: no list of
events grows meanwhile. A page starts from a snapshot, which contains the number of the run's last change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice, takewhile
from typing import Literal

import anyio

import furu.events as events
from furu.context import Advance

__all__ = ["NodeProgress", "NodeState", "Progress", "Snapshot"]

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
    events.NodePlanned
    | events.NodeStarted
    | events.NodeWaiting
    | events.NodeRetried
    | events.NodeOverran
    | events.NodeDone
    | events.NodeReused
    | events.NodeFailed
    | events.NodeAbandoned
)
_STATES: dict[type[events.Event], NodeState] = {
    events.NodePlanned: "planned",
    events.NodeStarted: "running",
    events.NodeWaiting: "waiting",
    events.NodeRetried: "retrying",
    events.NodeOverran: "overran",
    events.NodeDone: "done",
    events.NodeReused: "reused",
    events.NodeFailed: "failed",
    events.NodeAbandoned: "abandoned",
}
_RUNNING = ("running", "overran")
_UNSETTLED = (*_RUNNING, "waiting", "retrying")
# Clients see at most this many running nodes, those that have run longest.
_MAX_RUNNING_SHOWN = 50


@dataclass(frozen=True, slots=True)
class NodeProgress:
    """The state of a node since change number `change`. `node_class` is ``module:Class``; `error` is one
    line. `advance` is what a running node has reported with `furu.progress`."""

    hash: str
    node_class: str
    state: NodeState
    change: int
    duration_sec: float | None = None
    error: str = ""
    advance: Advance | None = None

    @property
    def name(self) -> str:
        """The class's name without its module."""
        return self.node_class.rpartition(":")[2]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The progress of a run right after change number `last_change`."""

    last_change: int
    counts: Mapping[NodeState, int]
    nodes: Mapping[str, NodeProgress]
    running: tuple[NodeProgress, ...]


class Progress:
    """Processes the events of a run, on the run's loop, and keeps one small value for each node.

    Changes are numbered from 1; `last_change` is 0 before the first. `counts` is the number of nodes in
    each state, and `class_counts` the same for each class, ``module:Class``.
    """

    def __init__(self) -> None:
        self.counts: Counter[NodeState] = Counter()
        self.class_counts: dict[str, Counter[NodeState]] = {}
        self.last_change = 0
        self._nodes: dict[str, NodeProgress] = {}  # in the order of their last change
        self._unsettled: dict[str, None] = {}
        self._running: dict[str, None] = {}  # longest running first
        self._changed: anyio.Event | None = None  # None unless a follower waits

    def __call__(self, event: events.Event) -> None:
        """Process an event of the run."""
        if isinstance(event, events.RunFinished):
            for key in list(self._unsettled):
                self._set(key, self._nodes[key].node_class, "stopped")
            self.touch()
        elif isinstance(event, events.NodeProgress):
            self._advanced(event)
        elif isinstance(event, _NodeEvent):
            self._set(
                event.hash,
                event.node_class,
                _STATES[type(event)],
                getattr(event, "duration_sec", None),
                getattr(event, "error", ""),
            )

    def touch(self) -> None:
        """Count a change, and wake the followers that wait for one."""
        self.last_change += 1
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def snapshot(self) -> Snapshot:
        """Return a copy of the current progress."""
        return Snapshot(self.last_change, +self.counts, dict(self._nodes), self.running())

    def running(self) -> tuple[NodeProgress, ...]:
        """Return the running nodes that clients see, longest running first."""
        return tuple([self._nodes[key] for key in islice(self._running, _MAX_RUNNING_SHOWN)])

    def since(self, change: int) -> list[NodeProgress]:
        """Return the nodes that changed after `change`, in the order of their last change."""
        newest_first = takewhile(lambda node: node.change > change, reversed(self._nodes.values()))
        return list(newest_first)[::-1]

    async def wait_changed(self, change: int) -> None:
        """Wait until a change after `change` has happened."""
        while self.last_change <= change:
            self._changed = self._changed or anyio.Event()
            await self._changed.wait()

    def _set(
        self, key: str, cls: str, state: NodeState, duration_sec: float | None = None, error: str = ""
    ) -> None:
        counts = self.class_counts.setdefault(cls, Counter())
        earlier = self._nodes.pop(key, None)
        if earlier is not None:
            self.counts[earlier.state] -= 1
            counts[earlier.state] -= 1
        self.counts[state] += 1
        counts[state] += 1
        self.touch()
        self._nodes[key] = NodeProgress(key, cls, state, self.last_change, duration_sec, error)
        _keep(self._unsettled, key, state in _UNSETTLED)
        _keep(self._running, key, state in _RUNNING)

    def _advanced(self, event: events.NodeProgress) -> None:
        node = self._nodes.get(event.hash)
        if node is not None and node.state in _RUNNING:
            self.touch()
            del self._nodes[event.hash]  # the dict is in the order of the last change
            self._nodes[event.hash] = replace(node, change=self.last_change, advance=event.advance)


def _keep(keys: dict[str, None], key: str, wanted: bool) -> None:
    if wanted:
        keys[key] = None
    else:
        keys.pop(key, None)
