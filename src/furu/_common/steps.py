"""Steps that an interrupt must not split: they run in a thread where no signal handler runs.

Python runs signal handlers only in the main thread, between any two bytecodes, so KeyboardInterrupt can be
raised anywhere in that thread. A step that the main thread hands over runs to completion in one of furu's
threads. An interrupt only ends the caller's wait: the step continues. The caller then usually hands over a
cleanup step, which runs after the first step.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple, cast

# How often a waiting thread wakes up. A signal that arrives just before the wait begins does not interrupt
# the wait, and is handled at the next wake-up.
_LOOK_SEC = 0.5

R = TypeVar("R")
Ts = TypeVarTuple("Ts")


class Step:
    """A function call that runs in the context of the code that handed it over."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._context = contextvars.copy_context()
        self._function, self._args = function, args
        self._value: Any = None
        self._error: BaseException | None = None
        self.has_thread = False
        self.is_over = False
        self._ended = threading.Lock()
        self._ended.acquire()

    def take(self) -> None:
        """Call the function. Must be called only once."""
        try:
            self._value = self._context.run(self._function, *self._args)
        except BaseException as error:
            self._error = error
        self._end()

    def fail(self, error: BaseException) -> None:
        """Finish the step with an error, without calling the function."""
        self._error = error
        self._end()

    def _end(self) -> None:
        self.is_over = True  # first, so that an interrupted wait can be repeated
        self._ended.release()

    def wait(self) -> Any:
        """Wait until the step is over. Returns the function's result, or raises its exception.

        Must be called only once.
        """
        self.wait_over()
        try:
            if self._error is not None:
                raise self._error
            return self._value
        finally:
            self._error = None  # otherwise the error and this frame would keep each other alive

    def wait_over(self) -> None:
        """Wait until the step is over. May be called again after an interrupt."""
        while not self.is_over and not self._ended.acquire(timeout=_LOOK_SEC):
            pass


class _Thread:
    """Runs steps one after another, in the order in which they were handed over."""

    def __init__(self) -> None:
        self._steps: queue.SimpleQueue[Step] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def hand_over(self, function: Callable[..., Any], *args: Any) -> Step:
        """Schedule a function call, which runs even if the caller is then interrupted."""
        step = Step(function, args)
        self._steps.put(step)
        if self._thread is None or not self._thread.is_alive():
            self._start()
        return step

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="furu-steps", daemon=True)
        try:
            # In an empty context, so that the thread does not keep the current node alive.
            contextvars.Context().run(self._thread.start)
        except RuntimeError:  # no thread can be started: run the steps here, although an interrupt may come
            with contextlib.suppress(queue.Empty):
                while True:
                    self._steps.get_nowait().take()

    def _run(self) -> None:
        while True:
            self._steps.get().take()


_thread = _Thread()


def uninterrupted(function: Callable[[*Ts], R], *args: *Ts) -> R:
    """Call a function where no interrupt can split it, and return its result.

    An interrupt during the call is raised here at once, but the function still runs to completion.
    """
    if threading.current_thread() is not threading.main_thread():
        return function(*args)
    return cast(R, _thread.hand_over(function, *args).wait())


def hand_over(function: Callable[..., Any], *args: Any) -> Step:
    """Schedule a function call, which runs even if the caller is then interrupted or cancelled.

    Returns the step, so that the caller can wait for it.
    """
    return _thread.hand_over(function, *args)


def begin_in_new_thread(step: Step) -> None:
    """Run a step in a new thread, so that it does not wait for other steps. May be called again after an
    interrupt."""
    _thread.hand_over(_start_thread_of, step)


def _start_thread_of(step: Step) -> None:
    """Start a step's thread. This is itself a step, because in the main thread an interrupt could split
    `Thread.start`."""
    if step.has_thread:
        return
    step.has_thread = True
    try:
        # In an empty context, because the step has its own.
        contextvars.Context().run(threading.Thread(target=step.take, name="furu-step", daemon=True).start)
    except RuntimeError as error:  # no thread can be started
        step.fail(error)


def _after_fork() -> None:
    global _thread
    _thread = _Thread()


os.register_at_fork(after_in_child=_after_fork)
