"""Stopping `Runs` before, in and after the block, and errors that end the block."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from furu import FuruError, FuruUsageError
from furu.service import RunCancelledError, Runs, RunsClosedError
from tests.graphs import AsyncNode, Computed, diamond
from tests.service.gates import Gate

pytestmark = pytest.mark.anyio


def in_a_thread(stop: Callable[[], None]) -> None:
    """Call `stop` in a thread without an event loop, and join the thread."""
    thread = threading.Thread(target=stop)
    thread.start()
    thread.join()


def in_a_signal_handler(stop: Callable[[], None]) -> None:
    """Call `stop` in a signal handler, which runs between two bytecodes of the main thread."""
    before = signal.signal(signal.SIGUSR1, lambda *_: stop())
    try:
        signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def plainly(stop: Callable[[], None]) -> None:
    """Call `stop` directly."""
    stop()


WAYS = [plainly, in_a_thread, in_a_signal_handler]


@pytest.mark.parametrize("way", WAYS)
async def test_stop_before_the_block_is_remembered(way: Callable[..., None], computed: Computed) -> None:
    """No run starts in the block, and leaving it does not wait."""
    runs = Runs(grace_sec=60)
    way(runs.stop)
    with anyio.fail_after(10):
        async with runs:
            with pytest.raises(RunsClosedError, match="shutting down"):
                await runs.submit([diamond()])
    assert ([], {}) == (runs.recent(), computed.counts())


@pytest.mark.parametrize("way", WAYS)
async def test_no_run_starts_after_stop_even_before_the_loop_runs_again(way: Callable[..., None]) -> None:
    async with Runs() as runs:
        way(runs.stop)
        with pytest.raises(RunsClosedError, match="shutting down"):
            await runs.submit([diamond()])


@pytest.mark.parametrize("way", WAYS)
async def test_stop_after_the_block_changes_nothing(way: Callable[..., None]) -> None:
    async with Runs() as runs:
        pass
    way(runs.stop)
    with pytest.raises(RunsClosedError, match="has ended"):
        await runs.submit([diamond()])


def test_stop_after_the_loop_has_ended_does_not_raise(anyio_backend: str) -> None:
    runs = Runs()

    async def live() -> None:
        async with runs:
            pass

    anyio.run(live, backend=anyio_backend)
    runs.stop()

    async def follow() -> None:
        with pytest.raises(RunsClosedError, match="has ended"):
            await runs.submit([diamond()])
        with pytest.raises(RuntimeError, match="make new Runs"):
            await runs.__aenter__()

    anyio.run(follow, backend=anyio_backend)


async def test_stop_cancels_queued_runs_at_once() -> None:
    """Queued runs do not wait for the grace period of running ones."""
    gate = Gate("a")
    async with Runs(max_running=1, grace_sec=60) as runs:
        first = await runs.submit([AsyncNode(name="a")])
        await gate.begun.wait()
        second = await runs.submit([AsyncNode(name="b")])
        runs.stop()
        with pytest.raises(RunCancelledError):
            await second.wait()
        gate.opened.set()
        assert 1 == (await first.wait()).computed


async def test_runs_of_another_loop_are_rejected(anyio_backend: str) -> None:
    async with Runs() as runs:

        async def follow() -> None:
            with pytest.raises(FuruUsageError, match="another event loop"):
                await runs.submit([diamond()])

        await anyio.to_thread.run_sync(lambda: anyio.run(follow, backend=anyio_backend))
        assert 4 == (await (await runs.submit([diamond()])).wait()).computed


async def test_run_that_is_not_kept_can_still_be_read_by_its_followers() -> None:
    async with Runs(keep=0) as runs:
        run = await runs.submit([diamond()])
        assert 4 == (await run.wait()).computed
        assert ("finished", None, []) == (run.state, runs.get(run.id), runs.recent())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ExceptionGroup("two", [ValueError("a"), KeyError("b")]), FuruError),
        (ExceptionGroup("one", [ExceptionGroup("one", [ValueError("a")])]), ValueError),
        (BaseExceptionGroup("odd", [GeneratorExit(), ValueError("a")]), FuruError),
        (GeneratorExit(), FuruError),
        (LookupError("a"), LookupError),
    ],
    ids=repr,
)
async def test_followers_never_get_an_exception_group(
    error: BaseException, expected: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    """Followers get the only error of a group, or an error whose cause is the group."""

    async def compute(roots: Any, **_: object) -> Any:
        raise error

    async with Runs(compute=compute) as runs:
        run = await runs.submit([diamond()])
        for _ in range(2):
            with pytest.raises(expected) as raised:
                await run.wait()
            assert not isinstance(raised.value, BaseExceptionGroup)
            assert len(raised.traceback) < 5, "the error keeps the frames of its followers"
        assert ("failed", []) == (run.state, runs.live())
    assert "ended with an error" in caplog.text


@pytest.mark.parametrize("grouped", [False, True])
async def test_interrupt_in_a_run_stops_the_service_and_is_raised_unwrapped(grouped: bool) -> None:
    """All runs end before the interrupt is raised."""
    go_on = anyio.Event()

    async def compute(roots: Any, **_: object) -> Any:
        if roots[0].name == "a":
            await anyio.sleep_forever()
        await go_on.wait()
        if grouped:
            raise BaseExceptionGroup("of a task group", [SystemExit(7), ValueError()])
        raise SystemExit(7)

    followed = []
    with pytest.raises(SystemExit, match="7"):
        async with Runs(compute=compute) as runs:
            followed += [await runs.submit([AsyncNode(name=name)]) for name in "ab"]
            go_on.set()
            await anyio.sleep_forever()
    assert ["cancelled", "failed"] == [run.state for run in followed]
    assert [] == runs.live()
    await anyio.lowlevel.checkpoint()  # no cancellation is left over
