"""Steps that an interrupt must not split: they run in a thread where no signal handler runs.

Python runs signal handlers, and so raises KeyboardInterrupt, only in the main thread, between any two
bytecodes. A step that the main thread hands over runs to its end in a thread of furu. An interrupt only
ends the wait for it: the step continues, and the next step that the caller hands over, usually one that
cleans up, runs after it.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple, cast

# A signal that arrives just before a thread begins to wait does not wake it. It is handled at the next
# look.
_LOOK_SEC = 0.5

R = TypeVar("R")
Ts = TypeVarTuple("Ts")


class Step:
    """A call of a function, in the context of the code that hands it over."""

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
        """Call the function. Called once."""
        try:
            self._value = self._context.run(self._function, *self._args)
        except BaseException as error:
            self._error = error
        self._end()

    def fail(self, error: BaseException) -> None:
        """End with an error, without calling the function."""
        self._error = error
        self._end()

    def _end(self) -> None:
        self.is_over = True  # first, so that an interrupted wait can be repeated
        self._ended.release()

    def wait(self) -> Any:
        """Wait for the end, and return or raise what the function returned or raised. Called once."""
        self.wait_over()
        try:
            if self._error is not None:
                raise self._error
            return self._value
        finally:
            self._error = None  # or the error and this frame would keep each other alive

    def wait_over(self) -> None:
        """Wait for the end. May be called again after an interrupt."""
        while not self.is_over and not self._ended.acquire(timeout=_LOOK_SEC):
            pass


class _Thread:
    """Runs steps one after another, in the order in which they were handed over."""

    def __init__(self) -> None:
        self._steps: queue.SimpleQueue[Step] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def hand_over(self, function: Callable[..., Any], *args: Any) -> Step:
        """Schedule a call of a function. The call happens even if the caller is interrupted from here
        on."""
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
        except RuntimeError:  # no thread can be started: run the steps here, where an interrupt may come
            with contextlib.suppress(queue.Empty):
                while True:
                    self._steps.get_nowait().take()

    def _run(self) -> None:
        while True:
            self._steps.get().take()


_thread = _Thread()


def uninterrupted(function: Callable[[*Ts], R], *args: *Ts) -> R:
    """Call a function where no interrupt reaches it, and return its result.

    An interrupt in the meantime is raised here at once; the function still runs to its end.
    """
    if threading.current_thread() is not threading.main_thread():
        return function(*args)
    return cast(R, _thread.hand_over(function, *args).wait())


def hand_over(function: Callable[..., Any], *args: Any) -> Step:
    """Schedule a call of a function, even if the caller is interrupted or cancelled. Returns the step, to
    wait for."""
    return _thread.hand_over(function, *args)


def begin_in_new_thread(step: Step) -> None:
    """Run a step in a new thread rather than after the other steps. May be called again after an
    interrupt."""
    _thread.hand_over(_start_thread_of, step)


def _start_thread_of(step: Step) -> None:
    """Start a step's thread. Not called in the main thread, where an interrupt could split
    `Thread.start`."""
    if step.has_thread:
        return
    step.has_thread = True
    try:
        # In an empty context: the step brings its own.
        contextvars.Context().run(threading.Thread(target=step.take, name="furu-step", daemon=True).start)
    except RuntimeError as error:  # no thread can be started
        step.fail(error)


def _after_fork() -> None:
    global _thread
    _thread = _Thread()


os.register_at_fork(after_in_child=_after_fork)
