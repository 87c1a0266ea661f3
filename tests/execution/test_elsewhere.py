"""Nodes that another owner computes. A run checks each node one check at a time, and counts it once."""

from __future__ import annotations

import gc
import threading
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import anyio
import anyio.to_thread
import pytest

from furu import Furu, FuruComputeError, Status, current_settings, run_local_async, use_settings
from furu.events import Event, NodeDone, NodePlanned, NodeReused, NodeWaiting, PlanKnown
from furu.execution.discovery import Batch, Found
from furu.execution.elsewhere import Elsewhere
from furu.execution.scheduler import Scheduler
from furu.execution.window import Window
from furu.execution.workers.base import Job, Lane, make_job
from furu.planning.simulate import Clock
from tests.graphs import AsyncNode, Computed, Node, actions, recording
from tests.store.processes import Other
from tests.workers.nodes import Act, Gate

HELD = 24


@pytest.fixture(autouse=True)
def record() -> Iterator[Computed]:
    """Record what this test's nodes compute."""
    with recording() as computed:
        yield computed


def job_of(node: Node) -> Job:
    """Make the job that discovery would make for a node."""
    return make_job(node, Lane(False, "default"))


OTHER = """
from pathlib import Path
from furu import run_local
from tests.workers.nodes import Act
folder = Path({folder!r})
run_local([Act(does=f"gate {{i}}", folder=folder) for i in range({held})], max_workers={held})
say("done")
"""


async def hold_in_another_process(gate: Gate) -> tuple[Other, list[Act]]:
    """Start another process that computes the returned nodes until the gate is opened."""
    script = OTHER.format(folder=str(gate.folder), held=HELD)
    other = await anyio.to_thread.run_sync(Other, script)
    for _ in range(HELD):
        await gate.wait_for_arrival()
    return other, [Act(does=f"gate {number}", folder=gate.folder) for number in range(HELD)]


@pytest.mark.anyio
@pytest.mark.parametrize("ending", ["killed", "finished"])
async def test_run_waits_for_many_nodes_of_another_process_and_counts_each_once(
    ending: str, gate: Gate
) -> None:
    """The polling interval is much shorter than the time to check the nodes."""
    other, nodes = await hold_in_another_process(gate)
    events: list[Event] = []
    all_wait = anyio.Event()

    def on_event(event: Event) -> None:
        events.append(event)
        if sum(isinstance(event, NodeWaiting) for event in events) == HELD:
            all_wait.set()

    def end_the_other() -> None:
        if ending == "killed":
            other.kill()
        gate.open()

    async with anyio.create_task_group() as tasks:

        async def end_when_all_wait() -> None:
            await all_wait.wait()
            await anyio.to_thread.run_sync(end_the_other)

        tasks.start_soon(end_when_all_wait)
        report = await run_local_async(nodes, poll_interval_sec=1e-6, max_workers=4, on_event=on_event)
    with other:
        pass
    assert HELD == report.computed + report.reused
    assert (ending == "finished") is (report.reused == HELD)
    assert report.reused == sum(isinstance(event, NodeReused) for event in events)


@pytest.mark.anyio
async def test_round_of_polling_begins_when_the_round_before_has_ended() -> None:
    """On a slow disk, checks do not pile up."""
    with use_settings(await anyio.to_thread.run_sync(current_settings)):
        elsewhere = Elsewhere(1e-6, lambda: None)
        nodes = [Node(name=f"p{number}") for number in range(3)]  # no run of this process computes them
        jobs = [job_of(node) for node in nodes]
        for job in jobs:
            elsewhere.add(job)
        assert nodes == elsewhere.take_due()  # they may have finished since the claim was refused
        for job in jobs:
            elsewhere.still(job)
        await anyio.sleep_until(elsewhere.next_look)
        assert nodes == elsewhere.take_due()
        elsewhere.still(jobs[0])
        elsewhere.forget(jobs[1].key)
        await anyio.sleep(0.001)
        assert [] == elsewhere.take_due()  # the third node is still being checked
        elsewhere.still(jobs[2])
        await anyio.sleep_until(elsewhere.next_look)
        assert [nodes[0], nodes[2]] == elsewhere.take_due()


class SlowDisk:
    """A discovery that checks one node per step. At its first two checks, each node is in progress."""

    def __init__(self, jobs: list[Job]) -> None:
        self._jobs = {job.key: job for job in jobs}
        self._first = list(jobs)
        self._pending: list[str] = []
        self._looks = dict.fromkeys(self._jobs, 0)
        self.most_pending = 0

    def step(self, room: int | None, again: Sequence[Furu[Any]] = ()) -> Batch:
        if self._first:
            facts: list[Any] = [Found(job, Status.IN_PROGRESS) for job in self._first]
            self._first = []
            return Batch(facts, True, True)
        self._pending += [node.furu_hash for node in again]
        assert len(set(self._pending)) == len(self._pending), "two looks at one node"
        self.most_pending = max(self.most_pending, len(self._pending))
        key = self._pending.pop(0)
        self._looks[key] += 1
        status = Status.IN_PROGRESS if self._looks[key] < 3 else Status.TODO
        return Batch([Found(self._jobs[key], status)], not self._pending, True)

    def forget(self, key: str) -> None:
        """Do nothing: no node is remembered."""

    def stop(self) -> None:
        """Do nothing: every step is short."""


