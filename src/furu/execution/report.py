"""Events to a RunReport: counts what happened and passes it on. Never slows or breaks a run."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from furu.errors import Failure
from furu.execution.events import (
    End,
    Event,
    NodeAbandoned,
    NodeDone,
    NodeFailed,
    NodeOverran,
    NodeRetried,
    NodeReused,
    RunFinished,
)

logger = logging.getLogger("furu.run")


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run did. Stays small however many nodes ran.

    `computed` nodes were computed by this run; `reused` were found DONE (input files too), and hid all
    below them; `failed` failed; `skipped` were known and not started; `abandoned` were left running in
    their threads when `grace_sec` was over. `retried` attempts failed and were followed by another;
    `overran` nodes took longer than their class allows and could not be stopped.
    With a generator of roots a node is forgotten when it is done, and one that a later root reaches
    again counts as reused again.
    """

    computed: int = 0
    reused: int = 0
    failed: int = 0
    skipped: int = 0
    abandoned: int = 0
    retried: int = 0
    overran: int = 0
    wall_sec: float = 0.0
    failures: tuple[Failure, ...] = ()

    def summary(self) -> str:
        """Say the counts and the time in one line."""
        counts = [f"computed {self.computed}", f"reused {self.reused}", f"failed {self.failed}"]
        for name in ("skipped", "abandoned", "retried", "overran"):
            if count := getattr(self, name):
                counts.append(f"{name} {count}")
        return f"{', '.join(counts)} in {self.wall_sec:.2f} s"


class Recorder:
    """Takes every event of a run, counts it, and hands it to the caller's own sink, if any."""

    def __init__(self, on_event: Callable[[Event], object] | None = None) -> None:
        self._sink = on_event
        self._started = time.monotonic()
        self._counts: Counter[type[Event]] = Counter()

    def __call__(self, event: Event) -> None:
        """Count an event and pass it on. A sink that raises is logged and gets the next one."""
        self._counts[type(event)] += 1
        if self._sink is not None:
            try:
                self._sink(event)
            except Exception:
                logger.exception("on_event raised for %s; the run goes on", type(event).__name__)

    def finish(self, end: End, *, skipped: int, failures: tuple[Failure, ...]) -> RunReport:
        """End the run: one last event, one line in the log, and the report."""
        report = RunReport(
            computed=self._counts[NodeDone],
            reused=self._counts[NodeReused],
            failed=self._counts[NodeFailed],
            skipped=skipped,
            abandoned=self._counts[NodeAbandoned],
            retried=self._counts[NodeRetried],
            overran=self._counts[NodeOverran],
            wall_sec=time.monotonic() - self._started,
            failures=failures,
        )
        self(
            RunFinished(
                end,
                computed=report.computed,
                reused=report.reused,
                failed=report.failed,
                skipped=report.skipped,
                abandoned=report.abandoned,
                retried=report.retried,
                overran=report.overran,
                wall_sec=report.wall_sec,
            )
        )
        # A failure is raised; of a cancellation nothing else says how far the run came.
        level = logging.WARNING if end == "cancelled" else logging.INFO
        logger.log(level, "run %s: %s", end, report.summary())
        return report
