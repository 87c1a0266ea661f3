"""The parts of pages. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from furu._common.text import printable
from furu.graph import UNNEEDED
from furu.service.progress import NodeState
from furu.store.catalog import AttemptInfo, LogText
from furu.web.html import Html, el, text_block
from furu.web.reading import RunFacts

__all__ = [
    "attempt_section",
    "badge",
    "count_list",
    "count_of_nodes",
    "cut",
    "duration",
    "label_of",
    "left_out",
    "result_block",
    "run_times",
    "settled",
    "table",
    "when",
]

_MAX_SHOWN_CHARS = 20_000
_COUNTED: tuple[NodeState, ...] = get_args(NodeState)


def attempt_section(attempt: AttemptInfo, log: LogText | None) -> Html:
    """Return a section about an attempt, with its error, traceback and log."""
    took = f"took {duration(attempt.duration_sec)}" if attempt.duration_sec is not None else ""
    began = when(attempt.started_at) if attempt.started_at is not None else ""
    facts = " · ".join(part for part in (began, took, printable(attempt.owner)) if part)
    return el(
        "section",
        el("h3", f"Attempt {attempt.number} ", badge(attempt.state)),
        el("p", facts, class_="quiet") if facts else None,
        el("p", printable(attempt.error), class_="problem") if attempt.error else None,
        el("h4", "Traceback") if attempt.traceback else None,
        text_block("".join(_lines(attempt.traceback))) if attempt.traceback else None,
        el("h4", "Log") if log is not None else None,
        el("p", f"{log.left_out_bytes:,} bytes before this are left out.", class_="quiet")
        if log is not None and log.left_out_bytes
        else None,
        text_block(log.text) if log is not None else None,
    )


def _lines(traceback: Iterable[str]) -> Iterable[str]:
    return (line if line.endswith("\n") else f"{line}\n" for line in traceback)


def label_of(state: str) -> str:
    """Return the label of a state."""
    return "not needed" if state == UNNEEDED else state


def badge(state: str) -> Html:
    """Return a coloured badge for a state."""
    return el("span", state, class_=f"badge {state.lower()}")


def count_list(counts: Mapping[Any, int]) -> Html:
    """Return a list of the counts of all states. Counts of 0 are hidden until the script shows them."""
    items = [
        el(
            "li",
            el("b", f"{counts.get(state, 0):,}", data_count=state),
            f" {state}",
            class_=state,
            hidden=not counts.get(state, 0),
        )
        for state in _COUNTED
    ]
    return el("ul", *items, class_="counts", id="counts")


def count_of_nodes(count: int) -> str:
    """Return a number of nodes as text."""
    return f"{count:,} node" if count == 1 else f"{count:,} nodes"


def settled(counts: Mapping[Any, int]) -> int:
    """Return how many nodes are done, reused or failed."""
    return sum(counts.get(state, 0) for state in ("done", "reused", "failed"))


def table(heads: Sequence[str], rows: Sequence[Html]) -> Html:
    """Return a table that scrolls sideways, separately from the page."""
    head = el("thead", el("tr", *(el("th", name) for name in heads)))
    return el("div", el("table", head, el("tbody", *rows)), class_="scroll", tabindex=0)


def left_out(count: int, shown: int) -> Html | None:
    """Return a line that says how many of `count` items are not shown; None if all are shown."""
    return el("p", f"and {count - shown:,} more", class_="quiet") if count > shown else None


def cut(text: str) -> str:
    """Return the beginning of `text`, and the number of characters that are left out."""
    more = len(text) - _MAX_SHOWN_CHARS
    return f"{text[:_MAX_SHOWN_CHARS]}\n… and {more:,} characters more" if more > 0 else text


def result_block(result: bytes) -> Html:
    """Return the beginning of a result, which may be hundreds of megabytes long."""
    shown = result[:_MAX_SHOWN_CHARS].decode("utf-8", "replace")
    more = len(result) - _MAX_SHOWN_CHARS
    return text_block(f"{shown}\n… and {more:,} bytes more" if more > 0 else shown)


def run_times(run: RunFacts) -> str:
    """Return when a run was created or started, and how long it took."""
    if run.started_at is None:
        return f"since {when(run.created_at)}"
    if run.ended_at is None:
        return f"since {when(run.started_at)}"
    return f"{when(run.started_at)}, took {duration(run.ended_at - run.started_at)}"


def when(seconds: float) -> str:
    """Format a time, given in seconds since the epoch, in UTC."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
    except (ValueError, OverflowError, OSError):  # a damaged record may contain any number
        return "at an unknown time"


def duration(seconds: float) -> str:
    """Format a duration with its unit."""
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:,.1f} s"
