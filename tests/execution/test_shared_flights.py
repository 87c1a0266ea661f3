"""Runs of one process that need the same node: one run computes it and wakes the others."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import anyio
import anyio.to_thread
import pytest

from furu import FuruComputeError, RunReport, Status, run_local, run_local_async
from furu.events import Event, NodeWaiting
from tests.graphs import AsyncNode, Computed, Node, actions, recording

# A run that polls would wait this long, and the test would time out.
NEVER_SEC = 1000.0


@pytest.fixture(autouse=True)
def record() -> Iterator[Computed]:
    """Record what this test's nodes compute."""
    with recording() as computed:
        yield computed


class Held:
    """Blocks a node in `_create` until another run waits for the node."""

    def __init__(self, name: str) -> None:
        self.computing = threading.Event()
        self.awaited = threading.Event()
        actions[name] = self._hold

    def _hold(self) -> None:
        self.computing.set()
        assert self.awaited.wait(10)

    def on_event(self, event: Event) -> None:
        if isinstance(event, NodeWaiting):
            self.awaited.set()


@pytest.mark.anyio
async def test_two_runs_on_one_loop_share_a_node_without_polling(record: Computed) -> None:
    """The second run continues as soon as the first run has finished the node."""
    shared = Node(name="shared")
    held = Held("shared")
    reports: dict[str, RunReport] = {}

    async def run(name: str) -> None:
        top = Node(name=name, below=(shared,))
        if name == "second":
            await anyio.to_thread.run_sync(held.computing.wait)
        reports[name] = await run_local_async(
            [top], poll_interval_sec=NEVER_SEC, on_event=held.on_event if name == "second" else None
        )

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, "first")
        tasks.start_soon(run, "second")
    assert {"shared": 1, "first": 1, "second": 1} == record.counts()
    assert (2, 0) == (reports["first"].computed, reports["first"].reused)
    assert (1, 1) == (reports["second"].computed, reports["second"].reused)


def test_runs_on_the_loops_of_two_threads_share_a_node(record: Computed) -> None:
    """A script's threads may each call run_local."""
    shared = Node(name="shared")
    held = Held("shared")
    first = threading.Thread(target=run_local, args=([shared],))
    first.start()
    assert held.computing.wait(10)
    report = run_local([shared], poll_interval_sec=NEVER_SEC, on_event=held.on_event)
    first.join()
    assert ["shared"] == record.order
    assert (0, 1) == (report.computed, report.reused)


@pytest.mark.anyio
async def test_waiting_run_takes_over_a_node_that_a_cancelled_run_gave_up(record: Computed) -> None:
    node = AsyncNode(name="shared")
    computing = anyio.Event()

    async def hold() -> None:
        if not computing.is_set():
            computing.set()
            await anyio.sleep_forever()

    actions["shared"] = hold
    scope = anyio.CancelScope()

    def on_event(event: Event) -> None:
        if isinstance(event, NodeWaiting):
            scope.cancel()

    async def cancelled_run() -> None:
        with scope:
            await run_local_async([node], grace_sec=0)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancelled_run)
        await computing.wait()
        report = await run_local_async([node], poll_interval_sec=NEVER_SEC, on_event=on_event)
    assert 1 == report.computed
    assert ["shared", "shared"] == record.order


@pytest.mark.anyio
async def test_waiting_run_retries_a_node_that_failed_in_another_run() -> None:
    node = Node(name="shared")
    held = Held("shared")
    hold = actions["shared"]

    def fail_once() -> None:
        if not held.computing.is_set():
            hold()
            raise ValueError("bad split")

    actions["shared"] = fail_once

    async def failing_run() -> None:
        with pytest.raises(FuruComputeError, match="bad split"):
            await run_local_async([node])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(failing_run)
        await anyio.to_thread.run_sync(held.computing.wait)
        report = await run_local_async([node], poll_interval_sec=NEVER_SEC, on_event=held.on_event)
    assert 1 == report.computed


@pytest.mark.anyio
async def test_interactive_get_waits_for_a_run_without_polling(record: Computed) -> None:
    node = Node(name="shared")
    held = Held("shared")
    values: list[int] = []

    def get() -> None:
        assert held.computing.wait(10)
        held.awaited.set()
        values.append(node.get())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, get)
        await run_local_async([node])
    assert ([1], ["shared"]) == (values, record.order)


@pytest.mark.anyio
async def test_many_runs_over_overlapping_graphs_compute_each_node_once(record: Computed) -> None:
    leaves = [Node(name=f"leaf{number}") for number in range(30)]
    groups = [
        Node(name=f"group{number}", below=tuple(leaves[number : number + 15])) for number in range(15)
    ]

    async def request(number: int) -> None:
        wanted = groups[number % 15 :] + leaves[: number % 7]
        await run_local_async(wanted, poll_interval_sec=NEVER_SEC)

    async with anyio.create_task_group() as tasks:
        for number in range(40):
            tasks.start_soon(request, number)
    assert {1} == set(record.counts().values())
    assert Status.DONE is await anyio.to_thread.run_sync(groups[0].status)
