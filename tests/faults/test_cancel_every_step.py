"""Runs are cancelled at every step of their event loop, one run for each step: nothing leaks, no node is
stuck, and every node that had started is published."""

from __future__ import annotations

import asyncio
import collections.abc
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio

from furu import Status, run_local_async, stream_local, use_settings
from tests.faults import figures
from tests.graphs import AsyncNode, Computed, Node, recording

# A run starts its helpers in the first steps. The short form tries only a few of the later steps.
LONG = os.environ.get("FURU_FAULTS") == "long"
ALL_OF_FIRST, EVERY = (10_000, 1) if LONG else (12, 7)


@pytest.fixture(autouse=True)
def record() -> Iterator[Computed]:
    """Record what this test's nodes compute."""
    with recording() as computed:
        yield computed


@pytest.fixture
def limiters(monkeypatch: pytest.MonkeyPatch) -> list[anyio.CapacityLimiter]:
    """Return a list of all limiters that the test creates."""
    made: list[anyio.CapacityLimiter] = []
    make = anyio.CapacityLimiter

    def making(*args: Any) -> anyio.CapacityLimiter:
        made.append(make(*args))
        return made[-1]

    monkeypatch.setattr(anyio, "CapacityLimiter", making)
    return made


class Steps:
    """Counts the steps of tasks. Calls a function `times` times: after step number `at`, and after each
    following step."""

    def __init__(self, at: int, times: int = 1) -> None:
        self.count = 0
        self._at = range(at, at + times)
        self.act: Callable[[], object] | None = None
        self._soon: Callable[[Callable[[], object]], object] | None = None

    def watch(self, act: Callable[[], object], soon: Callable[[Callable[[], object]], object]) -> None:
        """Start counting. `soon` schedules the call of `act` between two steps."""
        self.act, self._soon = act, soon

    def step(self) -> None:
        if self.act is not None and self._soon is not None:
            self.count += 1
            if self.count in self._at:
                self._soon(self.act)


class SteppingCoroutine(collections.abc.Coroutine[Any, Any, Any]):
    """A coroutine that counts its steps, for asyncio."""

    def __init__(self, coroutine: Any, steps: Steps) -> None:
        self._coroutine, self._steps = coroutine, steps

    def send(self, value: Any) -> Any:
        self._steps.step()
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        self._steps.step()
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Any:
        return self._coroutine.__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coroutine, name)


class SteppingTasks(trio.abc.Instrument):
    """Counts the steps of trio's tasks."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._steps.step()


def run_in_steps(backend: str, steps: Steps, main: Callable[[], Awaitable[None]]) -> None:
    """Run a function on an event loop whose tasks count their steps."""
    if backend == "trio":
        anyio.run(main, backend="trio", backend_options={"instruments": [SteppingTasks(steps)]})
        return

    async def begin() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(
            lambda loop, coroutine, **options: asyncio.Task(
                SteppingCoroutine(coroutine, steps), loop=loop, **options
            )
        )
        await main()

    anyio.run(begin)


def tasks_living() -> int:
    """Return the number of tasks of the running event loop."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return trio.lowlevel.current_statistics().tasks_living


def soon_here() -> Callable[[Callable[[], object]], object]:
    """Return a function that schedules a call between two steps of the running event loop."""
    try:
        return asyncio.get_running_loop().call_soon
    except RuntimeError:
        return trio.lowlevel.current_trio_token().run_sync_soon


def graph() -> list[Node | AsyncNode]:
    """Return an async node that depends on two nodes in threads, and two independent nodes."""
    left, right = Node(name="left"), Node(name="right")
    return [left, right, AsyncNode(name="top", below=(left, right)), Node(name="n"), AsyncNode(name="a")]


async def await_run(nodes: list[Any]) -> None:
    """Run the nodes with `run_local_async`."""
    await run_local_async(nodes, max_workers=2)


async def read_stream(nodes: list[Any]) -> None:
    """Run the nodes with `stream_local`, and read all events."""
    async with stream_local(nodes, max_workers=2) as events:
        async for _ in events:
            pass


async def cancel_scope(call: Awaitable[None], steps: Steps) -> bool:
    """Cancel a call through a scope, and return whether it was cancelled."""
    with anyio.CancelScope() as scope:
        steps.watch(scope.cancel, soon_here())
        await call
    return scope.cancelled_caught


async def cancel_task(call: Awaitable[None], steps: Steps) -> bool:
    """Cancel the task of a call, and return whether it was cancelled."""

    async def run() -> None:
        await call

    task = asyncio.ensure_future(run())
    steps.watch(task.cancel, soon_here())
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    return task.cancelled()


def numbers() -> Iterator[int]:
    """Yield the steps at which to cancel."""
    number = 1
    while True:
        yield number
        number += 1 if number < ALL_OF_FIRST else EVERY


@pytest.mark.parametrize("call", [await_run, read_stream])
@pytest.mark.parametrize(
    ("backend", "cancel", "times"),
    [
        ("asyncio", cancel_scope, 1),
        ("trio", cancel_scope, 1),
        ("asyncio", cancel_task, 1),
        ("asyncio", cancel_task, 2),
    ],
    ids=["asyncio-scope", "trio-scope", "asyncio-task", "asyncio-task-twice"],
)
def test_run_that_is_cancelled_at_any_step_leaves_nothing_behind(
    backend: str,
    cancel: Callable[[Awaitable[None], Steps], Awaitable[bool]],
    times: int,
    call: Callable[[list[Any]], Awaitable[None]],
    tmp_path: Path,
    record: Computed,
    limiters: list[anyio.CapacityLimiter],
) -> None:
    """No tasks, tokens or busy threads are left. Nodes are published or free, and computed once."""
    figures.count("runs cancelled at a step of the loop", 0)
    figures.count("nodes stuck after a cancelled run", 0)
    for number in numbers():
        record.order.clear()
        limiters.clear()
        nodes, steps = graph(), Steps(number, times)
        cancelled, left = [], []

        async def main(
            nodes: list[Any] = nodes, steps: Steps = steps, cancelled: Any = cancelled, left: Any = left
        ) -> None:
            before = tasks_living()
            with anyio.fail_after(20):
                cancelled.append(await cancel(call(nodes), steps))
            left.append(tasks_living() - before)

        with use_settings(store=tmp_path / str(number)):
            run_in_steps(backend, steps, main)
            statuses = {node.name: node.status() for node in nodes}
        figures.count("runs cancelled at a step of the loop", int(cancelled[0]))
        stuck = [name for name, status in statuses.items() if status is Status.IN_PROGRESS]
        figures.count("nodes stuck after a cancelled run", len(stuck))
        assert [] == stuck, number
        assert [0] == left, number
        assert {0} >= {limiter.borrowed_tokens for limiter in limiters}, number
        assert not [thread for thread in threading.enumerate() if thread.name == "furu-abandoned"]
        begun = set(record.order)
        assert len(begun) == len(record.order)
        assert begun == {name for name, status in statuses.items() if status is Status.DONE}, number
        if steps.count < number:
            assert not cancelled[0]
            break
