"""Plans: what a run would do, why, and how long it would take. Computes and writes nothing."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, get_args

import msgspec

from furu._common.checks import check_choice
from furu._common.text import printable, seconds
from furu.errors import Failure
from furu.execution.again import Again, Chosen
from furu.execution.discovery import Discovery, Fact, Found
from furu.execution.options import (
    DEFAULT_MAX_ASYNC,
    DEFAULT_MAX_WORKERS,
    check_limits,
    check_on_code_change,
    check_roots,
)
from furu.execution.scheduler import Order
from furu.execution.window import parse_window_size
from furu.execution.workers.base import Job
from furu.node.base import class_name_of, describe
from furu.node.changes import CodeChanges
from furu.node.furu import Furu
from furu.observing.critical_path import longest_chain
from furu.observing.durations import fill_unknown, mean_duration_sec
from furu.planning.reasons import Because, Reason, Reasons
from furu.planning.simulate import simulate
from furu.report import CodeChange
from furu.settings import OnCodeChange, Settings, current_settings
from furu.store.artifact import Status

__all__ = ["Forecast", "PlanSummary", "PlannedNode", "plan_local", "summarize"]

# A summary lists at most this many nodes, but counts all of them.
_NAMED_NODES = 1000
_SHOWN_CHARS = 120
_SHOWN_FAILURES = 10
# Larger plans are not simulated, because that would take too long.
_MAX_SIMULATED_NODES = 5000
_OTHER_WORKERS = (2, 4, 8, 16)
_OTHER_WINDOWS = ("dfs", "bfs")


@dataclass(frozen=True, slots=True)
class PlannedNode:
    """A node that would be computed. `name` is its class, and `text` describes it. For a stale input,
    `fields` names the fields that have changed; for an edited class, the new or the old names."""

    hash: str
    name: str
    text: str
    reason: Reason
    fields: tuple[str, ...] = ()

    def __str__(self) -> str:
        because = f": {', '.join(self.fields)}" if self.fields else ""
        text = self.text if len(self.text) <= _SHOWN_CHARS else f"{self.text[: _SHOWN_CHARS - 3]}..."
        return f"{text} {self.hash[:8]}: {self.reason}{because}"


@dataclass(frozen=True, slots=True)
class Forecast:
    """The makespan of a simulated run with a given number of workers and a given window."""

    max_workers: int
    window_size: str | int
    makespan_sec: float


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """What a run of the same roots would do.

    `to_compute` nodes would be computed. `reused` nodes are DONE; their dependencies were not visited.
    `in_progress` nodes are being computed by another owner, and the run would wait for them. `failed` nodes
    would make the run fail: one of their methods raised while the plan was made, or, with
    `retry_failed=False`, an earlier attempt failed. `failures` describes these failures. `reasons` counts
    the nodes to compute by class and reason. `nodes` lists the first thousand of them, each after its
    dependencies. The reasons are:

    ``missing``: there is no artifact. ``invalid``: `_validate` rejects the artifact. ``failed``,
    ``cancelled``, ``interrupted``: how the last attempt ended. ``version raised``: there is an artifact
    with the same fields and another `_version`. ``stale input``: there is an artifact that differs only in
    nodes, and these have changed, or one whose inputs are computed again. ``made by other code``: there is
    an artifact, and `on_code_change` is ``"recompute"``. ``again``: there is an artifact, and the caller
    asks for the node again. ``partial``: there is an artifact, which was made without nodes that had
    failed. ``field added``, ``field renamed``, ``looks renamed``: there is an artifact that was made before
    the class was edited in this way. `advice` then says, for each class, what to write in the class so that
    such artifacts stay valid.

    `open_nodes` of the nodes to compute may have more dependencies, which are not counted: they depend on
    values of nodes of the classes in `more_after`, which are computed first.

    `code_changes` lists the classes with artifacts that were made by other code, among those that would be
    reused and those that they were made from.

    `forecasts` are the makespans of simulated runs, based on recorded durations of the same classes: first
    with the given options, then with other numbers of workers and other windows. More workers cannot make a
    run shorter than `critical_path_sec`. There are no forecasts and no critical path if no duration is
    recorded, if nodes failed, or for more than 5,000 nodes. The classes in `unknown_durations` have no
    recorded durations, and are assumed to take as long as the others.
    """

    to_compute: int
    reused: int
    in_progress: int
    failed: int
    reasons: Mapping[str, Mapping[str, int]]
    nodes: tuple[PlannedNode, ...] = ()
    critical_path_sec: float | None = None
    forecasts: tuple[Forecast, ...] = ()
    unknown_durations: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    advice: Mapping[str, str] = field(default_factory=dict)
    code_changes: tuple[CodeChange, ...] = ()
    open_nodes: int = 0
    more_after: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [
            f"{self.to_compute} to compute, {self.reused} reused, {self.in_progress} in progress "
            f"elsewhere, {self.failed} failed"
        ]
        if self.open_nodes:
            lines.append(
                f"  {self.open_nodes} of these may have more dependencies, which are known after "
                f"{', '.join(self.more_after)}"
            )
        for name, reasons in self.reasons.items():
            counts = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
            lines.append(f"  {name}: {counts}")
            if name in self.advice:
                lines.append(f"    to keep the older artifacts, write in the class: {self.advice[name]}")
        lines += [f"  {printable(change.node_class)}: {change.counts}" for change in self.code_changes]
        lines += [f"  {printable(failure.message)}" for failure in self.failures[:_SHOWN_FAILURES]]
        return "\n".join([*lines, *self._times()])

    def _times(self) -> Iterator[str]:
        if not self.forecasts:
            return
        first, *others = self.forecasts
        yield (
            f"about {seconds(first.makespan_sec)} with {first.max_workers} workers and window "
            f"{first.window_size}; the critical path is {seconds(self.critical_path_sec or 0.0)}"
        )
        for one in others:
            yield f"  {one.max_workers} workers, window {one.window_size}: {seconds(one.makespan_sec)}"
        if self.unknown_durations:
            yield f"  assumed to take as long as the others: {', '.join(self.unknown_durations)}"


def summarize(
    discovery: Discovery,
    settings: Settings,
    *,
    max_workers: int,
    max_async: int,
    window_size: str | int,
    order: Order,
    changes: CodeChanges | None = None,
    again: Again | None = None,
) -> PlanSummary:
    """Count the nodes that a discovery finds, find the reasons to compute them, and simulate runs."""
    facts = list(_facts(discovery))
    found = [fact for fact in facts if isinstance(fact, Found)]
    statuses = Counter(fact.status for fact in found)
    to_compute = [fact for fact in found if fact.status is Status.TODO]
    finder = Reasons(settings, {fact.job.key for fact in found}, again)
    reasons: dict[str, Counter[str]] = {}
    nodes: list[PlannedNode] = []
    advice: dict[str, str] = {}
    for fact in to_compute:
        because = finder.find(fact.job.node, replaced=fact.job.replaces is not None)
        reasons.setdefault(class_name_of(fact.job.node), Counter())[because.reason] += 1
        if because.advice:
            advice.setdefault(class_name_of(fact.job.node), because.advice)
        if len(nodes) < _NAMED_NODES:
            nodes.append(_planned(fact.job, because))
    classes = dict.fromkeys(fact.job.node_class for fact in to_compute)
    recorded = {name: mean_duration_sec(settings, name) for name in classes}
    durations = fill_unknown(recorded)
    critical_path_sec, forecasts = None, []
    if durations and not statuses[Status.FAILED] and len(to_compute) <= _MAX_SIMULATED_NODES:
        critical_path_sec, _ = longest_chain(
            (fact.job.key, fact.depends_on, durations[fact.job.node_class]) for fact in to_compute
        )
        duration_sec = functools.partial(_duration_sec, durations)
        known = list(map(_without_questions, facts))
        run = functools.partial(simulate, known, duration_sec, max_async=max_async, order=order)
        for workers, window in _combinations(max_workers, window_size):
            makespan_sec = run(max_workers=workers, window_size=window)
            forecasts.append(Forecast(workers, window, makespan_sec))
    return PlanSummary(
        to_compute=statuses[Status.TODO],
        reused=statuses[Status.DONE],
        in_progress=statuses[Status.IN_PROGRESS],
        failed=statuses[Status.FAILED],
        reasons=MappingProxyType(
            {name: MappingProxyType(dict(counts)) for name, counts in sorted(reasons.items())}
        ),
        nodes=tuple(nodes),
        critical_path_sec=critical_path_sec,
        forecasts=tuple(forecasts),
        unknown_durations=tuple(name for name in classes if recorded[name] is None) if forecasts else (),
        failures=tuple(fact.failure for fact in found if fact.failure is not None),
        advice=MappingProxyType(advice),
        code_changes=changes.found() if changes is not None else (),
        open_nodes=sum(bool(fact.awaits) for fact in to_compute),
        more_after=_awaited_classes(found),
    )


def _without_questions(fact: Fact) -> Fact:
    """Return a fact for a simulation, which computes the known nodes only."""
    return msgspec.structs.replace(fact, awaits=()) if isinstance(fact, Found) else fact


def _awaited_classes(found: Sequence[Found]) -> tuple[str, ...]:
    awaited = {key for fact in found for key in fact.awaits}
    return tuple(sorted({class_name_of(fact.job.node) for fact in found if fact.job.key in awaited}))


def _duration_sec(durations: Mapping[str, float], job: Job) -> float:
    return durations[job.node_class]


def _facts(discovery: Discovery) -> Iterator[Fact]:
    finished = False
    while not finished:
        batch = discovery.step(room=None)
        if batch.error is not None:
            raise batch.error
        finished = batch.idle and batch.exhausted
        yield from batch.facts


def _planned(job: Job, because: Because) -> PlannedNode:
    cls = class_name_of(job.node)
    return PlannedNode(job.key, cls, describe(job.node), because.reason, because.fields)


def _combinations(max_workers: int, window_size: str | int) -> list[tuple[int, str | int]]:
    """Return the given options, then other numbers of workers, then other windows."""
    asked = (max_workers, window_size)
    others = [(workers, window_size) for workers in _OTHER_WORKERS]
    return list(dict.fromkeys([asked, *others, *((max_workers, window) for window in _OTHER_WINDOWS)]))


def plan_local(
    roots: Iterable[Furu[Any]],
    *,
    max_workers: int = DEFAULT_MAX_WORKERS,
    max_async: int = DEFAULT_MAX_ASYNC,
    window_size: str | int = "bfs",
    retry_failed: bool = True,
    order: Order = "roots",
    on_code_change: OnCodeChange | None = None,
    again: Chosen | None = None,
) -> PlanSummary:
    """Return what `run_local(roots)` would compute, why, and how long it would take. Computes nothing.

    Iterates over all `roots`. Compares the code that made each reused artifact, unless `on_code_change` is
    ``"ignore"``; None means the setting of that name. `again` is the option of `run_local`. Raises the same
    errors as `run_local` for invalid roots, graphs and options.
    """
    check_roots(roots)
    check_limits(max_workers, max_async)
    parse_window_size(window_size)
    check_choice("order", order, get_args(Order))
    check_on_code_change(on_code_change)
    chosen = Again(again) if again is not None else None
    settings = current_settings()
    changes = CodeChanges(on_code_change or settings.on_code_change, every=True)
    discovery = Discovery(
        roots,
        remember=True,
        retry_failed=retry_failed,
        thorough=True,
        changes=changes,
        again=chosen,
    )
    return summarize(
        discovery,
        settings,
        max_workers=max_workers,
        max_async=max_async,
        window_size=window_size,
        order=order,
        changes=changes,
        again=chosen,
    )
