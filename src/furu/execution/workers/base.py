"""The contract between a scheduler and its workers.

The scheduler decides the order of nodes. It starts a node only if the workers have room for it, because it
cannot reorder nodes that wait in a queue of the workers. The only queue, for short jobs in serial mode, is
bounded. Workers report a node's failure as a value, an `Outcome`. They never raise a node's exception.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import msgspec
from anyio.abc import TaskGroup

from furu.errors import FuruComputeError, FuruInProgressError
from furu.node.base import Node, class_name_of, retry_of
from furu.store.artifact import FileId

__all__ = [
    "Begun",
    "Crew",
    "Deliver",
    "Job",
    "Lane",
    "News",
    "Outcome",
    "Overran",
    "Withdrawn",
    "Workers",
    "make_job",
]


class Lane(NamedTuple):
    """The kind of worker that a node needs. Nodes of the same lane compete for the same workers."""

    is_async: bool
    spec_key: str


class Job(msgspec.Struct, frozen=True, gc=False):  # there may be a million, and no node refers to its job
    """A node to compute, its key in the plan, its lane, the full name of its class, and the number of the
    attempt in this run, from 1. If the node has an artifact that this run replaces, `replaces` identifies
    the artifact."""

    node: Node[Any]
    key: str
    lane: Lane
    node_class: str
    attempt: int = 1
    replaces: FileId | None = None

    @property
    def spec_key(self) -> str:
        return self.lane.spec_key

    @property
    def name(self) -> str:
        return type(self.node).__qualname__


def make_job(node: Node[Any], lane: Lane, replaces: FileId | None = None) -> Job:
    """Return the job for a node's first attempt in this run."""
    return Job(node, node.furu_hash, lane, class_name_of(node), replaces=replaces)


class Begun(msgspec.Struct, frozen=True):
    """A worker has begun a job. `worker` names the worker, which computes one job at a time. `at` is the
    time at which the job began; this news may be delivered later."""

    job: Job
    worker: str
    at: float = msgspec.field(default_factory=time.time)


class Outcome(msgspec.Struct, frozen=True):
    """How a job ended. `reused`: the node was DONE when the worker tried to claim it. `elsewhere`: another
    live owner is computing the node, and `error` names that owner. `failed`: `error` names the node and the
    path of its state. `cancelled`: the job was ended early because the run ends. If the job ran in another
    process, `judged` is the value of `matches_retry` in that process. `create_sec` is the time in
    `_create`, if it is known."""

    job: Job
    end: Literal["computed", "reused", "elsewhere", "failed", "cancelled"]
    duration_sec: float
    error: FuruComputeError | FuruInProgressError | None = None
    judged: bool | None = None
    create_sec: float = 0.0

    @property
    def went_well(self) -> bool:
        """Whether the node is DONE."""
        return self.end in ("computed", "reused")

    @property
    def matches_retry(self) -> bool:
        """Whether the node failed with an exception that its class retries."""
        retry = retry_of(self.job.node)
        if self.end != "failed" or self.error is None or retry is None:
            return False
        return isinstance(self.error.__cause__, retry.on) if self.judged is None else self.judged

    @property
    def is_to_be_retried(self) -> bool:
        """Whether the node failed, and its class allows another attempt."""
        retry = retry_of(self.job.node)
        return retry is not None and self.job.attempt < retry.attempts and self.matches_retry

    @property
    def ends_a_run(self) -> bool:
        """Whether a run that stops at the first failure must stop after this outcome."""
        return self.end == "failed" and not self.is_to_be_retried


class Withdrawn(msgspec.Struct, frozen=True):
    """The workers hand back all jobs that were started but have not begun, and will not begin them. Unless
    the workers have stopped, these jobs may be started again. This news ends serial mode."""

    jobs: list[Job]


class Overran(msgspec.Struct, frozen=True):
    """A job has exceeded its time limit. It cannot be stopped, so it continues."""

    job: Job


News = Begun | Outcome | Withdrawn | Overran
Deliver = Callable[[News], None]


class Workers(Protocol):
    """A kind of worker, with its options. It keeps no state of a run, because each run opens its own crew.
    So several runs may share it, even at the same time."""

    def open(self, tasks: TaskGroup, deliver: Deliver, *, max_workers: int, stop_on_failure: bool) -> Crew:
        """Open a crew for a run, on the run's event loop. The crew computes at most `max_workers` nodes at
        once. It may start helper tasks in `tasks`, which is cancelled at the end of the run, and calls
        `deliver` on the loop. With `stop_on_failure`, no job begins after a job has failed.

        Raises `FuruUsageError` if this kind of worker cannot be used here."""
        ...


class Crew(Protocol):
    """The workers of one run. All methods are called on the run's event loop. Implemented in `threads.py`
    (the default), `event_loop.py`, `processes.py` and `dask.py`.

    Guarantees: for each job that begins, one `Begun` and then one `Outcome` are delivered, even while the
    task group is being cancelled, unless the job is abandoned. A job that does not begin is handed back in
    a `Withdrawn`. The worker does all the work for a node: it claims, computes, publishes and releases it.
    """

    @property
    def is_serial(self) -> bool:
        """Whether the crew is in serial mode: a job begins only after all jobs that were started earlier
        have succeeded, so it may depend on them. Serial mode ends with a `Withdrawn`, which is delivered
        before the outcome that made serial mode end."""
        ...

    def has_room(self, spec_key: str) -> bool:
        """Whether a node with this spec key can be started now."""
        ...

    def start(self, job: Job) -> None:
        """Start a job and return at once. Call this only if `has_room` is True for the job's spec key."""
        ...

    def stop(self, *, cancel: bool) -> None:
        """Begin no more jobs. Running jobs finish normally, and their outcomes are delivered. With `cancel`
        they end early if possible: processes are killed, and `check_cancelled()` raises in threads. May be
        called again with `cancel`."""
        ...

    def abandon(self) -> list[Job]:
        """End the running jobs that can be ended, and return the jobs that continue. No more news of these
        jobs is delivered. Called after `stop`."""
        ...
