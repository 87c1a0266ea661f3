"""The events of a run, as immutable values.

`at` and `started_at` are seconds since the epoch, by the clock of the process that called `run_local`.
Durations are measured with a monotonic clock. `node_class` is the full name of a class, ``module:Class``;
`name` is the class's name without the module, for people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from furu.context import Advance
from furu.report import CodeChange, RunReport

__all__ = [
    "CodeChanged",
    "End",
    "Event",
    "NodeAbandoned",
    "NodeDone",
    "NodeFailed",
    "NodeOverran",
    "NodePlanned",
    "NodeProgress",
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
    """Base class of the events of one node."""

    hash: str
    node_class: str

    @property
    def name(self) -> str:
        """The class's name without its module."""
        return self.node_class.rpartition(":")[2]


class RunStarted(msgspec.Struct, frozen=True):
    """The run began. It computes at most `max_workers` sync and `max_async` async nodes at once."""

    max_workers: int
    max_async: int
    window_size: str | int
    at: float


class RootActivated(_OfNode, frozen=True):
    """A root entered the window. `number` is its position among the roots, counted from 0."""

    number: int


class RootCompleted(msgspec.Struct, frozen=True):
    """A root left the window, because it is DONE or cannot be computed in this run."""

    hash: str


class NodeReused(_OfNode, frozen=True):
    """A node was DONE already. Its dependencies were not visited."""


class NodePlanned(_OfNode, frozen=True):
    """A node that is not DONE was added to the plan. Its dependencies are reported before it. The event is
    repeated if another owner was computing the node and gave up. If `is_open`, the node may have more
    dependencies, which depend on values that are computed first. Then the event is repeated, too."""

    spec_key: str
    depends_on: tuple[str, ...]
    is_open: bool = False


class PlanKnown(msgspec.Struct, frozen=True):
    """All roots, and all nodes that they need, are known. The plan will not grow any more."""


class NodeStarted(_OfNode, frozen=True):
    """A worker began to compute a node. `Timing` describes the names of workers."""

    spec_key: str
    worker: str
    at: float


class NodeDone(_OfNode, frozen=True):
    """A node was computed and published."""

    spec_key: str
    timing: Timing


class NodeFailed(_OfNode, frozen=True):
    """A node failed. If `earlier`, the node failed in an earlier run and is not tried again. `error` is one
    line. `timing` is None if no worker computed the node in this run."""

    spec_key: str
    error: str
    state_path: Path | None
    earlier: bool = False
    timing: Timing | None = None


class NodeRetried(_OfNode, frozen=True):
    """An attempt failed, and the next attempt follows after `delay_sec`. `attempt` is the number of the
    failed attempt in this run, counted from 1."""

    spec_key: str
    attempt: int
    delay_sec: float
    error: str
    timing: Timing


class NodeProgress(_OfNode, frozen=True):
    """A node that is being computed has reported how far it is, with `furu.progress`. `at` is the time of
    the report in seconds since the epoch."""

    advance: Advance
    at: float


class NodeOverran(_OfNode, frozen=True):
    """A node in a thread exceeded the `_timeout_sec` of its class. The thread cannot be stopped, so it
    continues."""

    spec_key: str
    timeout_sec: float


class NodeAbandoned(_OfNode, frozen=True):
    """The run ended while a thread was still computing a node. The thread still publishes the node."""

    spec_key: str


class NodeWaiting(_OfNode, frozen=True):
    """Another owner is computing a node. The run waits for the node, which needs no worker here."""

    owner: str


class CodeChanged(msgspec.Struct, frozen=True):
    """The run reuses artifacts of a class that were made by other code. Reported once for each class."""

    change: CodeChange


class RunFinished(msgspec.Struct, frozen=True):
    """The run finished, failed or was cancelled. This is always the last event."""

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
    | NodeProgress
    | NodeOverran
    | NodeAbandoned
    | NodeWaiting
    | CodeChanged
    | RunFinished
)


def class_labels(node_classes: Collection[str]) -> dict[str, str]:
    """Return a label for each class: its name alone, or its full name if two classes share the name."""
    names = {node_class: node_class.rpartition(":")[2] for node_class in node_classes}
    counts = Counter(names.values())
    return {node_class: name if counts[name] == 1 else node_class for node_class, name in names.items()}
