"""Cancelling a run: running nodes finish and are published, and the next run continues from there."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from furu import Furu, FuruComputeError, Status, run_local, run_local_async
from furu.events import NodeStarted, RunFinished
from furu.node.base import artifact_of
from tests.graphs import AsyncNode, Computed, Node, actions, chain, flat, recording


@pytest.fixture(autouse=True)
def record() -> Iterator[Computed]:
    """Record what this test's nodes compute."""
    with recording() as computed:
        yield computed


class Gate:
    """Blocks nodes in `_create` until it is opened. The test can wait for a number of nodes to arrive."""

    def __init__(self, nodes: list[Any], wait_for: int) -> None:
        self._open = threading.Event()
        self._arrived = threading.Semaphore(0)
        self._wait_for = wait_for
        for node in nodes:
            actions[node.name] = self._hold

    def _hold(self) -> None:
        self._arrived.release()
        assert self._open.wait(10)

    async def wait_until_computing(self) -> None:
        for _ in range(self._wait_for):
            await anyio.to_thread.run_sync(self._arrived.acquire)

    def open(self) -> None:
        self._open.set()


async def statuses(nodes: list[Any]) -> list[Status]:
    """Read the statuses from the store, outside the event loop."""
    return await anyio.to_thread.run_sync(lambda: [node.status() for node in nodes])


def check_end(found: list[Status], *, computing: int, total: int) -> None:
    """Check that the nodes that were computing are DONE and that the others never started."""
    assert [Status.DONE] * computing + [Status.TODO] * (total - computing) == found


@asynccontextmanager
async def finishes_the_next_run(nodes: list[Any]) -> AsyncIterator[None]:
    """After the block, check that another run computes exactly the remaining nodes."""
    yield
    actions.clear()
    left = [status for status in await statuses(nodes) if status is Status.TODO]
    report = await run_local_async(nodes)
    assert (len(left), len(nodes) - len(left)) == (report.computed, report.reused)


@pytest.mark.anyio
async def test_cancelled_scope_lets_running_nodes_finish_and_publish() -> None:
    """Other nodes are skipped, no node stays in progress, and the last event has the counts."""
    nodes = flat(6)
    gate = Gate(nodes, wait_for=2)
    events: list[object] = []
    async with finishes_the_next_run(nodes):
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:

                async def cancel() -> None:
                    await gate.wait_until_computing()
                    scope.cancel()
                    gate.open()

                tasks.start_soon(cancel)
                await run_local_async(nodes, max_workers=2, on_event=events.append)
        assert scope.cancelled_caught
        check_end(await statuses(nodes), computing=2, total=6)
    end = events[-1]
    assert isinstance(end, RunFinished)
    assert ("cancelled", 2, 4, 0) == (end.end, end.report.computed, end.report.skipped, end.report.failed)


@pytest.mark.anyio
async def test_cancelled_scope_lets_an_async_node_finish_and_publish() -> None:
    """A node on the event loop is treated like a node in a thread."""
    nodes = [AsyncNode(name=f"a{i}") for i in range(3)]
    entered, release = anyio.Event(), anyio.Event()

    async def hold() -> None:
        entered.set()
        await release.wait()

    actions["a0"] = hold
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:

            async def cancel() -> None:
                await entered.wait()
                scope.cancel()
                with anyio.CancelScope(shield=True):
                    await anyio.lowlevel.checkpoint()
                release.set()

            tasks.start_soon(cancel)
            await run_local_async(nodes, max_async=1)
    assert scope.cancelled_caught
    check_end(await statuses(nodes), computing=1, total=3)


@pytest.mark.parametrize("times", [1, 3])
def test_native_task_cancel_lets_running_nodes_finish_and_publish(times: int) -> None:
    """This also works if the task is cancelled several times."""
    nodes = flat(5)
    gate = Gate(nodes, wait_for=2)

    async def main() -> None:
        task = asyncio.create_task(run_local_async(nodes, max_workers=2))
        await gate.wait_until_computing()
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        gate.open()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        check_end(await statuses(nodes), computing=2, total=5)

    asyncio.run(main())


def test_wait_for_that_times_out_lets_running_nodes_finish_and_publish() -> None:
    """The caller gets its TimeoutError after the nodes have finished."""
    nodes = flat(5)
    gate = Gate(nodes, wait_for=2)

    async def main() -> None:
        # Two nodes start within a few milliseconds, long before the timeout.
        asyncio.get_running_loop().call_later(0.4, gate.open)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run_local_async(nodes, max_workers=2), 0.3)
        check_end(await statuses(nodes), computing=2, total=5)

    asyncio.run(main())


