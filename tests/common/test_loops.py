"""Event loops: blocking calls in threads without a loop, and what a cancellation may interrupt."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from furu import Status, run_local, run_local_async
from furu._common.loops import is_being_cancelled, run_in_new_loop, shielded
from furu.events import Event, RunFinished
from tests.graphs import AsyncNode, Computed, Node, actions, chain, flat, recording


@pytest.fixture(autouse=True)
def record() -> Iterator[Computed]:
    """The record of the nodes that the test computes."""
    with recording() as computed:
        yield computed


# ---- blocking calls and new loops ----

BLOCKING: dict[str, Callable[[], Any]] = {
    "run_local": lambda: run_local(flat(3)).computed,
    "run_local of async nodes": lambda: run_local([AsyncNode(name=f"a{n}") for n in range(3)]).computed,
    "get() of an async node": lambda: AsyncNode(name="a", below=(chain(2),)).get(),
}


@pytest.mark.parametrize("what", BLOCKING)
@pytest.mark.parametrize(
    "start", [lambda main: asyncio.run(main()), anyio.run], ids=["asyncio.run", "anyio.run"]
)
def test_blocking_calls_work_in_a_thread_of_asyncio(what: str, start: Callable[..., Any]) -> None:
    """`asyncio.to_thread` copies a context variable that makes the thread look as if it had a loop."""

    async def main() -> None:
        assert 3 == await asyncio.to_thread(BLOCKING[what])

    start(main)


@pytest.mark.anyio
@pytest.mark.parametrize("what", BLOCKING)
async def test_blocking_calls_work_in_a_thread_of_anyio(what: str) -> None:
    """anyio may run on asyncio or on trio."""
    assert 3 == await anyio.to_thread.run_sync(BLOCKING[what])


@pytest.mark.parametrize("what", BLOCKING)
def test_blocking_calls_work_in_a_thread_of_an_async_node(what: str) -> None:
    """A node of one run starts another run."""
    if what.startswith("get"):
        pytest.skip("get() computes nothing inside a worker")
    actions["outer"] = lambda: asyncio.to_thread(BLOCKING[what])
    assert 1 == run_local([AsyncNode(name="outer")]).computed


def test_new_loop_sees_the_context_variables_of_its_caller() -> None:
    """Variables that the function sets in the new loop do not change for the caller."""
    variable: ContextVar[str] = ContextVar("variable", default="none")
    variable.set("outside")

    async def function(argument: str) -> tuple[str, str]:
        seen = variable.get()
        variable.set("inside")
        await anyio.lowlevel.checkpoint()
        return argument, seen

    assert ("argument", "outside") == run_in_new_loop(function, "argument")
    assert "outside" == variable.get()


def test_interrupt_of_the_main_thread_cancels_its_loop_and_waits_for_the_end() -> None:
    """The main thread raises KeyboardInterrupt after the function has ended, never in the loop's code."""
    ended = []

    async def function() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await anyio.sleep(10)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.01)
            ended.append(threading.current_thread())

    with pytest.raises(KeyboardInterrupt):
        run_in_new_loop(function)
    assert len(ended) == 1
    assert ended[0] is not threading.main_thread()


def test_second_interrupt_of_the_main_thread_ends_the_wait() -> None:
    """The function still runs to its end in its thread."""
    let_go, ended = threading.Event(), threading.Event()

    async def function() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await anyio.sleep(10)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(let_go.wait)
            ended.set()

    with pytest.raises(KeyboardInterrupt):
        run_in_new_loop(function)
    assert not ended.is_set()
    let_go.set()
    assert ended.wait(10)


# ---- shielded calls ----


class Slow:
    """Blocks a thread until `let_go` is set."""

    def __init__(self) -> None:
        self.begun, self.let_go = threading.Event(), threading.Event()
        self.ended = False

    def __call__(self) -> str:
        self.begun.set()
        assert self.let_go.wait(10)
        self.ended = True
        return "result"


@pytest.mark.parametrize("times", [1, 2, 5])
def test_shielded_call_outlasts_native_cancellations_and_returns_its_result(times: int) -> None:
    """The cancellations are raised at the caller's next await, after the call has returned."""
    slow, results = Slow(), []

    async def call() -> None:
        results.append(await shielded(slow))
        results.append(is_being_cancelled())
        await asyncio.sleep(10)

    async def main() -> None:
        task = asyncio.create_task(call())
        await asyncio.to_thread(slow.begun.wait)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        slow.let_go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert times == task.cancelling()
        assert ["result", True] == results

    asyncio.run(main())


