"""Turns the events of a run into its report, and passes the events on to other sinks."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable

import furu.events as events
from furu.errors import Failure
from furu.observing.critical_path import Chain, add_slowest
from furu.report import NAMED, ClassTime, CodeChange, NodeTime, RunReport

logger = logging.getLogger("furu.run")


Sink = Callable[[events.Event], object]


class Sinks:
    """Passes every event to several sinks. If a sink raises, the exception is logged, and the sink receives
    no more events."""

    def __init__(self, *sinks: Sink | None) -> None:
        self._sinks: tuple[Sink, ...] = ()
        for sink in sinks:
            if isinstance(sink, Sinks):
                self._sinks += sink._sinks
            elif sink is not None:
                self._sinks += (sink,)

    def __bool__(self) -> bool:
        return bool(self._sinks)

    def __call__(self, event: events.Event) -> None:
        for sink in self._sinks:
            try:
                sink(event)
            except Exception:
                self._sinks = tuple([other for other in self._sinks if other is not sink])
                kind = type(event).__name__
                logger.exception("on_event raised for %s and gets no more events; the run goes on", kind)


class Recorder:
    """Builds a run's report from its events, and passes each event on to the caller's sink, if any."""

    def __init__(self, on_event: Sink | None = None, *, max_workers: int = 1) -> None:
        self._sinks = Sinks(on_event) or None
        self._max_workers = max_workers
        self._started = time.monotonic()
        self._counts: Counter[type[events.Event]] = Counter()
        self._times = Times()

    def __call__(self, event: events.Event) -> None:
        """Count an event and pass it on. Never raises."""
        kind = type(event)
        self._counts[kind] += 1
        if isinstance(event, events.NodeDone):
            self._times.done(event)
        if self._sinks is not None:
            self._sinks(event)

    def finish(
        self,
        end: events.End,
        *,
        skipped: int,
        failures: tuple[Failure, ...],
        critical_path: Chain,
        code_changes: tuple[CodeChange, ...] = (),
    ) -> RunReport:
        """Emit `RunFinished`, log the report, and return it."""
        times = self._times
        report = RunReport(
            computed=self._counts[events.NodeDone],
            reused=self._counts[events.NodeReused],
            failed=self._counts[events.NodeFailed],
            skipped=skipped,
            abandoned=self._counts[events.NodeAbandoned],
            retried=self._counts[events.NodeRetried],
            overran=self._counts[events.NodeOverran],
            wall_sec=time.monotonic() - self._started,
            failures=failures,
            max_workers=self._max_workers,
            work_sec=times.work_sec,
            async_sec=times.async_sec,
            critical_path_sec=critical_path.total_sec,
            critical_path=critical_path.slowest,
            slowest=times.slowest,
            classes=times.classes(),
            code_changes=code_changes,
        )
        self(events.RunFinished(end, report, at=time.time()))
        # The error of a failed run has the report. For a cancelled run, only this line has it.
        level = logging.WARNING if end == "cancelled" else logging.INFO
        logger.log(level, "run %s: %s", end, report)
        return report


class Times:
    """The durations of a run's computed nodes: their total, by class, and the slowest nodes."""

    def __init__(self) -> None:
        self.work_sec = 0.0
        self.async_sec = 0.0
        self.slowest: tuple[NodeTime, ...] = ()
        self._of_class: dict[str, list[float]] = {}

    def done(self, event: events.NodeDone) -> None:
        """Add a computed node."""
        duration_sec = event.timing.duration_sec
        self.work_sec += duration_sec
        if event.timing.worker.startswith("async-"):
            self.async_sec += duration_sec
        total = self._of_class.setdefault(event.node_class, [0, 0.0])
        total[0] += 1
        total[1] += duration_sec
        self.slowest = add_slowest(self.slowest, event.hash, event.name, duration_sec)

    def classes(self) -> tuple[ClassTime, ...]:
        """Return the `NAMED` slowest classes, slowest first."""
        labels = events.class_labels(self._of_class)
        times = [ClassTime(labels[name], int(n), sec) for name, (n, sec) in self._of_class.items()]
        return tuple(sorted(times, key=lambda time: (-time.duration_sec, time.name))[:NAMED])
