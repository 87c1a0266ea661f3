"""A run on the command line. It shows its progress, and Ctrl-C or SIGTERM ends it."""

from __future__ import annotations

import contextlib
import functools
import signal
from collections.abc import Iterable
from typing import Any

from furu.cli.output import Interrupted, complain, console
from furu.execution.interrupts import Interrupts
from furu.execution.local import run_local_async
from furu.node.furu import Furu
from furu.observing.progress import Progress
from furu.observing.report import Sink, Sinks
from furu.report import RunReport
from furu.settings import current_settings


class Interruptible:
    """Runs roots in the main thread. On SIGINT or SIGTERM, ends the run as `Interrupts` describes.

    Signals that the process ignores, for example under nohup, stay ignored.
    """

    def __init__(self, *, progress: bool = True) -> None:
        self._progress = progress

    def run(self, roots: Iterable[Furu[Any]], *, on_event: Sink | None = None, **options: Any) -> RunReport:
        """Run `roots` like `run_local`. Raises `Interrupted` if a signal ended the run."""
        shown: Progress | None = None
        if self._progress:
            err, workers = console(stderr=True), options["max_workers"]
            shown = Progress(current_settings(), max_workers=workers, summary=False, console=err)
        signals = [
            number
            for number in (signal.SIGINT, signal.SIGTERM)
            if signal.getsignal(number) is not signal.SIG_IGN
        ]
        interrupts = Interrupts(signals, shown.tell if shown else complain)
        options["on_event"] = Sinks(interrupts, shown, on_event)
        with shown or contextlib.nullcontext():
            report = interrupts.run(functools.partial(run_local_async, roots, **options))
        if report is None:
            raise Interrupted
        return report
