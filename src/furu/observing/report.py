"""Events to a RunReport: counts what happened and passes it on. Never slows or breaks a run."""

from __future__ import annotations

import html
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from furu._common.text import printable, seconds
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

logger = logging.getLogger("furu.run")

Sink = Callable[[Event], object]

# The plan grows a few hundred nodes at a time: nodes done so long ago are hardly found to be needed.
_REMEMBERED_NODES = 4096
# What a report names of each: it stays small however many nodes ran.
_NAMED = 10


@dataclass(frozen=True, slots=True)
class NodeTime:
    """A node that was computed, and how long that took."""

    hash: str
    name: str
    duration_sec: float


@dataclass(frozen=True, slots=True)
class ClassTime:
    """How many nodes of a class were computed, and how long all of them took together. `name` is the
    class's name, in full (``module:Class``) where the run computed two classes of one name."""

    name: str
    computed: int
    duration_sec: float


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run did. Stays small however many nodes ran.

    `computed` nodes were computed by this run; `reused` were found DONE (input files too), and hid all
    below them; `failed` failed; `skipped` were known and not started; `abandoned` were left running in
    their threads when `grace_sec` was over. `retried` attempts failed and were followed by another;
    `overran` nodes took longer than their class allows and could not be stopped.
    With a generator of roots a node is forgotten when it is done, and one that a later root reaches
    again counts as reused again.

    `work_sec` is the time that all computed nodes took, added up. `critical_path_sec` is the longest
    chain of computed nodes that depend on each other, which no number of workers makes shorter;
    `critical_path` names the nodes on it that took longest, and `slowest` those of all, ten at most.
    `classes` are those that took longest, ten at most.
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
    max_workers: int = 1
    work_sec: float = 0.0
    critical_path_sec: float = 0.0
    critical_path: tuple[NodeTime, ...] = ()
    slowest: tuple[NodeTime, ...] = ()
    classes: tuple[ClassTime, ...] = ()

    @property
    def efficiency(self) -> float:
        """The share of the workers' time that went into nodes: work / (makespan x workers)."""
        return self.work_sec / (self.wall_sec * self.max_workers) if self.wall_sec > 0 else 0.0

    def __str__(self) -> str:
        counts = [f"computed {self.computed}", f"reused {self.reused}", f"failed {self.failed}"]
        for name in ("skipped", "abandoned", "retried", "overran"):
            if count := getattr(self, name):
                counts.append(f"{name} {count}")
        return f"{', '.join(counts)} in {self.wall_sec:.2f} s"

    def summary(self) -> str:
        """Say what was done and where the time went, in a few lines: first the counts."""
        return "\n".join([str(self), *(f"  {label}: {text}" for label, text in self._details())])

    def _repr_html_(self) -> str:
        """Return the summary as a table, which a notebook shows."""
        rows = "".join(
            f"<tr><th style='text-align:left;vertical-align:top'>{html.escape(label)}</th>"
            f"<td style='text-align:left'>{html.escape(text)}</td></tr>"
            for label, text in self._details()
        )
        return f"<table><caption>{html.escape(str(self))}</caption><tbody>{rows}</tbody></table>"

    def _details(self) -> Iterator[tuple[str, str]]:
        if self.computed:
            work = f"{seconds(self.work_sec)} of work on {self.max_workers} workers"
            yield "workers", f"{work}, {self.efficiency:.0%} of their time"
            share = self.critical_path_sec / self.wall_sec if self.wall_sec > 0 else 0.0
            yield "critical path", f"{seconds(self.critical_path_sec)}, {share:.0%} of the run"
            yield "on it", _named_times(self.critical_path)
            yield "slowest", _named_times(self.slowest)
            yield (
                "classes",
                ", ".join(
                    f"{printable(one.name)} {one.computed:,} in {seconds(one.duration_sec)}"
                    for one in self.classes
                ),
            )
        for failure in self.failures[:_NAMED]:
            yield "failed", printable(failure.message)
        if len(self.failures) > _NAMED:
            yield "failed", f"and {len(self.failures) - _NAMED} more"


def _named_times(nodes: Iterable[NodeTime]) -> str:
    shown = [f"{printable(node.name)} {node.hash[:8]} {seconds(node.duration_sec)}" for node in nodes]
    return ", ".join(shown[:5])


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
            critical_path_sec=times.longest.total_sec,
            critical_path=times.longest.slowest,
            slowest=times.slowest,
            classes=times.classes(),
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
                at=time.time(),
            )
        )
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
        if len(self._recent) > _REMEMBERED_NODES:
            oldest = self._recent.popleft()
            if oldest not in self._dependents:
                self._paths.pop(oldest, None)

    def classes(self) -> tuple[ClassTime, ...]:
        """The classes that took longest, the slowest first."""
        labels = class_labels(self._of_class)
        times = [ClassTime(labels[one], int(count), sec) for one, (count, sec) in self._of_class.items()]
        return tuple(sorted(times, key=lambda one: (-one.duration_sec, one.name))[:_NAMED])


def _with(slowest: tuple[NodeTime, ...], node: NodeTime) -> tuple[NodeTime, ...]:
    """Return the slowest nodes with one more, at most as many as are named; the same tuple where nothing
    changes, so that chains share what they have in common."""
    if len(slowest) == _NAMED and node.duration_sec <= slowest[-1].duration_sec:
        return slowest
    return tuple(sorted((*slowest, node), key=lambda one: -one.duration_sec)[:_NAMED])
