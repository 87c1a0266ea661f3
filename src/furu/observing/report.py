"""Events to a RunReport: counts what happened and passes it on. Never slows or breaks a run."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple

from furu.errors import Failure
from furu.events import (
    End,
    Event,
    NodeAbandoned,
    NodeDone,
    NodeFailed,
    NodeOverran,
    NodePlanned,
    NodeRetried,
    NodeReused,
    RunFinished,
    class_labels,
)
from furu.report import NAMED, ClassTime, NodeTime, RunReport

logger = logging.getLogger("furu.run")


Sink = Callable[[Event], object]


# The plan grows a few hundred nodes at a time: nodes done so long ago are hardly found to be needed.
REMEMBERED_NODES = 4096


class Sinks:
    """Hands every event to each of some sinks. One that raises is logged and gets no more events."""

    def __init__(self, *sinks: Sink | None) -> None:
        self._sinks: list[Sink] = []
        for sink in sinks:
            if isinstance(sink, Sinks):
                self._sinks += sink._sinks
            elif sink is not None:
                self._sinks.append(sink)

    def __bool__(self) -> bool:
        return bool(self._sinks)

    def __call__(self, event: Event) -> None:
        for sink in tuple(self._sinks):
            try:
                sink(event)
            except Exception:
                self._sinks.remove(sink)
                kind = type(event).__name__
                logger.exception("on_event raised for %s and gets no more events; the run goes on", kind)


class Recorder:
    """Takes every event of a run, counts it, and hands it to the caller's own sink, if any."""

    def __init__(self, on_event: Sink | None = None, *, max_workers: int = 1) -> None:
        self._sinks = Sinks(on_event)
        self._max_workers = max_workers
        self._started = time.monotonic()
        self._counts: Counter[type[Event]] = Counter()
        self._times = Times()

    def __call__(self, event: Event) -> None:
        """Count an event and pass it on. Raises nothing."""
        self._counts[type(event)] += 1
        if isinstance(event, NodePlanned):
            self._times.planned(event)
        elif isinstance(event, NodeDone):
            self._times.done(event)
        elif isinstance(event, (NodeReused, NodeFailed)):
            self._times.gone(event.hash)
        if self._sinks:
            self._sinks(event)

    def finish(self, end: End, *, skipped: int, failures: tuple[Failure, ...]) -> RunReport:
        """End the run: one last event, one line in the log, and the report."""
        times = self._times
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
            max_workers=self._max_workers,
            work_sec=times.work_sec,
            async_sec=times.async_sec,
            critical_path_sec=times.longest.total_sec,
            critical_path=times.longest.slowest,
            slowest=times.slowest,
            classes=times.classes(),
        )
        self(RunFinished(end, report, at=time.time()))
        # A failure is raised; of a cancellation nothing else says how far the run came.
        level = logging.WARNING if end == "cancelled" else logging.INFO
        logger.log(level, "run %s: %s", end, report)
        return report


class Path(NamedTuple):
    """The longest chain of computed nodes that ends with one: how long it took, and its slowest nodes."""

    total_sec: float
    slowest: tuple[NodeTime, ...]


_NO_PATH = Path(0.0, ())


class Times:
    """Where the time of a run went. Keeps a node's edges until it is done, and the longest chain to it as
    long as a node depends on it that is planned, or may soon be: the plan grows while nodes run."""

    def __init__(self) -> None:
        self.work_sec = 0.0
        self.async_sec = 0.0
        self.longest = _NO_PATH
        self.slowest: tuple[NodeTime, ...] = ()  # of all
        self._depends_on: dict[str, tuple[str, ...]] = {}
        self._dependents: Counter[str] = Counter()  # that are planned and not done
        self._paths: dict[str, Path] = {}
        self._recent: deque[str] = deque()
        self._of_class: dict[str, list[float]] = {}

    def planned(self, event: NodePlanned) -> None:
        """A node will be computed after others."""
        if event.depends_on and event.hash not in self._depends_on:
            self._depends_on[event.hash] = event.depends_on
            self._dependents.update(event.depends_on)

    def done(self, event: NodeDone) -> None:
        """A node was computed. Costs its degree."""
        self.work_sec += event.duration_sec
        if event.worker.startswith("async-"):
            self.async_sec += event.duration_sec
        total = self._of_class.setdefault(event.node_class, [0, 0.0])
        total[0] += 1
        total[1] += event.duration_sec
        node = NodeTime(event.hash, event.name, event.duration_sec)
        self.slowest = _with(self.slowest, node)
        paths = [self._paths.get(key, _NO_PATH) for key in self._depends_on.get(event.hash, ())]
        before = max(paths, key=lambda path: path.total_sec, default=_NO_PATH)
        path = Path(before.total_sec + event.duration_sec, _with(before.slowest, node))
        if path.total_sec > self.longest.total_sec:
            self.longest = path
        self._paths[event.hash] = path
        if event.hash not in self._dependents:
            self._remember(event.hash)
        self.gone(event.hash)

    def gone(self, node_hash: str) -> None:
        """A node is done, or need not be computed, or failed: it waits for nothing any more."""
        for key in self._depends_on.pop(node_hash, ()):
            self._dependents[key] -= 1
            if not self._dependents[key]:
                del self._dependents[key]
                self._paths.pop(key, None)

    def _remember(self, key: str) -> None:
        """Keep for a while the chain to a node on which nothing depends that has been found so far."""
        self._recent.append(key)
        if len(self._recent) > REMEMBERED_NODES:
            oldest = self._recent.popleft()
            if oldest not in self._dependents:
                self._paths.pop(oldest, None)

    def classes(self) -> tuple[ClassTime, ...]:
        """The classes that took longest, the slowest first."""
        labels = class_labels(self._of_class)
        times = [ClassTime(labels[one], int(count), sec) for one, (count, sec) in self._of_class.items()]
        return tuple(sorted(times, key=lambda one: (-one.duration_sec, one.name))[:NAMED])


def _with(slowest: tuple[NodeTime, ...], node: NodeTime) -> tuple[NodeTime, ...]:
    """Return the slowest nodes with one more, at most as many as are named; the same tuple where nothing
    changes, so that chains share what they have in common."""
    if len(slowest) == NAMED and node.duration_sec <= slowest[-1].duration_sec:
        return slowest
    return tuple(sorted((*slowest, node), key=lambda one: -one.duration_sec)[:NAMED])
