"""What happened in a run, as frozen values. Says nothing of how it is shown or counted.

`at` and `started_at` are seconds since the epoch, by the clock of the process that runs; durations are
measured by a clock that is never set. `worker` names what computed a node, such as ``thread-1``: one worker
computes one node at a time. `node_class` is the full name of a class, ``module:Class``; `name` is the
same without the module, for showing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from furu.report import RunReport

__all__ = [
    "End",
    "Event",
    "NodeAbandoned",
    "NodeDone",
    "NodeFailed",
    "NodeOverran",
    "NodePlanned",
    "NodeRetried",
    "NodeReused",
    "NodeStarted",
    "NodeWaiting",
    "PlanKnown",
    "RootActivated",
    "RootCompleted",
    "RunFinished",
    "RunStarted",
    "class_labels",
]

End = Literal["finished", "failed", "cancelled"]


class _OfNode:
    """What the events of a node have in common."""

    __slots__ = ()
    node_class: str

    @property
    def name(self) -> str:
        """The class's name without its module."""
        return self.node_class.rpartition(":")[2]


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The run begins. At most `max_workers` nodes, and `max_async` async ones, are computed at once."""

    max_workers: int
    max_async: int
    window_size: str | int
    at: float


@dataclass(frozen=True, slots=True)
class RootActivated(_OfNode):
    """A root was read from the caller's roots and entered the window, as the `number`-th from 0."""

    hash: str
    node_class: str
    number: int


@dataclass(frozen=True, slots=True)
class RootCompleted:
    """An active root is DONE, or will not be in this run, and left the window."""

    hash: str


@dataclass(frozen=True, slots=True)
class NodeReused(_OfNode):
    """A node was found DONE; nothing below it was looked at."""

    hash: str
    node_class: str


@dataclass(frozen=True, slots=True)
class NodePlanned(_OfNode):
    """A node was found that is to be computed; those it depends on are reported before it. One that another
    owner gives up is reported once more when that is seen."""

    hash: str
    node_class: str
    spec_key: str
    depends_on: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlanKnown:
    """All roots were read and everything below them was found: the plan grows no more."""


@dataclass(frozen=True, slots=True)
class NodeStarted(_OfNode):
    """A worker began to compute a node. `worker` names the worker, such as ``thread-2``, ``process-1``,
    ``dask-5``, or ``async-3`` for an async node on the event loop."""

    hash: str
    node_class: str
    spec_key: str
    worker: str
    at: float


@dataclass(frozen=True, slots=True)
class NodeDone(_OfNode):
    """A node was computed and published, in `duration_sec` of the worker's time."""

    hash: str
    node_class: str
    spec_key: str
    duration_sec: float
    worker: str
    started_at: float


@dataclass(frozen=True, slots=True)
class NodeFailed(_OfNode):
    """A node failed, in this run or (`earlier`) in one before it. `error` is one line; one that failed
    earlier has no `worker`, and no times."""

    hash: str
    node_class: str
    spec_key: str
    error: str
    state_path: Path | None
    earlier: bool = False
    duration_sec: float = 0.0
    worker: str = ""
    started_at: float = 0.0


@dataclass(frozen=True, slots=True)
class NodeRetried(_OfNode):
    """Attempt number `attempt` of this run failed, and another follows after `delay_sec`."""

    hash: str
    node_class: str
    spec_key: str
    attempt: int
    delay_sec: float
    error: str
    duration_sec: float
    worker: str
    started_at: float


@dataclass(frozen=True, slots=True)
class NodeOverran(_OfNode):
    """A node that cannot be stopped has taken longer than the `timeout_sec` of its class, and goes on."""

    hash: str
    node_class: str
    spec_key: str
    timeout_sec: float


@dataclass(frozen=True, slots=True)
class NodeAbandoned(_OfNode):
    """The run ends and a thread still computes a node: it will finish and publish it by itself."""

    hash: str
    node_class: str
    spec_key: str


@dataclass(frozen=True, slots=True)
class NodeWaiting(_OfNode):
    """A node is being computed by another owner; it holds no worker here."""

    hash: str
    node_class: str
    owner: str


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The run is over, one way or the other. The last event."""

    end: End
    report: RunReport
    at: float


Event = (
    RunStarted
    | RootActivated
    | RootCompleted
    | NodeReused
    | NodePlanned
    | PlanKnown
    | NodeStarted
    | NodeDone
    | NodeFailed
    | NodeRetried
    | NodeOverran
    | NodeAbandoned
    | NodeWaiting
    | RunFinished
)


def class_labels(node_classes: Collection[str]) -> dict[str, str]:
    """Return how to show each of some classes: by its name alone, or in full where two share a name."""
    names = {node_class: node_class.rpartition(":")[2] for node_class in node_classes}
    counts = Counter(names.values())
    return {node_class: name if counts[name] == 1 else node_class for node_class, name in names.items()}
