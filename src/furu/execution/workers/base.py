"""What a scheduler asks of workers. Decides nothing about order: the scheduler does.

The scheduler asks for room before it takes a node from the ready set, so that no long queue of the
workers' own buries the order. A node's failure is a value, an `Outcome`; workers raise nothing of a
node's.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from anyio.abc import TaskGroup

from furu._common.origin import class_name
from furu.errors import FuruComputeError, FuruInProgressError
from furu.node.base import Node, retry_of

__all__ = ["Begun", "Crew", "Deliver", "Job", "Lane", "News", "Outcome", "Overran", "Withdrawn", "Workers"]

_class_name = functools.lru_cache(class_name)  # asked twice for each node


class Lane(NamedTuple):
    """Which workers a node needs: nodes of one lane wait for the same room."""

    is_async: bool
    spec_key: str


@dataclass(frozen=True, slots=True)
class Job:
    """One node to compute, its key in the plan, and which attempt of this run it is."""

    node: Node[Any]
    key: str
    lane: Lane
    attempt: int = 1

    @property
    def spec_key(self) -> str:
        return self.lane.spec_key

    @property
    def name(self) -> str:
        return type(self.node).__qualname__

    @property
    def node_class(self) -> str:
        cls: type = type(self.node)
        return _class_name(cls)


@dataclass(frozen=True, slots=True)
class Begun:
    """A worker has begun with a job. Made where and when it begins: it may be delivered later. `worker`
    names the worker; one computes one job at a time."""

    job: Job
    worker: str
    at: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended. `reused`: it was DONE by the time it was claimed; `elsewhere`: another owner,
    alive, is at it, and `error` says which; `failed`: `error` names the node and its state;
    `cancelled`: it was ended early, because the run ends. `judged` is the value of
    `matches_retry` in the process where the error was raised, if that was another one."""

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
        """Whether the node failed with an error that its class names in `_retry`."""
        retry = retry_of(self.job.node)
        if self.end != "failed" or self.error is None or retry is None:
            return False
        return isinstance(self.error.__cause__, retry.on) if self.judged is None else self.judged

    @property
    def is_to_be_retried(self) -> bool:
        """Whether the node failed in a way that its class wants another attempt for."""
        retry = retry_of(self.job.node)
        return retry is not None and self.job.attempt < retry.attempts and self.matches_retry

    @property
    def ends_a_run(self) -> bool:
        """Whether a run that stops at the first failure begins nothing more."""
        return self.end == "failed" and not self.is_to_be_retried


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """Jobs that were started are handed back: none has begun, and none will. They may be started
    again, unless the workers have stopped. Serial mode ends with it."""

    jobs: list[Job]


@dataclass(frozen=True, slots=True)
class Overran:
    """A job that cannot be stopped has taken longer than its class allows, and goes on."""

    job: Job


News = Begun | Outcome | Withdrawn | Overran
Deliver = Callable[[News], None]


class Workers(Protocol):
    """A kind of worker. Holds what its user chose and no state of a run, so that runs, one after another or
    at the same time, may share one: each opens a crew of its own."""

    def open(self, tasks: TaskGroup, deliver: Deliver, *, max_workers: int, stop_on_failure: bool) -> Crew:
        """Begin a run on its event loop, with at most `max_workers` nodes at once. Helpers may be started
        in `tasks`, whose cancellation ends them; `deliver` is to be called on the loop. With
        `stop_on_failure` no job is begun after one has failed.

        Raises `FuruUsageError` where this kind cannot be used."""
        ...


class Crew(Protocol):
    """The workers of one run, used on its event loop.

    Guarantees: of each job that a worker begins, a `Begun` and one `Outcome` are delivered, in this
    order, also while the task group is being cancelled, unless the job is abandoned; a job that is not
    begun is handed back in a `Withdrawn`. Claim, compute, publish and release of a node all happen in
    the function that runs in the worker.
    """

    @property
    def is_serial(self) -> bool:
        """Whether a job is begun only after all jobs started before it have gone well, so that it may
        depend on them. Ends with a `Withdrawn`, which is delivered before the outcome that ended it."""
        ...

    def has_room(self, spec_key: str) -> bool:
        """Whether a node of this spec key could be started now."""
        ...

    def start(self, job: Job) -> None:
        """Start a job; there is room for it. Returns at once."""
        ...

    def stop(self, *, cancel: bool) -> None:
        """Begin nothing more; what has begun goes on to its end, and is delivered. With `cancel` it is to
        end early where it can: a process is killed, and `check_cancelled()` raises in a thread. May be
        called again, with `cancel`."""
        ...

    def abandon(self) -> list[Job]:
        """The time for running jobs is over: end what can be ended, and return what is left running,
        of which nothing more is delivered. Follows `stop`."""
        ...
