"""What happened in a run, as frozen values.

`at` and `started_at` are seconds since the epoch, by the clock of the process that runs. Durations are
measured with a monotonic clock. `node_class` is the full name of a class, ``module:Class``; `name` is the
same without the module, for people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

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
    "Timing",
    "class_labels",
]

End = Literal["finished", "failed", "cancelled"]


class Timing(NamedTuple):
    """Where and when an attempt at a node ran.

    `worker` names the worker, such as ``thread-2``, ``process-1``, ``dask-5``, or ``async-3`` for an async
    node on the event loop. A worker computes one node at a time.
    """

    worker: str
    started_at: float
    duration_sec: float


class _OfNode(msgspec.Struct, frozen=True):
    """What the events of a node have in common."""

    hash: str
    node_class: str

    @property
    def name(self) -> str:
        """The class's name without its module."""
        return self.node_class.rpartition(":")[2]


class RunStarted(msgspec.Struct, frozen=True):
    """The run begins. At most `max_workers` nodes, and `max_async` async ones, are computed at once."""

    max_workers: int
    max_async: int
    window_size: str | int
    at: float


class RootActivated(_OfNode, frozen=True):
    """A root was read and entered the window. `number` counts the roots from 0."""

    number: int


class RootCompleted(msgspec.Struct, frozen=True):
    """An active root left the window: it is DONE, or cannot be computed in this run."""

    hash: str


class NodeReused(_OfNode, frozen=True):
    """A node was found DONE. Its dependencies were not visited."""


class NodePlanned(_OfNode, frozen=True):
    """A node was found that will be computed. Its dependencies are reported first. A node that another
    owner gives up is reported again."""

    spec_key: str
    depends_on: tuple[str, ...]


class PlanKnown(msgspec.Struct, frozen=True):
    """All roots and everything they depend on have been found: the plan will not grow any more."""


class NodeStarted(_OfNode, frozen=True):
    """A worker began to compute a node. For the names of workers see `Timing`."""

    spec_key: str
    worker: str
    at: float


class NodeDone(_OfNode, frozen=True):
    """A node was computed and published."""

    spec_key: str
    timing: Timing


class NodeFailed(_OfNode, frozen=True):
    """A node failed: in this run, or (`earlier`) in an earlier one that is not repeated. `error` is one
    line. `timing` is None if no worker computed the node in this run."""

    spec_key: str
    error: str
    state_path: Path | None
    earlier: bool = False
    timing: Timing | None = None


class NodeRetried(_OfNode, frozen=True):
    """Attempt number `attempt` of this run failed, and another follows after `delay_sec`."""

    spec_key: str
    attempt: int
    delay_sec: float
    error: str
    timing: Timing


class NodeOverran(_OfNode, frozen=True):
    """A node in a thread has exceeded the `_timeout_sec` of its class. It cannot be stopped, and goes
    on."""

    spec_key: str
    timeout_sec: float


class NodeAbandoned(_OfNode, frozen=True):
    """The run ends while a thread still computes a node, which will finish and publish it by itself."""

    spec_key: str


class NodeWaiting(_OfNode, frozen=True):
    """Another owner is computing a node. The node needs no worker here."""

    owner: str


class RunFinished(msgspec.Struct, frozen=True):
    """The run has ended. This is the last event."""

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
    """Return a label for each class: its name alone, or its full name if two classes share the name."""
    names = {node_class: node_class.rpartition(":")[2] for node_class in node_classes}
    counts = Counter(names.values())
    return {node_class: name if counts[name] == 1 else node_class for node_class, name in names.items()}