def test_wait_for_returns_the_report_of_a_run_in_time() -> None:

    async def main() -> None:
        report = await asyncio.wait_for(run_local_async(flat(3)), 10)
        assert 3 == report.computed
        task = asyncio.current_task()
        assert task is not None
        assert 0 == task.cancelling()

    asyncio.run(main())


@pytest.mark.anyio
async def test_failure_during_a_cancellation_is_recorded() -> None:
    """The run itself still ends as cancelled, not as failed."""
    nodes = flat(2)
    gate = Gate(nodes[1:], wait_for=1)
    entered = threading.Event()
    cancelled = threading.Event()

    def fail() -> None:
        entered.set()
        cancelled.wait(10)
        raise ValueError("late")

    actions["f0"] = fail
    events: list[object] = []
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:

            async def cancel() -> None:
                await gate.wait_until_computing()
                await anyio.to_thread.run_sync(entered.wait)
                scope.cancel()
                cancelled.set()
                gate.open()

            tasks.start_soon(cancel)
            await run_local_async(nodes, max_workers=2, on_event=events.append)
    assert [Status.FAILED, Status.DONE] == await statuses(nodes)
    end = events[-1]
    assert isinstance(end, RunFinished)
    assert ("cancelled", 1, 1) == (end.end, end.report.computed, end.report.failed)


@pytest.mark.anyio
async def test_run_that_is_cancelled_before_it_starts_computes_nothing(record: Computed) -> None:
    """The run leaves no claim either."""
    nodes = flat(3)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await run_local_async(nodes)
    assert [] == record.order
    assert [Status.TODO] * 3 == await statuses(nodes)


@pytest.mark.anyio
async def test_limiter_tokens_and_tasks_are_returned_after_a_cancellation() -> None:
    """A second run on the same event loop can use all its workers."""
    for _ in range(3):
        nodes = [Node(name=f"x{i}") for i in range(4)]
        gate = Gate(nodes, wait_for=2)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:

                async def cancel(gate: Gate = gate, scope: anyio.CancelScope = scope) -> None:
                    await gate.wait_until_computing()
                    scope.cancel()
                    gate.open()

                tasks.start_soon(cancel)
                await run_local_async(nodes, max_workers=2)
        actions.clear()
        assert 2 == (await run_local_async(nodes, max_workers=2)).computed
        await anyio.to_thread.run_sync(lambda nodes=nodes: [remove(node) for node in nodes])


def remove(node: Furu[Any]) -> None:
    """Remove a node from the store."""
    artifact_of(node).path.unlink()


class EndlessChain(Furu[int]):
    """A node of an endless chain, so that discovery never finishes by itself."""

    n: int

    def _dependencies(self) -> list[Furu[Any]]:
        seen_deep.set() if self.n == 1000 else None
        return [EndlessChain(n=self.n + 1)]

    def _create(self) -> int:
        return self.n


seen_deep = threading.Event()


@pytest.mark.anyio
async def test_cancellation_stops_an_endless_discovery() -> None:
    """The walk stops too, although it runs in a thread."""
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:

            async def cancel() -> None:
                await anyio.to_thread.run_sync(seen_deep.wait)
                scope.cancel()

            tasks.start_soon(cancel)
            await run_local_async([EndlessChain(n=0)])
    assert scope.cancelled_caught


@pytest.mark.anyio
@pytest.mark.parametrize("end", ["cancelled", "failed"])
async def test_slow_generator_of_roots_does_not_outlast_grace_sec(end: str, record: Computed) -> None:
    """The generator is abandoned in its thread, and roots that it yields later are ignored."""
    reading, let_go = threading.Event(), threading.Event()

    def roots() -> Iterator[Node]:
        yield from flat(300)  # more than one discovery step finds
        reading.set()
        assert let_go.wait(20)
        yield Unlooked(name="late")

    def fail() -> None:
        raise ValueError("bad")

    if end == "failed":
        actions["f0"] = fail
    with anyio.fail_after(10), anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:

            async def cancel() -> None:
                await anyio.to_thread.run_sync(reading.wait)
                scope.cancel()

            if end == "cancelled":
                tasks.start_soon(cancel)
            with suppress(FuruComputeError):
                await run_local_async(roots(), grace_sec=0.01, max_workers=2)
    looks.clear()
    dropped.clear()
    let_go.set()
    with anyio.fail_after(10):
        while end == "cancelled" and not dropped.is_set():  # a failure's log record keeps its run alive
            await anyio.sleep(0.01)
            gc.collect()
    assert [] == looks
    assert "late" not in record.order


