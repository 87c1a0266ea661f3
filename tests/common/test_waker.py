"""Waking an event loop from other threads."""

from __future__ import annotations

from contextvars import ContextVar

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from furu._common.loops import Waker

pytestmark = pytest.mark.anyio


async def test_function_of_a_waker_runs_in_the_context_of_the_wakers_creator() -> None:
    """The context of the thread that calls `wake` does not matter."""
    variable: ContextVar[str] = ContextVar("variable")
    variable.set("loop")
    heard = anyio.Event()
    seen: list[str] = []

    def note() -> None:
        seen.append(variable.get())
        heard.set()

    waker = Waker(note)

    def wake() -> None:
        variable.set("thread")
        waker.wake()

    await anyio.to_thread.run_sync(wake)
    await heard.wait()
    assert ["loop"] == seen


async def test_wake_while_the_function_runs_calls_it_again() -> None:
    """The running call may have missed the latest change."""
    calls: list[int] = []
    again = anyio.Event()

    def note() -> None:
        calls.append(len(calls))
        if len(calls) == 1:
            waker.wake()
        else:
            again.set()

    waker = Waker(note)
    waker.wake()
    with anyio.fail_after(10):
        await again.wait()
    assert 2 == len(calls)


async def test_wakes_before_the_function_runs_make_one_call() -> None:
    calls: list[int] = []
    waker = Waker(lambda: calls.append(1))
    for _ in range(5):
        waker.wake()
    with anyio.fail_after(10):
        while not calls:
            await anyio.lowlevel.checkpoint()
    for _ in range(10):
        await anyio.lowlevel.checkpoint()
    assert [1] == calls
