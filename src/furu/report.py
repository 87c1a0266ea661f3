"""RunReport: what a run did, and how it spent its time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from furu._common.text import printable, seconds
from furu.errors import Failure

__all__ = ["ClassTime", "CodeChange", "NAMED", "NodeTime", "RunReport"]

# The maximum number of nodes or classes in each list of a report.
NAMED = 10


class NodeTime(msgspec.Struct, frozen=True):
    """A computed node and its duration."""

    hash: str
    name: str
    duration_sec: float


class ClassTime(msgspec.Struct, frozen=True):
    """The number of computed nodes of a class, and their total duration. `name` is the class's name, or its
    full name (``module:Class``) if two classes share the name."""

    name: str
    computed: int
    duration_sec: float


class CodeChange(msgspec.Struct, frozen=True):
    """Artifacts of a class that a run reused, or would reuse, although other code made them.

    `made_by_other_code` of `seen` artifacts of the class were made by other code than the class has now.
    Unless `is_exact`, only some were compared, and there may be more. `commits` are the commits that were
    checked out when they were made, as far as they are known.
    """

    node_class: str
    made_by_other_code: int
    seen: int
    is_exact: bool = False
    commits: tuple[str, ...] = ()

    @property
    def counts(self) -> str:
        """The numbers and the commits in words."""
        number = f"{self.made_by_other_code:,}"
        of_all = f"{number} of {self.seen:,}" if self.is_exact else f"at least {number}"
        shown = ", ".join(self.commits[:3]) + (", ..." if len(self.commits) > 3 else "")
        commits = f" (commit {printable(shown)})" if shown else ""
        return f"{of_all} made by other code{commits}"

    def __str__(self) -> str:
        return (
            f"artifacts of {printable(self.node_class)}: {self.counts}. They are used as they are. To "
            "compute them again, set another _version in the class, or run with "
            'on_code_change="recompute". If the change does not matter, run with on_code_change="ignore".'
        )


class RunReport(msgspec.Struct, frozen=True):
    """What a run did. The size of a report depends only on the number of failures.

    `computed` counts the nodes that this run computed. `reused` counts the nodes that were DONE already,
    including input files; their dependencies were not visited. `failed` counts failed nodes, and `skipped`
    nodes that were known but not started. `abandoned` counts nodes that were still running in threads when
    `grace_sec` had passed. `retried` counts failed attempts that were followed by another attempt.
    `overran` counts nodes that exceeded their time limit and could not be stopped. If the roots come from a
    generator, the run forgets nodes that are done, and counts them again as reused if a later root needs
    them.

    `work_sec` is the total duration of all computed nodes; `async_sec` is the total for async nodes, which
    need no worker. `critical_path_sec` is the duration of the longest chain of computed nodes that depend
    on each other: more workers cannot shorten this chain. `critical_path` lists the ten slowest nodes of
    the chain, `slowest` the ten slowest of all nodes, and `classes` the ten slowest classes.
    `code_changes` lists the classes with reused artifacts that other code made.
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
    code_changes: tuple[CodeChange, ...] = ()

    @property
    def efficiency(self) -> float:
        """The share of the workers' time spent computing: (work - async work) / (wall time x workers)."""
        available_sec = self.wall_sec * self.max_workers
        return (self.work_sec - self.async_sec) / available_sec if available_sec > 0 else 0.0

    def __str__(self) -> str:
        counts = [f"computed {self.computed}", f"reused {self.reused}", f"failed {self.failed}"]
        for name in ("skipped", "abandoned", "retried", "overran"):
            if count := getattr(self, name):
                counts.append(f"{name} {count}")
        return f"{', '.join(counts)} in {self.wall_sec:.2f} s"

    def summary(self) -> str:
        """Return a few lines: first the counts, then how the time was spent."""
        return "\n".join([str(self), *(f"  {label}: {text}" for label, text in self._details())])

    def _repr_html_(self) -> str:
        """Return the summary as an HTML table for notebooks."""
        import html  # only notebooks need it

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
        for change in self.code_changes[:NAMED]:
            yield "other code", f"{printable(change.node_class)}: {change.counts}"
        for failure in self.failures[:NAMED]:
            yield "failed", printable(failure.message)
        if len(self.failures) > NAMED:
            yield "failed", f"and {len(self.failures) - NAMED} more"


def _named_times(nodes: Iterable[NodeTime]) -> str:
    shown = [f"{printable(node.name)} {node.hash[:8]} {seconds(node.duration_sec)}" for node in nodes]
    return ", ".join(shown[:5])
