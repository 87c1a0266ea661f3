"""What a run would do, counted by class and reason. Computes nothing, writes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from furu.core import why_missing
from furu.execution.discovery import Discovery, Found
from furu.identity import class_name
from furu.store.artifact import Status


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """What a run of the same roots would do.

    `to_compute` nodes would be computed; `reused` are DONE, and hide all below them; `in_progress` are
    being computed by another owner, whom the run would wait for; `failed` failed before and would fail
    the run (only with `retry_failed=False`). `reasons` counts the nodes to compute by class and reason:
    ``missing``, ``invalid`` (`_validate` rejects the artifact), ``failed``, ``cancelled`` or
    ``interrupted`` (how the last attempt ended).
    """

    to_compute: int
    reused: int
    in_progress: int
    failed: int
    reasons: Mapping[str, Mapping[str, int]]

    def __str__(self) -> str:
        lines = [
            f"{self.to_compute} to compute, {self.reused} reused, {self.in_progress} in progress "
            f"elsewhere, {self.failed} failed"
        ]
        for name, reasons in self.reasons.items():
            counts = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
            lines.append(f"  {name}: {counts}")
        return "\n".join(lines)


def summarize(discovery: Discovery) -> PlanSummary:
    """Walk everything that a discovery finds, and count it."""
    statuses: Counter[Status] = Counter()
    reasons: dict[str, Counter[str]] = {}
    finished = False
    while not finished:
        batch = discovery.step(room=None)
        finished = batch.idle and batch.exhausted
        for fact in batch.facts:
            if not isinstance(fact, Found):
                continue
            statuses[fact.status] += 1
            if fact.status is Status.TODO:
                node = fact.job.node
                reasons.setdefault(class_name(type(node)), Counter())[why_missing(node)] += 1
    return PlanSummary(
        to_compute=statuses[Status.TODO],
        reused=statuses[Status.DONE],
        in_progress=statuses[Status.IN_PROGRESS],
        failed=statuses[Status.FAILED],
        reasons=MappingProxyType(
            {name: MappingProxyType(dict(counts)) for name, counts in sorted(reasons.items())}
        ),
    )
