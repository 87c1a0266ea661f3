"""Simulated runs: the real scheduler, plan and window, with workers that only advance a virtual clock.

A node takes the mean duration of its class. The overhead of a real run (starting threads, the store, the
interpreter's lock) is not included, so a real run of very short nodes takes longer.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import anyio
import anyio.lowlevel
import msgspec
from anyio.abc import TaskGroup

from furu.events import Event
from furu.execution.discovery import Batch, Fact, Found, RootRead
from furu.execution.options import DEFAULT_MAX_ASYNC
from furu.execution.scheduler import Order, Scheduler
from furu.execution.window import Window
from furu.execution.workers.base import Begun, Deliver, Job, Outcome
from furu.node.base import Node
from furu.store.artifact import Status


def simulate(
    facts: Sequence[Fact],
    duration_sec: Callable[[Job], float],
    *,
    max_workers: int,
    max_async: int = DEFAULT_MAX_ASYNC,
    window_size: str | int,
    spec_limits: Mapping[str, int] | None = None,
    order: Order = "roots",
) -> float:
    """Return the makespan, in seconds, of a run whose discovery returns `facts`.

    Nodes that another owner is computing count as done. The simulation runs in a separate thread, so this
    function may be called while an event loop is running in the caller's thread. It blocks that loop.
    """
    clock = Clock(duration_sec)

    async def run() -> None:
        scheduler = Scheduler(
            discovery=Replay(facts, duration_sec),
            window=Window(window_size),
            workers=clock,
            async_workers=clock,
            max_workers=max_workers,
            max_async=max_async,
            emit=_ignore,
            poll_interval_sec=1.0,
            on_failure="stop",
            spec_limits=spec_limits or {},
            grace_sec=None,
            order=order,
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(clock.run, scheduler)
            await scheduler.run()
            tasks.cancel_scope.cancel()

    with ThreadPoolExecutor(1, "furu-simulation") as thread:
        thread.submit(anyio.run, run).result()
    return clock.now_sec


class Clock:
    """Workers with a virtual clock. When nothing more can happen before a running node ends, the clock
    advances to the time at which the next node ends."""

    def __init__(self, duration_sec: Callable[[Job], float]) -> None:
        self.now_sec = 0.0
        self._duration_sec = duration_sec
        self._ends: list[tuple[float, int, SimulatedCrew, Job]] = []
        self._begun = 0

    def open(
        self, tasks: TaskGroup, deliver: Deliver, *, max_workers: int, stop_on_failure: bool
    ) -> SimulatedCrew:
        """Return the crew of a run."""
        return SimulatedCrew(self, deliver, max_workers)

    async def run(self, scheduler: Scheduler) -> None:
        """End the next node whenever the scheduler has settled."""
        while True:
            # Poll: discovery runs in a thread and does not report its end. It takes only microseconds.
            await anyio.lowlevel.checkpoint()
            if self._ends and scheduler.is_settled:
                self.now_sec, _, crew, job = heapq.heappop(self._ends)
                crew.end(job)

    def begin(self, crew: SimulatedCrew, job: Job) -> None:
        """Begin a node, and schedule its end."""
        self._begun += 1
        ends_at = self.now_sec + self._duration_sec(job)
        heapq.heappush(self._ends, (ends_at, self._begun, crew, job))


class SimulatedCrew:
    """The crew of one simulated run."""

    def __init__(self, clock: Clock, deliver: Deliver, max_workers: int) -> None:
        self._clock = clock
        self._deliver = deliver
        self._max_workers = max_workers
        self._in_flight = 0

    @property
    def is_serial(self) -> bool:
        """Always False: serial mode, which is for very short nodes, is not simulated."""
        return False

    def has_room(self, spec_key: str) -> bool:
        """Whether another node may start."""
        return self._in_flight < self._max_workers

    def start(self, job: Job) -> None:
        """Start a node."""
        self._in_flight += 1
        self._deliver(Begun(job, "simulated"))
        self._clock.begin(self, job)

    def end(self, job: Job) -> None:
        """End a node, and deliver its outcome."""
        self._in_flight -= 1
        self._deliver(Outcome(job, "computed", 0.0))

    def stop(self, *, cancel: bool) -> None:
        """Do nothing: simulated nodes need not be stopped."""

    def abandon(self) -> list[Job]:
        """Return an empty list: no node is left running."""
        return []


class Replay:
    """Replays the facts of an earlier discovery, as the window makes room for them."""

    def __init__(self, facts: Sequence[Fact], duration_sec: Callable[[Job], float]) -> None:
        self._facts = facts
        self._duration_sec = duration_sec
        self._next = 0

    def step(self, room: int | None, again: Sequence[Node[object]] = ()) -> Batch:
        """Return the next facts, with at most `room` new roots."""
        facts: list[Fact] = []
        while self._next < len(self._facts):
            fact = self._facts[self._next]
            if isinstance(fact, RootRead) and room is not None:
                if room == 0:
                    break
                room -= 1
            elif isinstance(fact, Found) and fact.status is Status.IN_PROGRESS:
                fact = msgspec.structs.replace(fact, status=Status.DONE)
            elif isinstance(fact, Found) and fact.status is Status.TODO:
                fact = msgspec.structs.replace(fact, expected_sec=self._duration_sec(fact.job))
            facts.append(fact)
            self._next += 1
        return Batch(facts, True, self._next == len(self._facts))

    def forget(self, key: str) -> None:
        """Do nothing: each node is returned only once."""

    def failed(self, key: str, error: str) -> None:
        """Do nothing: no node asks for the outcome of another."""

    def stop(self) -> None:
        """Do nothing: every step is short."""


def _ignore(event: Event) -> None:
    """Drop an event of a simulated run."""
