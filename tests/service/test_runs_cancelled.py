"""A follower that is cancelled at any step of the event loop leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from furu._common.loops import in_thread
from furu.service import Run, RunCancelledError, Runs
from furu.web import FollowRun
from tests.graphs import AsyncNode
from tests.web.asgi_calls import ask

pytestmark = pytest.mark.anyio


class CancelledAt:
    """Awaits a coroutine and calls `cancel` before one of its steps."""

    def __init__(self, work: Coroutine[Any, Any, None], step: int, cancel: Callable[[], object]) -> None:
        self._work, self._step, self._cancel = work, step, cancel
        self.was_reached = False

    def __await__(self) -> Generator[Any, Any, None]:
        steps, sent, error = 0, None, None
        while True:
            steps += 1
            if steps == self._step:
                self.was_reached = True
                self._cancel()
            try:
                wanted = self._work.throw(error) if error is not None else self._work.send(sent)
            except StopIteration:
                return
            sent, error = None, None
            try:
                sent = yield wanted
            except BaseException as raised:
                error = raised


async def cancelled_by_a_scope(work: Coroutine[Any, Any, None], step: int) -> bool:
    """Cancel a scope, as anyio and trio do. Return whether the work reached this step."""
    with anyio.CancelScope() as scope:
        stepped = CancelledAt(work, step, scope.cancel)
        await stepped
    return stepped.was_reached


async def cancelled_natively(work: Coroutine[Any, Any, None], step: int) -> bool:
    """Cancel the task, as asyncio does. Return whether the work reached this step."""

    async def run() -> None:
        task = asyncio.current_task()
        assert task is not None
        stepped = CancelledAt(work, step, task.cancel)
        try:
            await stepped
        finally:
            reached.append(stepped.was_reached)

    reached: list[bool] = []
    await asyncio.wait([asyncio.create_task(run())])
    return reached[0]


async def follow(runs: Runs, roots: list[Any]) -> None:
    """Follow a run until it ends."""
    async with runs.follow(roots) as run:
        await run.wait()


async def submit(runs: Runs, roots: list[Any]) -> None:
    """Submit a run, and wait for it without following it."""
    await (await runs.submit(roots)).wait()


async def answer(runs: Runs, roots: list[Any]) -> None:
    """Follow a run for a client that waits for the result."""
    await ask(FollowRun(runs, roots), "/")


async def stream(runs: Runs, roots: list[Any]) -> None:
    """Follow a run for a client that reads its progress."""
    await ask(FollowRun(runs, roots, stream=True, pace_sec=0), "/")


@pytest.mark.parametrize("way", [follow, submit, answer, stream], ids=lambda way: way.__name__)
@pytest.mark.parametrize("cancelled", [cancelled_by_a_scope, cancelled_natively], ids=["scope", "native"])
async def test_follower_that_is_cancelled_at_any_step_leaves_nothing_behind(
    way: Callable[..., Coroutine[Any, Any, None]],
    cancelled: Callable[[Coroutine[Any, Any, None], int], Awaitable[bool]],
    anyio_backend: str,
) -> None:
    """All slots are free, and later runs of the same roots finish."""
    if cancelled is cancelled_natively and anyio_backend == "trio":
        pytest.skip("trio has no other way than scopes")
    step = 0
    reached = True
    async with Runs(max_running=1, max_queued=1, cancel_sec=0, keep=1000) as runs:
        while reached:
            step += 1
            reached = await cancelled(way(runs, [AsyncNode(name=f"n{step}")]), step)
            for run in runs.live():
                await run.wait_ended()
            await _is_free(runs)
        kept: list[Run] = runs.recent()
        assert {0} == {run._followers for run in kept}
        assert {"finished", "cancelled"} >= {run.state for run in kept}
        for number in range(1, step + 1):
            await submit(runs, [AsyncNode(name=f"n{number}")])
    assert step > 3, f"only {step} steps"


async def _is_free(runs: Runs) -> None:
    await in_thread(int)  # this would block if the limiter had lost its tokens
    await anyio.wait_all_tasks_blocked()
    assert ([], {}, 1) == (runs.live(), runs._joinable, runs._slots.value)


@pytest.mark.filterwarnings("ignore:coroutine 'Runs._execute' was never awaited")
async def test_task_of_a_run_that_is_cancelled_before_it_begins_is_settled(anyio_backend: str) -> None:
    """When a loop ends, asyncio cancels all its tasks, even tasks that have not started."""
    if anyio_backend == "trio":
        pytest.skip("on trio every task begins")
    runs = Runs()
    host = asyncio.current_task()
    async with runs:
        before = asyncio.all_tasks()
        run = await runs.submit([AsyncNode(name="a")])
        for task in asyncio.all_tasks() - before - {host}:
            task.cancel()
    del task
    gc.collect()  # collect the coroutine that never started while its warning is ignored
    with pytest.raises(RunCancelledError):
        await run.wait()
    assert ([], "cancelled") == (runs.live(), run.state)


async def test_service_that_is_cancelled_at_any_step_settles_its_runs() -> None:
    """The service raises only the cancellation."""
    step = 0
    reached = True
    while reached:
        step += 1
        followed: list[Run] = []

        async def serve(followed: list[Run] = followed, step: int = step) -> None:
            async with Runs(max_running=1, cancel_sec=0, grace_sec=0) as runs:
                for name in ("a", "b"):
                    followed.append(await runs.submit([AsyncNode(name=f"{name}{step}")]))
                await anyio.lowlevel.checkpoint()

        reached = await cancelled_by_a_scope(serve(), step)
        for run in followed:
            assert run.has_ended
            assert run.state in ("finished", "cancelled")
    assert step > 4, f"only {step} steps"
