"""How far one run has come: its nodes by their last change, numbered. Touches no disk, and starts nothing.

A follower that has seen change n asks for what changed after n. What it gets is the state of each node that
changed, once, however often it did: a follower may be away for any time and miss nothing that still holds,
and no list of events grows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import anyio

from furu.execution.events import (
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
_UNSETTLED = ("running", "waiting", "retrying", "overran")


@dataclass(frozen=True, slots=True)
class NodeProgress:
    """A node after change number `change`. `name` is its class; `error` is one line."""

    hash: str
    name: str
    state: NodeState
    change: int
    duration_sec: float | None = None
    error: str = ""


class Progress:
    """Takes a run's events, on its loop. Its memory is that of the run's nodes, which the run holds anyway.

    `last_change` is the number of the last change, from 1; 0 before any.
    """

    def __init__(self) -> None:
        self.counts: Counter[NodeState] = Counter()
        self.last_change = 0
        self._nodes: dict[str, NodeProgress] = {}  # by their last change, oldest first
        self._unsettled: dict[str, None] = {}
        self._changed: anyio.Event | None = None  # there is one while somebody waits

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
        """Tell those who wait that something changed that is no node's."""
        self.last_change += 1
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def nodes(self) -> dict[str, NodeProgress]:
        """Return what is known of each node, by hash."""
        return dict(self._nodes)

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
        earlier = self._nodes.pop(key, None)
        if earlier is not None:
            self.counts[earlier.state] -= 1
        self.counts[state] += 1
        self.touch()
        self._nodes[key] = NodeProgress(key, name, state, self.last_change, duration_sec, error)
        if state in _UNSETTLED:
            self._unsettled[key] = None
        else:
            self._unsettled.pop(key, None)
