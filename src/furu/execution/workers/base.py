"""What a scheduler asks of workers. Decides nothing about order: the scheduler does.

The scheduler asks for room before it takes a node from the ready set, so that no queue of the workers'
own buries the order. A node's failure is a value, an `Outcome`; workers raise nothing of a node's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from anyio.abc import TaskGroup

from furu.core import Furu
from furu.errors import FuruComputeError, FuruInProgressError


class Lane(NamedTuple):
    """Which workers a node needs: nodes of one lane wait for the same room."""

    is_async: bool
    spec_key: str


@dataclass(frozen=True, slots=True)
class Job:
    """One node to compute, and its key in the plan."""

    node: Furu[Any]
    key: str
    lane: Lane

    @property
    def spec_key(self) -> str:
        return self.lane.spec_key

    @property
    def name(self) -> str:
        return type(self.node).__qualname__


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended. `reused`: it was DONE by the time it was claimed; `elsewhere`: another owner,
    alive, is at it, and `error` says which; `failed`: `error` names the node and its state."""

    job: Job
    end: Literal["computed", "reused", "elsewhere", "failed"]
    duration_sec: float
    error: FuruComputeError | FuruInProgressError | None = None


class Workers(Protocol):
    """A kind of worker, used by one run, on its event loop.

    Guarantees: each job that was started and began to compute has exactly one outcome delivered, also
    while the task group is being cancelled; claim, compute, publish and release of a node all happen in
    the function that runs in the worker. A job that had not begun by then has none.
    """

    def open(self, tasks: TaskGroup, deliver: Callable[[Outcome], None]) -> None:
        """Begin a run: helpers may be started in `tasks`; `deliver` takes outcomes, on the loop."""
        ...

    def has_room(self, spec_key: str) -> bool:
        """Whether a node of this spec key could be started now."""
        ...

    def start(self, job: Job) -> None:
        """Start a job; there is room for it. Returns at once."""
        ...