@pytest.mark.anyio
async def test_node_has_at_most_one_pending_check_on_a_slow_disk() -> None:
    """Polling is due a thousand times before one check finishes."""
    disk = SlowDisk([job_of(Node(name=f"p{number}")) for number in range(10)])
    clock = Clock(lambda job: 1.0)
    counts: Counter[type[Event]] = Counter()
    scheduler = Scheduler(
        discovery=disk,
        window=Window("bfs"),
        workers=clock,
        async_workers=clock,
        max_workers=4,
        max_async=4,
        emit=lambda event: counts.update([type(event)]),
        poll_interval_sec=1e-9,
        on_failure="stop",
        spec_limits={},
        grace_sec=None,
    )
    with use_settings(await anyio.to_thread.run_sync(current_settings)):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(clock.run, scheduler)
            await scheduler.run()
            tasks.cancel_scope.cancel()
    assert (10, 10) == (counts[NodeWaiting], counts[NodeDone])
    assert disk.most_pending <= 10


class Listener:
    """Receives a run's events. It stays alive as long as the run is referenced."""

    def __init__(self, waits: anyio.Event) -> None:
        self._waits = waits

    def __call__(self, event: Event) -> None:
        if isinstance(event, NodeWaiting):
            self._waits.set()


@pytest.mark.anyio
@pytest.mark.parametrize("end", ["cancelled", "failed", "finished"])
async def test_run_that_has_ended_is_not_kept_by_the_node_that_it_waited_for(end: str) -> None:
    """The run that still computes the node does not keep the finished run alive either."""
    held, started = threading.Event(), threading.Event()

    def hold() -> None:
        started.set()
        assert held.wait(10)

    def fail() -> None:
        raise ValueError("bad")

    actions["shared"] = hold
    if end == "failed":
        actions["own"] = fail
    kept: list[weakref.ref[Listener]] = []

    async def waiting_run() -> None:
        waits = anyio.Event()
        listener = Listener(waits)
        kept.append(weakref.ref(listener))
        nodes = [Node(name="shared"), Node(name="own")] if end == "failed" else [Node(name="shared")]
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:

                async def act() -> None:
                    await waits.wait()
                    if end == "cancelled":
                        scope.cancel()
                    elif end == "finished":
                        held.set()

                tasks.start_soon(act)
                try:
                    await run_local_async(nodes, max_workers=1, on_event=listener)
                except FuruComputeError:
                    waits.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_local_async, [Node(name="shared"), Node(name="later")])
        await anyio.to_thread.run_sync(started.wait)
        for _ in range(1 if end == "finished" else 20):
            await waiting_run()
        with anyio.fail_after(10):
            while any(reference() is not None for reference in kept):
                await anyio.sleep(0.01)  # anyio's threads drop a call a moment after it returns
                gc.collect()
        held.set()


@pytest.mark.anyio
async def test_plan_is_not_known_while_another_run_may_give_up_a_node() -> None:
    """The waiting run then has to compute the node's dependencies itself."""
    computing = anyio.Event()
    events: list[Event] = []
    scope = anyio.CancelScope()
    top = AsyncNode(name="top", below=(Node(name="below"),))

    async def hold() -> None:
        if not computing.is_set():
            computing.set()
            await anyio.sleep_forever()

    def on_event(event: Event) -> None:
        events.append(event)
        if isinstance(event, NodeWaiting):
            scope.cancel()

    async def cancelled_run() -> None:
        with scope:
            await run_local_async([top], grace_sec=0)

    actions["top"] = hold
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancelled_run)
        await computing.wait()
        # With retry_failed=False the nodes below are not read while another owner computes this one.
        await run_local_async([top], retry_failed=False, on_event=on_event)
    kinds = [type(event) for event in events]
    assert 1 == kinds.count(NodePlanned)
    assert 1 == kinds.count(PlanKnown)
    assert NodePlanned not in kinds[kinds.index(PlanKnown) :]


@pytest.mark.anyio
async def test_waiting_run_wakes_at_each_release_and_not_before() -> None:
    """If another run claims the node first, the waiting run waits again."""
    first, second = threading.Event(), threading.Event()
    starts = threading.Semaphore(0)
    waits: list[Any] = []

    def fail_then_hold() -> None:
        starts.release()
        if not first.is_set():
            assert first.wait(10)
            raise ValueError("first")
        assert second.wait(10)

    def on_event(event: Event) -> None:
        if isinstance(event, NodeWaiting):
            waits.append(event)
            (first if len(waits) == 1 else second).set()

    async def failing_run() -> None:
        with pytest.raises(FuruComputeError, match="first"):
            await run_local_async([Node(name="shared")])

    actions["shared"] = fail_then_hold
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(failing_run)
        await anyio.to_thread.run_sync(starts.acquire)
        second.set()
        report = await run_local_async([Node(name="shared")], poll_interval_sec=1000.0, on_event=on_event)
    assert (1, 0) == (report.computed, report.reused)


class Turning(Node):
    """Its `_validate` raises after the event `turned` is set."""

    def _validate(self) -> bool:
        if turned.is_set():
            raise OSError("a part is missing")
        return True


turned = threading.Event()


@pytest.mark.anyio
async def test_node_that_raises_when_it_is_checked_again_fails_alone() -> None:
    """The run that waited for this node continues with its other nodes."""
    node, waits = Turning(name="shared"), threading.Event()
    computing = threading.Event()
    turned.clear()

    def hold() -> None:
        computing.set()
        assert waits.wait(10)

    def on_event(event: Event) -> None:
        if isinstance(event, NodeWaiting):
            turned.set()
            waits.set()

    async def first_run() -> None:
        with pytest.raises(FuruComputeError):
            await run_local_async([node])

    actions["shared"] = hold
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first_run)
        await anyio.to_thread.run_sync(computing.wait)
        with pytest.raises(FuruComputeError, match="name='shared'") as caught:
            await run_local_async(
                [node, Node(name="needs", below=(node,)), Node(name="other")],
                poll_interval_sec=1000.0,
                on_failure="continue",
                on_event=on_event,
            )
    report = caught.value.report
    assert (1, 1, 1) == (report.computed, report.failed, report.skipped)