looks: list[str] = []
dropped = threading.Event()


class Unlooked(Node):
    """A node that reports when discovery reads its dependencies and when it is garbage collected."""

    def __del__(self) -> None:
        dropped.set()

    def _dependencies(self) -> list[Furu[Any]]:
        looks.append(self.name)
        return []


SCRIPT = """
import os
from furu import run_local
from furu.execution.discovery import Discovery
from tests.graphs import actions, flat

def hold():
    os.write(1, b"computing\\n")  # in one piece, whatever the other thread writes
    os.read(0, 1)

def stop(self, stop=Discovery.stop):
    stop(self)
    os.write(1, b"stopping\\n")

Discovery.stop = stop

nodes = flat(6)
for node in nodes:
    actions[node.name] = hold
try:
    run_local(nodes, max_workers=2)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    print(*(node.status() for node in nodes), flush=True)
"""


def start_script(**extra: str) -> subprocess.Popen[str]:
    """Start SCRIPT, which blocks two nodes in `_create` until the test writes to its stdin."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **extra}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(__file__).parent.parent,
    )


def test_ctrl_c_lets_running_nodes_finish_and_publish() -> None:
    """Then `run_local` raises KeyboardInterrupt. The log has one line about the run."""
    with start_script() as script:
        assert script.stdout is not None
        assert script.stdin is not None
        assert script.stderr is not None
        for _ in range(2):
            assert "computing\n" == script.stdout.readline()
        script.send_signal(signal.SIGINT)
        assert "stopping\n" == script.stdout.readline()
        script.stdin.write("\n\n")
        script.stdin.flush()
        assert "interrupted\n" == script.stdout.readline()
        assert "DONE DONE TODO TODO TODO TODO\n" == script.stdout.readline()
        said = script.stderr.read()
    assert "run cancelled: computed 2, reused 0, failed 0, skipped 4" in said
    nodes = flat(6)
    report = run_local(nodes)
    assert (4, 2) == (report.computed, report.reused)


def test_killed_process_leaves_its_nodes_to_the_next_run() -> None:
    """Both nodes were in progress. The next run takes them over without waiting for a lease."""
    nodes = flat(6)
    with start_script() as script:
        assert script.stdout is not None
        for _ in range(2):
            script.stdout.readline()
        assert [Status.IN_PROGRESS] * 2 == [node.status() for node in nodes[:2]]
        script.kill()
    assert [Status.TODO] * 2 == [node.status() for node in nodes[:2]]
    assert 6 == run_local(nodes).computed


def test_sigterm_handler_is_installed_in_the_main_thread_only() -> None:
    """In other threads `_setup_signal_handlers` does nothing."""
    before = signal.getsignal(signal.SIGTERM)

    def in_thread(call: Callable[[], None]) -> None:
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()

    problems: list[BaseException] = []

    def set_up() -> None:
        try:
            Furu._setup_signal_handlers()
        except BaseException as error:
            problems.append(error)

    in_thread(set_up)
    assert [] == problems
    assert before == signal.getsignal(signal.SIGTERM)
    try:
        Furu._setup_signal_handlers()
        assert before != signal.getsignal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.anyio
async def test_run_that_is_cancelled_has_started_no_more_nodes_than_workers() -> None:
    """Nodes start only if a worker is free, so cancelling need not withdraw started nodes."""
    nodes = [*flat(8), chain(4)]
    gate = Gate(nodes[:8], wait_for=3)
    events: list[object] = []
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:

            async def cancel() -> None:
                await gate.wait_until_computing()
                scope.cancel()
                gate.open()

            tasks.start_soon(cancel)
            await run_local_async(nodes, max_workers=3, on_event=events.append)
    assert 3 == sum(isinstance(event, NodeStarted) for event in events)


def test_logging_of_a_finished_run_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    """The run logs one line at level INFO."""
    with caplog.at_level(logging.INFO, "furu.run"):
        run_local(flat(2))
    lines = [record for record in caplog.records if record.name == "furu.run"]
    assert [logging.INFO] == [record.levelno for record in lines]
    assert lines[0].getMessage().startswith("run finished: computed 2, reused 0, failed 0 in ")
