"""A trace of a run in Chrome's JSON format, which Perfetto (https://ui.perfetto.dev) opens. It contains:

    a row for each worker            with a slice for each attempt at a node
    a row for the critical path      with the slices of its nodes
    an arrow for each dependency     from the end of a node to the beginning of its dependent

All slices are kept in memory until they are written, about 300 bytes a node.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from furu.errors import FuruError
from furu.events import (
    Event,
    NodeDone,
    NodeFailed,
    NodePlanned,
    NodeRetried,
    RunFinished,
    RunStarted,
    Timing,
)
from furu.observing.critical_path import longest_chain

__all__ = ["Slice", "Trace"]

_PID = 1
_CRITICAL_ROW = 0


@dataclass(frozen=True, slots=True)
class Slice:
    """One attempt at a node, on one worker."""

    hash: str
    name: str
    spec_key: str
    worker: str
    began_at: float
    ended_at: float
    outcome: str
    error: str = ""


class Trace:
    """Collects the events of a run. Pass it to the run as `on_event`, then call `write`."""

    def __init__(self) -> None:
        self._slices: list[Slice] = []
        self._depends_on: dict[str, tuple[str, ...]] = {}
        self._began_at: float | None = None
        self._run: dict[str, Any] = {}

    def __call__(self, event: Event) -> None:
        """Process an event."""
        if isinstance(event, RunStarted):
            self._began_at = event.at
            limits = {"max_workers": event.max_workers, "max_async": event.max_async}
            self._run = {**limits, "window_size": event.window_size}
        elif isinstance(event, NodePlanned):
            if event.depends_on:
                self._depends_on[event.hash] = event.depends_on
        elif isinstance(event, NodeDone):
            self._add(event, event.timing, "done")
        elif isinstance(event, NodeRetried):
            self._add(event, event.timing, "retried", event.error)
        elif isinstance(event, NodeFailed) and event.timing is not None:
            self._add(event, event.timing, "failed", event.error)
        elif isinstance(event, RunFinished):
            self._run["end"] = event.end

    def write(self, path: Path) -> None:
        """Write the trace to a file atomically. Raises `FuruError` if that fails."""
        text = json.dumps(self.document(), separators=(",", ":"))
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise FuruError(f"cannot write the trace to {path}: {error.strerror or error}") from error

    def document(self) -> dict[str, Any]:
        """Return the trace as a value that `json.dumps` accepts."""
        slices = list(self._in_order())
        rows = {worker: row for row, worker in enumerate(sorted({one.worker for one in slices}), start=1)}
        critical = self._critical_path()
        events = [_named("process_name", 0, "furu"), _named("thread_name", _CRITICAL_ROW, "critical path")]
        events += [_named("thread_name", row, worker) for worker, row in rows.items()]
        for one in slices:
            is_critical = one.outcome == "done" and one.hash in critical
            events.append(self._slice(one, rows[one.worker], is_critical))
            if is_critical:
                events.append(self._slice(one, _CRITICAL_ROW, True))
        events += self._arrows(slices, rows)
        return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": self._run}

    def _critical_path(self) -> set[str]:
        """Return the hashes of the nodes on the longest chain. A node is done after its dependencies, so
        the slices have the order that `longest_chain` needs."""
        done = [one for one in self._slices if one.outcome == "done"]
        nodes = [
            (one.hash, self._depends_on.get(one.hash, ()), one.ended_at - one.began_at) for one in done
        ]
        return set(longest_chain(nodes)[1])

    def _add(
        self, event: NodeDone | NodeFailed | NodeRetried, timing: Timing, outcome: str, error: str = ""
    ) -> None:
        ended_at = timing.started_at + timing.duration_sec
        place = (event.hash, event.name, event.spec_key, timing.worker)
        self._slices.append(Slice(*place, timing.started_at, ended_at, outcome, error))

    def _in_order(self) -> Iterator[Slice]:
        """Yield the slices, sorted by worker and time. A worker computes one node at a time, but slices may
        overlap if the clock was set back. Overlapping slices are shortened."""
        ordered = sorted(self._slices, key=lambda one: (one.worker, one.began_at))
        for one, following in zip(ordered, [*ordered[1:], None], strict=True):
            if following is not None and following.worker == one.worker:
                yield replace(one, ended_at=min(one.ended_at, following.began_at))
            else:
                yield one

    def _slice(self, one: Slice, row: int, is_critical: bool) -> dict[str, Any]:
        args = {"hash": one.hash, "spec_key": one.spec_key, "outcome": one.outcome}
        if one.error:
            args["error"] = one.error
        return {
            "ph": "X",
            "pid": _PID,
            "tid": row,
            "name": one.name if one.outcome == "done" else f"{one.name} ({one.outcome})",
            "cat": "node,critical" if is_critical else "node",
            "ts": self._us(one.began_at),
            "dur": max(round((one.ended_at - one.began_at) * 1e6, 3), 0.0),
            "args": args,
        }

    def _arrows(self, slices: list[Slice], rows: dict[str, int]) -> Iterator[dict[str, Any]]:
        done = {one.hash: one for one in slices if one.outcome == "done"}
        number = 0
        for to in done.values():
            for key in self._depends_on.get(to.hash, ()):
                if (begin := done.get(key)) is None:
                    continue
                number += 1
                arrow = {"cat": "depends_on", "name": "depends on", "id": number, "pid": _PID}
                # Just before the slice ends: Perfetto attaches an arrow to the slice at the arrow's time.
                within = begin.began_at + 0.999 * (begin.ended_at - begin.began_at)
                yield {**arrow, "ph": "s", "tid": rows[begin.worker], "ts": self._us(within)}
                yield {**arrow, "ph": "f", "bp": "e", "tid": rows[to.worker], "ts": self._us(to.began_at)}

    def _us(self, at: float) -> float:
        return round(max(at - (self._began_at or 0.0), 0.0) * 1e6, 3)


def _named(kind: str, row: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "pid": _PID, "tid": row, "name": kind, "args": {"name": name}}
