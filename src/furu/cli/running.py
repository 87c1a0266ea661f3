"""A run on the command line: Ctrl-C drains it and says what it waits for, a second one leaves at once."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

import anyio

from furu.cli.output import INTERRUPTED, Interrupted, complain, console
from furu.core import Furu
from furu.execution.events import (
    Event,
    NodeDone,
    NodeFailed,
    NodeRetried,
    NodeReused,
    NodeStarted,
    NodeWaiting,
)
from furu.execution.local import run_local_async
from furu.execution.report import RunReport, Sink, Sinks
from furu.execution.workers.wake import Waker
from furu.progress import Progress
from furu.settings import current_settings

_NAMED = 5
# By then the loop has heard from its threads what they are at, and most short nodes have ended.
_TELL_SEC = 0.1


class Interruptible:
    """Runs roots, and ends the run when the process is told to. For the main thread.

    The first SIGINT or SIGTERM cancels the run: what runs finishes and publishes, and stderr says for
    what it waits. The second leaves the process at once, without a word; the store survives that.
    """

    def __init__(self, *, progress: bool = True) -> None:
        self._progress = progress
        self._tell: Callable[[str], None] = complain
        self._running: dict[str, str] = {}
        self._interrupted = False

    def run(self, roots: Iterable[Furu[Any]], *, on_event: Sink | None = None, **options: Any) -> RunReport:
        """Run as `run_local` does. Raises `Interrupted` for a run that was, and what `run_local` raises."""
        shown: Progress | None = None
        if self._progress:
            err, workers = console(stderr=True), options["max_workers"]
            shown = Progress(current_settings(), max_workers=workers, summary=False, console=err)
            self._tell = shown.tell
        options["on_event"] = Sinks(self._watch, shown, on_event)
        with shown or contextlib.nullcontext():
            report = anyio.run(functools.partial(self._run, roots, options))
        if report is None:
            raise Interrupted
        return report

    async def _run(self, roots: Iterable[Furu[Any]], options: dict[str, Any]) -> RunReport | None:
        with anyio.CancelScope() as scope:
            telling = threading.Timer(_TELL_SEC, self._tell_what_runs)
            telling.daemon = True
            waker = Waker(functools.partial(self._drain, scope, telling))

            def interrupt(number: int, frame: FrameType | None) -> None:
                if self._interrupted:
                    os._exit(INTERRUPTED)
                self._interrupted = True
                waker.wake()

            before = {
                number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)
            }
            try:
                return await run_local_async(roots, **options)
            finally:
                telling.cancel()
                for number, handler in before.items():
                    signal.signal(number, handler)
        return None

    @staticmethod
    def _drain(scope: anyio.CancelScope, telling: threading.Timer) -> None:
        scope.cancel()
        telling.start()  # not in the signal's handler, which may have interrupted the start of a thread

    def _tell_what_runs(self) -> None:
        names = list(self._running.values())
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        nodes = "1 node" if len(names) == 1 else f"{len(names)} nodes"
        waiting = f"waiting for {nodes} to finish: {', '.join(names[:_NAMED])}{more}"
        self._tell(f"interrupted; {waiting}. Again: leave at once.")

    def _watch(self, event: Event) -> None:
        if isinstance(event, NodeStarted):
            self._running[event.hash] = f"{event.name} {event.hash[:8]}"
        elif isinstance(event, (NodeDone, NodeFailed, NodeRetried, NodeReused, NodeWaiting)):
            self._running.pop(event.hash, None)
