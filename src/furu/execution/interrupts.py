"""Handles Ctrl-C while a run blocks the main thread. The first Ctrl-C cancels the run and reports which
nodes it still waits for; the second one ends the process at once."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Collection, Iterator
from types import FrameType
from typing import TypeVar

import anyio

from furu._common.loops import Waker, run_loop_here
from furu._common.text import printable
from furu.events import Event, NodeDone, NodeFailed, NodeRetried, NodeReused, NodeStarted, NodeWaiting

R = TypeVar("R")

logger = logging.getLogger("furu.run")

EXIT_CODE = 130  # the code that shells report for a program that SIGINT ended
_NAMED = 5
_NO_LONGER_RUNNING = (NodeDone, NodeFailed, NodeRetried, NodeReused, NodeWaiting)
# After this time, the loop knows which nodes are running, and most short nodes have finished.
_TELL_SEC = 0.1


class Interrupts:
    """Cancels a run when the process receives one of `signals`. The run needs this object as `on_event`.

    The first signal cancels the run, and calls `say` with a message that names the running nodes. These
    nodes finish and publish. The second signal ends the process at once; this does not harm the store.
    """

    def __init__(self, signals: Collection[signal.Signals], say: Callable[[str], None]) -> None:
        self._signals = signals
        self._say = say
        self._running: dict[str, NodeStarted] = {}
        self._waker: Waker | None = None
        self.occurred = False

    def __call__(self, event: Event) -> None:
        """Update the set of running nodes from an event of the run."""
        if isinstance(event, NodeStarted):
            self._running[event.hash] = event
        elif self._running and isinstance(event, _NO_LONGER_RUNNING):
            self._running.pop(event.hash, None)

    def run(self, run: Callable[[], Awaitable[R]]) -> R | None:
        """Run an async function on a loop in the main thread. Returns None if a signal cancelled it."""
        before = {number: signal.signal(number, self._interrupt) for number in self._signals}
        try:
            # The loop may run in the main thread, because the handler never raises in the loop's code.
            return run_loop_here(self._run, run)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def _run(self, run: Callable[[], Awaitable[R]]) -> R | None:
        with anyio.CancelScope() as scope, _waking_on_signals():
            telling = threading.Timer(_TELL_SEC, self._tell)
            telling.daemon = True
            self._waker = Waker(functools.partial(self._drain, scope, telling))
            if self.occurred:
                scope.cancel()
            try:
                return await run()
            finally:
                telling.cancel()
        return None

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.occurred:
            os._exit(EXIT_CODE)
        self.occurred = True
        if self._waker is not None:
            self._waker.wake()

    def _drain(self, scope: anyio.CancelScope, telling: threading.Timer) -> None:
        scope.cancel()
        try:
            telling.start()  # not in the signal handler: it may have interrupted another thread's start
        except RuntimeError:  # no thread can be started
            self._tell()

    def _tell(self) -> None:
        names = [f"{event.name} {event.hash[:8]}" for event in list(self._running.values())]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        nodes = "1 node" if len(names) == 1 else f"{len(names)} nodes"
        waiting = f"waiting for {nodes} to finish: {', '.join(names[:_NAMED])}{more}"
        self._say(f"interrupted; {waiting if names else 'ending the run'}. Again: exit at once.")


@contextlib.contextmanager
def _waking_on_signals() -> Iterator[None]:
    """Wake the loop of this thread, the main thread, for every signal, so that Python runs its handler.

    Otherwise the loop may go on waiting: if the signal came just before the wait began, or if the system
    delivered it to another thread.
    """
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        loop = asyncio.get_running_loop()
        loop.add_reader(reader, _drain, reader)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            loop.remove_reader(reader)


def _drain(reader: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        reader.recv(4096)


def interrupts_of_scripts() -> Interrupts | None:
    """Return the handler of Ctrl-C for a script's blocking run.

    Returns None outside the main thread, at an interactive prompt, and in a program that handles or ignores
    SIGINT itself.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or hasattr(sys, "ps1"):
        return None
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return None
    return Interrupts([signal.SIGINT], _say_on_stderr)


def _say_on_stderr(message: str) -> None:
    try:
        if sys.stderr is None:
            raise ValueError("there is no stderr")
        sys.stderr.write(f"furu: {printable(message)}\n")
        sys.stderr.flush()
    except Exception:  # stderr is missing or closed, or its terminal has hung up
        logger.warning("%s", message)
