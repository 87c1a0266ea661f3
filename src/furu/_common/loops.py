"""Event loops of asyncio and trio: detecting them, running them, and keeping blocking work off them."""

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

# The maximum number of threads for the disk operations of an event loop.
_DISK_THREADS = 8
_disk_limiter: RunVar[anyio.CapacityLimiter] = RunVar("furu_disk_limiter")
# For methods of users' classes. Such a method may wait for a node that needs another of these threads, so
# any limit could cause a deadlock.
_long_limiter: RunVar[anyio.CapacityLimiter] = RunVar("furu_long_limiter")


async def in_thread(function: Callable[[*Ts], R], *args: *Ts) -> R:
    """Run a disk operation off the event loop.

    This uses furu's own thread limiter, because all threads of anyio's default limiter may be waiting for
    the node that needs this operation.
    """
    try:
        limiter = _disk_limiter.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_DISK_THREADS)
        _disk_limiter.set(limiter)
    return await anyio.to_thread.run_sync(function, *args, limiter=limiter)


async def in_own_thread(function: Callable[[*Ts], R], *args: *Ts) -> R:
    """Run a function off the event loop. The function calls methods of a user's class.

    It may take a long time or wait for a node, so it does not use the limited threads of `in_thread`.
    """
    try:
        limiter = _long_limiter.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(math.inf)
        _long_limiter.set(limiter)
    return await anyio.to_thread.run_sync(function, *args, limiter=limiter)


async def shielded(function: Callable[[*Ts], R], *args: *Ts) -> R:
    """Like `in_thread`, but a call that has begun always completes and returns its result, even if the task
    is cancelled. A claim whose result is lost would block its node until the process exits.

    A cancellation during the call, also by asyncio's own `Task.cancel()`, is delivered at the caller's next
    await, after the result has been returned.
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
        except asyncio.CancelledError as error:  # a scope does not shield from Task.cancel()
            if call.cancel():  # the call has not begun
                raise
            await _wait_ended(call)
            task = asyncio.current_task()
            assert task is not None  # noqa: S101  # this function runs in a task
            task.uncancel()  # then request the cancellation again
            task.cancel(*error.args)
    return call.result()


async def _wait_ended(call: concurrent.futures.Future[Any]) -> None:
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    call.add_done_callback(lambda _: loop.call_soon_threadsafe(ended.set_result, None))
    while not ended.done():
        with contextlib.suppress(asyncio.CancelledError):  # delivered later, like the first cancellation
            await asyncio.wait([ended])


def is_being_cancelled() -> bool:
    """Whether the current task is being cancelled, by a cancel scope or by asyncio's `Task.cancel()`."""
    if anyio.current_effective_deadline() == -math.inf:
        return True
    task = asyncio.current_task() if _runs_asyncio() else None
    return task is not None and task.cancelling() > 0


def run_in_new_loop(function: Callable[[*Ts], Awaitable[R]], *args: *Ts) -> R:
    """Run an async function on a new asyncio loop, and wait until it has finished.

    If a loop is running in this thread, the new loop runs in another thread, and the running loop is
    blocked meanwhile. If this is the main thread, too, because KeyboardInterrupt is not raised there. An
    interrupt in the event loop's own code can make the loop hang, or prevent the thread from running a loop
    again. After the first interrupt the function is cancelled and this call waits until it has finished; a
    second interrupt ends the wait.
    """
    if threading.current_thread() is not threading.main_thread() and not loop_is_running():
        return run_loop_here(function, *args)
    call = _Cancellable(function, args)
    step = Step(run_loop_here, (call.run,))
    try:
        begin_in_new_thread(step)
        return cast(R, step.wait())
    except BaseException:
        if not step.is_over:
            call.cancel()
            begin_in_new_thread(step)  # in case the interrupt came before the step began
            step.wait_over()
        raise


def run_loop_here(function: Callable[[*Ts], Awaitable[R]], *args: *Ts) -> R:
    """Like `run_in_new_loop`, but always in this thread.

    The function sees the caller's context variables, except the one in which sniffio records that a loop is
    running. If this thread was started by `asyncio.to_thread`, that variable was copied and is wrong here.
    """
    context = contextvars.copy_context()
    sniffio = sys.modules.get("sniffio")
    if sniffio is not None:
        context.run(sniffio.current_async_library_cvar.set, None)
    return context.run(lambda: anyio.run(function, *args))


class _Cancellable:
    """An async function that another thread may cancel, before or while it runs."""

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


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error in a group that is not a cancellation, or else a cancellation."""
    rest = group.split(anyio.get_cancelled_exc_class())[1]
    error: BaseException = rest or group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def loop_is_running() -> bool:
    """Whether an event loop of asyncio or trio is running in this thread."""
    trio = sys.modules.get("trio")
    return _runs_asyncio() or (trio is not None and trio.lowlevel.in_trio_run())


def _runs_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class Waker:
    """Calls a function on an event loop when any thread or signal handler calls `wake()`.

    The function runs on the loop and in the context in which the waker was created. Several calls of
    `wake()` before the function runs cause one call. After the loop has closed, `wake()` does nothing.
    """

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._context = contextvars.copy_context()
        self._call_soon = _call_soon_on_this_loop()
        self._pending = False
        self._lock = threading.RLock()  # a signal handler may interrupt the thread that holds it

    def wake(self) -> None:
        """Schedule a call of the function, unless one is scheduled already."""
        with self._lock:
            if self._pending:
                return
            self._pending = True
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._call_soon(self._run)

    def _run(self) -> None:
        # Cleared first, so that a wake while the function runs causes another call.
        with self._lock:
            self._pending = False
        self._context.run(self._function)


def _call_soon_on_this_loop() -> Callable[[Callable[[], None]], Any]:
    try:
        return asyncio.get_running_loop().call_soon_threadsafe
    except RuntimeError:
        trio = sys.modules["trio"]  # the only other library on which anyio runs
        call_soon: Callable[[Callable[[], None]], Any] = trio.lowlevel.current_trio_token().run_sync_soon
        return call_soon
