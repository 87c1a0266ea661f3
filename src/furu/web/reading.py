"""What the pages show of a store and of runs, as plain values. Reads the store, so it runs in threads.

Changes nothing. A class or a state that a request names is only compared with what is there.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from furu.errors import FuruError, FuruStoreError
from furu.settings import Settings
from furu.store.artifact import Status
from furu.store.catalog import Entry, LogText, NodeInfo, find, inspect, read_log, walk
from furu.web.runs import Run

# A page is not to keep a thread for longer than people wait; what is left out is told.
_WALK_SEC = 5.0
NODES_A_PAGE = 200
# The last ones; a node may have failed for years.
SHOWN_ATTEMPTS = 20
# Of a run of very many roots, clients are told some: each message would hold them all.
_MAX_ROOTS = 100

UNREADABLE = "UNREADABLE"


class NoSuchNodeError(FuruError):
    """The store knows nothing of the node that was asked for."""


@dataclass(frozen=True, slots=True)
class StoreSummary:
    """The nodes of a store by class and state. `is_cut`: there are more, the walk took too long."""

    store: str
    classes: dict[str, Counter[str]]
    is_cut: bool


@dataclass(frozen=True, slots=True)
class StorePage:
    """Some nodes of a class, by hash: hash and state of each. `next_after`: where the next page begins."""

    node_class: str
    nodes: list[tuple[str, str]]
    next_after: str | None


def summarize_store(settings: Settings) -> StoreSummary:
    """Count. Raises `FuruStoreError` if the store cannot be listed."""
    deadline = time.monotonic() + _WALK_SEC
    classes: dict[str, Counter[str]] = {}
    for entry in walk(settings):
        classes.setdefault(entry.name, Counter())[_state(entry)] += 1
        if time.monotonic() > deadline:
            return StoreSummary(str(settings.store), classes, True)
    return StoreSummary(str(settings.store), classes, False)


def list_nodes(settings: Settings, node_class: str, state: str | None, after: str) -> StorePage:
    """Return a page of the nodes of a class that are in a state, if one is given.

    Raises `FuruStoreError` if the store cannot be listed.
    """
    found: list[tuple[str, str]] = []
    deadline = time.monotonic() + _WALK_SEC
    for entry in walk(settings):
        if entry.name != node_class or entry.hash <= after:
            continue
        if len(found) == NODES_A_PAGE or time.monotonic() > deadline:
            return StorePage(node_class, found, found[-1][0] if found else entry.hash)
        now = _state(entry)
        if state is None or state == now:
            found.append((entry.hash, now))
    return StorePage(node_class, found, None)


def read_node(settings: Settings, node_hash: str) -> NodeInfo:
    """Return all that the store knows of a node, by its whole hash. Raises `NoSuchNodeError`."""
    try:
        return inspect(find(settings, node_hash))
    except FuruStoreError as error:
        raise NoSuchNodeError(str(error)) from error


def read_logs(info: NodeInfo) -> dict[int, LogText]:
    """Return the end of the log of each of the last attempts that has one."""
    found = {}
    for attempt in info.attempts[-SHOWN_ATTEMPTS:]:
        try:
            log = read_log(info.entry, attempt.number)
        except FuruStoreError as error:
            log = LogText(str(error), 0)
        if log is not None:
            found[attempt.number] = log
    return found


def run_values(run: Run) -> dict[str, Any]:
    """A run as JSON for clients."""
    counts = {state: count for state, count in sorted(run.progress.counts.items()) if count}
    return {
        "id": run.id,
        "title": run.title,
        "state": run.state,
        "created_at": run.created_at,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "roots": [root.furu_hash for root in run.roots[:_MAX_ROOTS]],
        "root_count": len(run.roots),
        "counts": counts,
        "error": str(run.error) if run.error is not None else None,
    }


def node_values(info: NodeInfo, logs: dict[int, LogText]) -> dict[str, Any]:
    """A node as JSON for clients: what `NodeInfo` holds, but for its result and its first attempts."""
    return {
        "hash": info.entry.hash,
        "class": info.node_class,
        "status": str(info.status),
        "config": info.config,
        "depends_on": list(info.depends_on),
        "started_at": info.started_at,
        "duration_sec": info.duration_sec,
        "problem": info.problem,
        "attempts": [
            {
                "number": attempt.number,
                "state": attempt.state,
                "owner": attempt.owner,
                "error": attempt.error,
                "traceback": list(attempt.traceback),
                "started_at": attempt.started_at,
                "duration_sec": attempt.duration_sec,
                "log": logs[attempt.number].text if attempt.number in logs else None,
            }
            for attempt in info.attempts[-SHOWN_ATTEMPTS:]
        ],
    }


def _state(entry: Entry) -> str:
    try:
        return entry.status()
    except FuruStoreError:
        return UNREADABLE


STATES = (*(str(status) for status in Status), UNREADABLE)
