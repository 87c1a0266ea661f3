"""Event loops, asyncio's or trio's: whether one runs here, and doing off it what would block it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import math
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, TypeVarTuple, cast

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from furu._common.steps import Step, begin_in_new_thread

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

# Threads for what touches the disk, per event loop.
_DISK_THREADS = 8
_disk_limiter: RunVar[anyio.CapacityLimiter] = RunVar("furu_disk_limiter")
# Threads for what calls methods of a class's own. They may wait for nodes that need such a thread too, so
# there is no limit: the nodes that are asked for at once are one.
_long_limiter: RunVar[anyio.CapacityLimiter] = RunVar("furu_long_limiter")


async def in_thread(function: Callable[[*Ts], R], *args: *Ts) -> R:
    """Do what touches the disk off the event loop, under a limiter that the host's own threads cannot
    use up: a host thread may be waiting for this very node."""
    try:
        limiter = _disk_limiter.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_DISK_THREADS)
        _disk_limiter.set(limiter)
    return await anyio.to_thread.run_sync(function, *args, limiter=limiter)


async def in_own_thread(function: Callable[[*Ts], R], *args: *Ts) -> R:
    """Do what calls a class's own methods, and so may take long or wait for a node, in a thread that no
    disk operation waits for.
    """
    try:
        limiter = _long_limiter.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(math.inf)
        _long_limiter.set(limiter)
    return await anyio.to_thread.run_sync(function, *args, limiter=limiter)


async def shielded(function: Callable[[*Ts], R], *args: *Ts) -> R:
    """`in_thread` to its end, however the task is cancelled: a claim whose caller has gone would hold the
    node up for as long as this process lives.

    A cancellation that comes meanwhile, by asyncio's own `Task.cancel()` too, is delivered at the caller's
    next await; the caller has the result by then.
    """
    call: concurrent.futures.Future[R] = concurrent.futures.Future()

    def run() -> None:
        if call.set_running_or_notify_cancel():
            try:
                call.set_result(function(*args))
            except BaseException as error:
                call.set_exception(error)

    with anyio.CancelScope(shield=True):
        try:
            await in_thread(run)
        except asyncio.CancelledError as error:  # no scope shields from Task.cancel()
            if call.cancel():  # it had not begun
                raise
            await _wait_ended(call)
            task = asyncio.current_task()
            assert task is not None  # noqa: S101  # this function runs in one
            task.uncancel()  # the same request once more
            task.cancel(*error.args)
    return call.result()


async def _wait_ended(call: concurrent.futures.Future[Any]) -> None:
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    call.add_done_callback(lambda _: loop.call_soon_threadsafe(ended.set_result, None))
    while not ended.done():
        with contextlib.suppress(asyncio.CancelledError):  # delivered later, as the first one is
            await asyncio.wait([ended])


def is_being_cancelled() -> bool:
    """Whether the running task is being cancelled, through a scope or by asyncio's own `Task.cancel()`."""
    if anyio.current_effective_deadline() == -math.inf:
        return True
    task = asyncio.current_task() if _runs_asyncio() else None
    return task is not None and task.cancelling() > 0


def run_in_new_loop(function: Callable[[*Ts], Awaitable[R]], *args: *Ts) -> R:
    """Run an async function on an asyncio loop of its own, in a thread that runs none.

    For the main thread the loop runs in another thread, where no interrupt is raised: one that is raised in
    the event loop's own code can leave that hanging, or the thread unable to run a loop again. An interrupt
    cancels the function and waits for its end; the next one ends the waiting.
    """
    if threading.current_thread() is not threading.main_thread():
        return run_loop_here(function, *args)
    call = _Cancellable(function, args)
    step = Step(run_loop_here, (call.run,))
    try:
        begin_in_new_thread(step)
        return cast(R, step.wait())
    except BaseException:
        if not step.is_over:
            call.cancel()
            begin_in_new_thread(step)  # perhaps the interrupt came before it had begun
            step.wait_over()
        raise


def run_loop_here(function: Callable[[*Ts], Awaitable[R]], *args: *Ts) -> R:
    """`run_in_new_loop`, in this very thread.

    The caller's context variables are visible to it, but for the one in which anyio and sniffio record that
    a loop is running: `asyncio.to_thread` copies that one into a thread in which it is not true.
    """
    context = contextvars.copy_context()
    sniffio = sys.modules.get("sniffio")
    if sniffio is not None:
        context.run(sniffio.current_async_library_cvar.set, None)
    return context.run(lambda: anyio.run(function, *args))


class _Cancellable:
    """An async function that another thread may cancel, before it runs and while it does."""

    def __init__(self, function: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> None:
        self._function, self._args = function, args
        self._is_cancelled = False
        self._deliver: Callable[[], object] | None = None

    async def run(self) -> Any:
        with anyio.CancelScope() as scope:
            loop = asyncio.get_running_loop()
            self._deliver = lambda: loop.call_soon_threadsafe(scope.cancel)
            if self._is_cancelled:
                scope.cancel()
            return await self._function(*self._args)

    def cancel(self) -> None:
        self._is_cancelled = True
        if self._deliver is not None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                self._deliver()


def loop_is_running() -> bool:
    """Whether this thread runs an event loop right now, asyncio's or trio's."""
    trio = sys.modules.get("trio")
    return _runs_asyncio() or (trio is not None and trio.lowlevel.in_trio_run())


def _runs_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class Waker:
    """Made on a loop; `wake()` from any thread, or a signal handler, has `function` called there soon.

    The function runs in the context in which the waker was made, whatever thread wakes it. Calls before the
    function runs are one call. After the loop has closed nothing is called.
    """

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._context = contextvars.copy_context()
        self._call_soon = _call_soon_on_this_loop()
        self._pending = False
        self._lock = threading.RLock()  # a signal handler may interrupt its holder

    def wake(self) -> None:
        """Have the function called on the loop, unless that is on its way."""
        with self._lock:
            if self._pending:
                return
            self._pending = True
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._call_soon(self._run)

    def _run(self) -> None:
        # Cleared first: news that comes from here on is either seen by the function or calls it again.
        with self._lock:
            self._pending = False
        self._context.run(self._function)


def _call_soon_on_this_loop() -> Callable[[Callable[[], None]], Any]:
    try:
        return asyncio.get_running_loop().call_soon_threadsafe
    except RuntimeError:
        trio = sys.modules["trio"]  # the one other loop that anyio runs on
        call_soon: Callable[[Callable[[], None]], Any] = trio.lowlevel.current_trio_token().run_sync_soon
        return call_soon
