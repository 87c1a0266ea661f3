"""The contract between a scheduler and its workers.

The scheduler decides the order. It takes a node from the ready set only if its workers have room, so that
workers need no long queue, which would hide the order: the only queue, of short jobs in serial mode, is
bounded. The failure of a node is a value, an `Outcome`: workers never raise exceptions of nodes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import msgspec
from anyio.abc import TaskGroup

from furu.errors import FuruComputeError, FuruInProgressError
from furu.node.base import Node, class_name_of, retry_of

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
    """The kind of worker that a node needs. Nodes of the same lane wait for the same room."""

    is_async: bool
    spec_key: str


class Job(msgspec.Struct, frozen=True, gc=False):  # there may be a million, and no node refers to its job
    """A node to compute, its key in the plan, the full name of its class, and the number of the attempt in
    this run."""

    node: Node[Any]
    key: str
    lane: Lane
    node_class: str
    attempt: int = 1

    @property
    def spec_key(self) -> str:
        return self.lane.spec_key

    @property
    def name(self) -> str:
        return type(self.node).__qualname__


def make_job(node: Node[Any], lane: Lane) -> Job:
    """Return the first job for a node."""
    return Job(node, node.furu_hash, lane, class_name_of(node))


class Begun(msgspec.Struct, frozen=True):
    """A worker has begun a job. Made when the job begins, but it may be delivered later. `worker` names the
    worker, which computes one job at a time."""

    job: Job
    worker: str
    at: float = msgspec.field(default_factory=time.time)


class Outcome(msgspec.Struct, frozen=True):
    """How a job ended. `reused`: the node was DONE when it was claimed. `elsewhere`: another live owner
    holds it, and `error` names the owner. `failed`: `error` names the node and its state. `cancelled`: it
    was ended early because the run ends. `judged` is `matches_retry` in the process where the error was
    raised, if that was another process."""

    job: Job
    end: Literal["computed", "reused", "elsewhere", "failed", "cancelled"]
    duration_sec: float
    error: FuruComputeError | FuruInProgressError | None = None
    judged: bool | None = None

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
        """Whether the node failed and needs another attempt."""
        retry = retry_of(self.job.node)
        return retry is not None and self.job.attempt < retry.attempts and self.matches_retry

    @property
    def ends_a_run(self) -> bool:
        """Whether a run that stops at the first failure must stop."""
        return self.end == "failed" and not self.is_to_be_retried


class Withdrawn(msgspec.Struct, frozen=True):
    """Started jobs that have not begun are handed back, and will not begin. They may be started again,
    unless the workers have stopped. This ends serial mode."""

    jobs: list[Job]


class Overran(msgspec.Struct, frozen=True):
    """A job that cannot be stopped has exceeded its time limit, and goes on."""

    job: Job


News = Begun | Outcome | Withdrawn | Overran
Deliver = Callable[[News], None]


class Workers(Protocol):
    """A kind of worker. Holds options but no state of a run: several runs may share it, at the same time
    too, because each opens its own crew."""

    def open(self, tasks: TaskGroup, deliver: Deliver, *, max_workers: int, stop_on_failure: bool) -> Crew:
        """Begin a run on its event loop, with at most `max_workers` nodes at once. Helper tasks may be
        started in `tasks`, which is cancelled at the end. `deliver` is called on the loop. With
        `stop_on_failure`, no job begins after one has failed.

        Raises `FuruUsageError` if this kind cannot be used here."""
        ...


class Crew(Protocol):
    """The workers of one run, used on its event loop. Implemented in `threads.py`, which is the default,
    `event_loop.py`, `processes.py` and `dask.py`.

    Guarantees: for each job that begins, a `Begun` and then one `Outcome` are delivered, even while the
    task group is being cancelled, unless the job is abandoned. A job that does not begin is handed back in
    a `Withdrawn`. The worker does the whole work for a node: claim, compute, publish and release.
    """

    @property
    def is_serial(self) -> bool:
        """Whether a job begins only after all jobs started before it have succeeded, so that it may depend
        on them. Ends with a `Withdrawn`, which is delivered before the outcome that ended it."""
        ...

    def has_room(self, spec_key: str) -> bool:
        """Whether a node with this spec key can be started now."""
        ...

    def start(self, job: Job) -> None:
        """Start a job, for which there is room. Returns at once."""
        ...

    def stop(self, *, cancel: bool) -> None:
        """Begin no more jobs. Running jobs end normally and are delivered. With `cancel` they end early if
        possible: processes are killed, and `check_cancelled()` raises in threads. May be called again with
        `cancel`."""
        ...

    def abandon(self) -> list[Job]:
        """End the running jobs that can be ended, and return those that are left running, for which nothing
        more is delivered. Called after `stop`."""
        ...
