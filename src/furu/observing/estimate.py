"""The progress and the remaining time of a run, computed from its events. Pure: the time is an argument.

The remaining work is the sum of the expected durations of the nodes that are known and not done. A node is
expected to take the mean duration of its class in this run and in earlier runs. The remaining time is this
work divided by the work that the run has done per second so far. The measured rate accounts for everything
that slows the run. The remaining time is never shorter than the longest chain of remaining nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import furu.events as events
from furu.context import Advance
from furu.observing.critical_path import longest_chain
from furu.observing.durations import fill_unknown

# The mean duration from earlier runs counts as much as this many nodes of this run.
_RECORDED_WEIGHT = 3
# For larger plans the longest chain is not computed, because that visits every node of the plan.
_MAX_CHAINED_NODES = 10_000


@dataclass(slots=True)
class ClassProgress:
    """The progress of one class of nodes."""

    known: int = 0
    done: int = 0
    running: int = 0
    failed: int = 0
    work_sec: float = 0.0
    recorded_sec: float | None = None

    @property
    def left(self) -> int:
        """The number of nodes that are neither done nor failed."""
        return max(self.known - self.done - self.failed, 0)

    def duration_sec(self) -> float | None:
        """Return the mean duration of a node of the class; None if it is unknown."""
        weight = _RECORDED_WEIGHT if self.recorded_sec is not None else 0
        if self.done + weight == 0:
            return None
        return (self.work_sec + weight * (self.recorded_sec or 0.0)) / (self.done + weight)


class Estimate:
    """Estimates the remaining time of a run from its events. `recorded(node_class)` returns the mean
    duration of a class in earlier runs, or None if it is unknown, and is called once for each class. The
    keys of `classes` are full names (``module:Class``)."""

    def __init__(self, recorded: Callable[[str], float | None], *, max_workers: int) -> None:
        self._recorded = recorded
        self._max_workers = max_workers
        self.classes: dict[str, ClassProgress] = {}
        self.reused = 0
        self.plan_is_known = False
        self._left: dict[str, events.NodePlanned] = {}
        self._running: dict[str, events.NodeStarted] = {}
        # What running nodes have reported last.
        self._advances: dict[str, events.NodeProgress] = {}

    @property
    def known(self) -> int:
        """The number of nodes that have been planned so far, including those that are done."""
        return sum(one.known for one in self.classes.values())

    @property
    def done(self) -> int:
        """The number of nodes that were computed."""
        return sum(one.done for one in self.classes.values())

    @property
    def running(self) -> int:
        """The number of nodes that are being computed."""
        return len(self._running)

    @property
    def failed(self) -> int:
        """The number of nodes that failed."""
        return sum(one.failed for one in self.classes.values())

    def add(self, event: events.Event) -> None:
        """Process an event."""
        if isinstance(event, events.PlanKnown):
            self.plan_is_known = True
        elif isinstance(event, events.NodePlanned):
            if self._left.pop(event.hash, None) is None:
                self._class(event.node_class).known += 1
            self._left[event.hash] = event  # after its dependencies, of which there may be more now
        elif isinstance(event, events.NodeStarted):
            self._running[event.hash] = event
            self._class(self._left[event.hash].node_class).running += 1
        elif isinstance(event, events.NodeProgress):
            self._advances[event.hash] = event
        elif isinstance(event, events.NodeReused):
            self.reused += 1
            self._ended(event.hash)
            if (planned := self._left.pop(event.hash, None)) is not None:
                self._class(planned.node_class).known -= 1
        elif isinstance(
            event, (events.NodeDone, events.NodeFailed, events.NodeRetried, events.NodeWaiting)
        ):
            self._ended(event.hash)
            if isinstance(event, events.NodeDone):
                self._left.pop(event.hash, None)
                of_class = self._class(event.node_class)
                of_class.done += 1
                of_class.work_sec += event.timing.duration_sec
            elif isinstance(event, events.NodeFailed):
                self._left.pop(event.hash, None)
                self._class(event.node_class).failed += 1

    def remaining_sec(self, elapsed_sec: float, now: float) -> float | None:
        """Return the remaining time for the known nodes, or None while no duration is known.

        `elapsed_sec` is the duration of the run so far. `now` is the current time in seconds since
        the epoch, as in the events.
        """
        lengths = fill_unknown({name: one.duration_sec() for name, one in self.classes.items()})
        if lengths is None:
            return None
        work = sum(lengths[name] * one.left for name, one in self.classes.items())
        begun = 0.0
        left = self._left_of_running(lengths, now)
        for key, node in self._running.items():
            length = lengths[self._left[key].node_class]
            ran = max(now - node.at, 0.0)
            begun += ran if key in left else min(ran, length)
            work += ran + left[key] - length if key in left else 0.0
        worked = begun + sum(one.work_sec for one in self.classes.values())
        first_guess = max(self._max_workers, self.running)  # async nodes run without a worker
        at_once = worked / elapsed_sec if elapsed_sec > 0 and self.done else float(first_guess)
        chain = self._longest_chain_sec(lengths, left)
        return max((work - begun) / max(at_once, 0.01), chain)

    def _left_of_running(self, lengths: dict[str, float], now: float) -> dict[str, float]:
        """Return the remaining time of the running nodes that have reported how far they are."""
        left: dict[str, float] = {}
        for key, event in self._advances.items():
            advance, node = event.advance, self._running.get(key)
            if node is None or not advance.total or not advance.done:
                continue
            share = min(advance.done / advance.total, 1.0)
            left[key] = max((event.at - node.at) * (1.0 / share - 1.0) - (now - event.at), 0.0)
        return left

    def _longest_chain_sec(self, lengths: dict[str, float], left: dict[str, float]) -> float:
        if len(self._left) > _MAX_CHAINED_NODES:
            return 0.0
        return longest_chain(
            (key, node.depends_on, left.get(key, 0.0) if key in self._running else lengths[node.node_class])
            for key, node in self._left.items()  # dependencies were planned first
        )[0]

    def _class(self, node_class: str) -> ClassProgress:
        found = self.classes.get(node_class)
        if found is None:
            found = self.classes[node_class] = ClassProgress(recorded_sec=self._recorded(node_class))
        return found

    @property
    def advances(self) -> list[tuple[str, str, Advance]]:
        """The hash and the class of each running node that has reported its progress, and the report."""
        return [
            (key, event.node_class, event.advance)
            for key, event in self._advances.items()
            if key in self._running
        ]

    def _ended(self, key: str) -> None:
        self._advances.pop(key, None)
        if self._running.pop(key, None) is not None:
            self.classes[self._left[key].node_class].running -= 1
