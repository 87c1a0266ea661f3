"""RunReport: what a run did and where its time went, as a frozen value."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from furu._common.text import printable, seconds
from furu.errors import Failure

__all__ = ["ClassTime", "NAMED", "NodeTime", "RunReport"]

# What a report names of each: it stays small however many nodes ran.
NAMED = 10


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

    `work_sec` is the time that all computed nodes took, added up; `async_sec` is the part of it that async
    nodes took, which need no worker. `critical_path_sec` is the longest
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
    async_sec: float = 0.0
    critical_path_sec: float = 0.0
    critical_path: tuple[NodeTime, ...] = ()
    slowest: tuple[NodeTime, ...] = ()
    classes: tuple[ClassTime, ...] = ()

    @property
    def efficiency(self) -> float:
        """The share of the workers' time spent computing: (work - async work) / (makespan x workers)."""
        available_sec = self.wall_sec * self.max_workers
        return (self.work_sec - self.async_sec) / available_sec if available_sec > 0 else 0.0

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
            work = f"{seconds(self.work_sec - self.async_sec)} of work on {self.max_workers} workers"
            yield "workers", f"{work}, {self.efficiency:.0%} of their time"
            if self.async_sec:
                yield "async nodes", f"{seconds(self.async_sec)} on the event loop"
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
        for failure in self.failures[:NAMED]:
            yield "failed", printable(failure.message)
        if len(self.failures) > NAMED:
            yield "failed", f"and {len(self.failures) - NAMED} more"


def _named_times(nodes: Iterable[NodeTime]) -> str:
    shown = [f"{printable(node.name)} {node.hash[:8]} {seconds(node.duration_sec)}" for node in nodes]
    return ", ".join(shown[:5])