def test_timeout_around_a_shielded_call_is_a_timeout() -> None:
    """If the shielded call requested a cancellation too many, the task would count as cancelled."""
    slow = Slow()

    async def main() -> None:
        asyncio.get_running_loop().call_later(0.05, slow.let_go.set)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await shielded(slow)
                await asyncio.sleep(10)
        assert slow.ended

    asyncio.run(main())


def test_error_of_a_shielded_call_that_was_cancelled_is_raised() -> None:
    begun, let_go = threading.Event(), threading.Event()

    def fail() -> None:
        begun.set()
        assert let_go.wait(10)
        raise ValueError("bad")

    async def main() -> None:
        task = asyncio.create_task(shielded(fail))
        await asyncio.to_thread(begun.wait)
        task.cancel()
        await asyncio.sleep(0)
        let_go.set()
        with pytest.raises(ValueError, match="bad"):
            await task

    asyncio.run(main())


def test_cancelled_shielded_call_that_has_not_begun_never_begins() -> None:
    """The task is cancelled while all threads for disk operations are busy."""
    slow, calls = [Slow() for _ in range(8)], []

    async def main() -> None:
        busy = [asyncio.create_task(shielded(call)) for call in slow]
        for call in slow:
            await asyncio.to_thread(call.begun.wait)
        task = asyncio.create_task(shielded(calls.append, 1))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for call in slow:
            call.let_go.set()
        await asyncio.gather(*busy)

    asyncio.run(main())
    assert [] == calls


# ---- native cancellation of runs ----


async def sleep_forever() -> None:
    """Wait until the task is cancelled."""
    await asyncio.sleep(1000)


def test_async_node_of_a_run_that_the_end_of_the_loop_cancels_has_not_failed() -> None:
    """`asyncio.run` cancels all remaining tasks at its end: the node's and the run's."""
    node, events = AsyncNode(name="slow"), list[Event]()
    computing = asyncio.Event()

    async def hold() -> None:
        computing.set()
        await sleep_forever()

    actions["slow"] = hold

    async def main() -> None:
        tasks.append(asyncio.create_task(run_local_async([node, *flat(2)], on_event=events.append)))
        await computing.wait()

    tasks: list[asyncio.Task[Any]] = []
    asyncio.run(main())
    assert tasks[0].cancelled()
    assert Status.TODO is node.status()
    end = events[-1]
    assert isinstance(end, RunFinished)
    assert ("cancelled", 0) == (end.end, end.report.failed)
    actions.clear()
    assert 1 == run_local([node]).computed


def test_run_whose_nodes_task_was_cancelled_is_cancelled() -> None:
    """The run raises `CancelledError`. It neither hangs nor fails."""
    node, computing = AsyncNode(name="slow"), asyncio.Event()
    task: list[Any] = []

    async def hold() -> None:
        task.append(asyncio.current_task())
        computing.set()
        await sleep_forever()

    actions["slow"] = hold

    async def main() -> None:
        run = asyncio.create_task(run_local_async([node, *flat(3)]))
        await computing.wait()
        task[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(run, 10)

    asyncio.run(main())
    assert Status.TODO is node.status()


def test_run_with_a_cancelled_task_is_cancelled() -> None:
    """The run raises `CancelledError`, although no node has failed."""
    computing, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        computing.set()
        assert let_go.wait(10)

    actions["f0"] = hold

    async def main() -> None:
        before = asyncio.all_tasks()
        run = asyncio.create_task(run_local_async(flat(3), max_workers=1))
        await asyncio.to_thread(computing.wait)
        for task in asyncio.all_tasks() - before - {run}:
            task.cancel()
        await asyncio.sleep(0)
        let_go.set()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(run, 10)

    asyncio.run(main())
    # The thread may still compute nodes that were queued for it. No node stays claimed.
    first, *others = [node.status() for node in flat(3)]
    assert first is Status.DONE
    assert {*others} <= {Status.DONE, Status.TODO}


@pytest.mark.parametrize("times", [1, 2])
def test_natively_cancelled_run_waits_no_longer_than_grace_sec(times: int) -> None:
    """A second cancellation does not end the wait early either."""
    node, computing, let_go = Node(name="slow"), threading.Event(), threading.Event()

    def hold() -> None:
        computing.set()
        assert let_go.wait(10)

    actions["slow"] = hold

    async def main() -> None:
        task = asyncio.create_task(run_local_async([node], grace_sec=0.2))
        await asyncio.to_thread(computing.wait)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(task), 5)
        assert not let_go.is_set()
        let_go.set()

    asyncio.run(main())
