"""What clients see of a store and of runs, as plain values. What may hold paths, messages of exceptions or
other internals leaves this module only with `show_details`.

Reads the store, so it runs in threads, but for what it takes of live runs, on their loop. Changes nothing.
A class or a state that a request names is only compared with those that exist.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from furu._common.origin import class_name
from furu._common.text import describe_error
from furu.errors import FuruComputeError, FuruStoreError
from furu.graph import Graph
from furu.node.base import Node, configuration
from furu.node.dependencies import dependencies
from furu.service.progress import NodeProgress, NodeState, Snapshot
from furu.service.run import Run, RunState
from furu.settings import Settings
from furu.store.artifact import Status
from furu.store.catalog import (
    AttemptInfo,
    Entry,
    LogText,
    NodeInfo,
    directories_of_classes,
    find,
    find_class,
    inspect,
    read_log,
    walk,
)

logger = logging.getLogger("furu.web")

# A page must not keep a thread for longer than people wait; the rest is another page.
LIST_SEC = 1.0
COUNT_SEC = 2.0
NODES_A_PAGE = 200
# The last ones; a node may have failed for years.
SHOWN_ATTEMPTS = 20
# Of a run with very many roots, clients see some: each message would hold them all.
_MAX_ROOTS = 100
_NAMED_FAILURES = 3
# Nodes in a list on a page.
MAX_LISTED = 50

UNREADABLE = "UNREADABLE"
STATES = (*(str(status) for status in Status), UNREADABLE)

SEE_LOG = "The log of the service has more."
_ERROR_NAME = re.compile(r"[\w.<>]{1,200}\Z")


# ---- runs ----


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A run as clients see it at one moment; it is JSON as it stands."""

    id: str
    title: str
    state: RunState
    created_at: float
    started_at: float | None
    ended_at: float | None
    roots: tuple[str, ...]
    root_count: int
    counts: Mapping[NodeState, int]
    error: str | None


def run_facts(run: Run, *, show_details: bool = False) -> RunFacts:
    """Return what clients see of a run now. Called on its loop."""
    return RunFacts(
        id=run.id,
        title=run.title,
        state=run.state,
        created_at=run.created_at,
        started_at=run.started_at,
        ended_at=run.ended_at,
        roots=tuple([root.furu_hash for root in run.roots[:_MAX_ROOTS]]),
        root_count=len(run.roots),
        counts={state: count for state, count in sorted(run.progress.counts.items()) if count},
        error=None if run.error is None else _run_error(run.error, show_details),
    )


@dataclass(frozen=True, slots=True)
class RunSnapshot:
    """A run with its nodes at one moment: what a page of it shows."""

    facts: RunFacts
    progress: Snapshot
    failed: tuple[NodeProgress, ...]

    def states(self, graph: Graph) -> dict[str, str]:
        """Return the state of every node of the run's graph."""
        known = {key: node.state for key, node in self.progress.nodes.items()}
        return graph.states(known, is_finished=self.facts.state == "finished")


def take_snapshot(run: Run, *, show_details: bool) -> RunSnapshot:
    """Return what clients see of a run and its nodes now. Called on its loop."""
    progress = run.progress.snapshot()
    failed = [node for node in progress.nodes.values() if node.state == "failed"][:MAX_LISTED]
    return RunSnapshot(
        run_facts(run, show_details=show_details),
        progress,
        tuple(shown_progress(failed, show_details=show_details)),
    )


def _run_error(error: Exception, show_details: bool) -> str:
    if show_details:
        return describe_error(error)
    if not isinstance(error, FuruComputeError) or not error.failures:
        return f"{type(error).__qualname__}. {SEE_LOG}"
    named = ", ".join(
        f"{type(failure.node).__qualname__} {failure.node.furu_hash[:12]} "
        f"({type(failure.error).__qualname__ if failure.error is not None else 'in an earlier run'})"
        for failure in error.failures[:_NAMED_FAILURES]
    )
    more = len(error.failures) - _NAMED_FAILURES
    return f"failed: {named}{f' and {more} more' if more > 0 else ''}. {SEE_LOG}"


def shown_progress(nodes: Iterable[NodeProgress], *, show_details: bool) -> list[NodeProgress]:
    """Return nodes of a run as clients see them."""
    return [
        node if show_details or not node.error else dataclasses.replace(node, error="see its page")
        for node in nodes
    ]


# ---- nodes ----


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """A node as clients see it. `attempts` are the last ones; `logs` their logs, by number; `directory`
    and what else may hold paths are empty unless details are shown."""

    hash: str
    node_class: str
    status: str
    config: dict[str, Any] | None
    depends_on: tuple[str, ...]
    started_at: float | None = None
    duration_sec: float | None = None
    problem: str = ""
    result: bytes | None = None
    directory: str = ""
    attempts: tuple[AttemptInfo, ...] = ()
    attempt_count: int = 0
    logs: Mapping[int, LogText] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The class without its module."""
        return self.node_class.rpartition(":")[2]


def read_node(settings: Settings, node_hash: str, *, show_details: bool) -> NodeFacts | None:
    """Return what the store knows of a node, by its whole hash; None where it has no such node.

    Raises `FuruStoreError` if the store cannot be listed.
    """
    try:
        entry = find(settings, node_hash)
    except FuruStoreError:
        next(directories_of_classes(settings.store), None)  # raises if the store itself cannot be listed
        return None
    info = inspect(entry)
    problem = info.problem
    if problem and not show_details:
        logger.warning("the node %s %s: %s", entry.name, entry.hash, problem)
        problem = f"A file of this node is damaged or cannot be read. {SEE_LOG}"
    attempts = info.attempts[-SHOWN_ATTEMPTS:]
    return NodeFacts(
        hash=entry.hash,
        node_class=info.node_class,
        status=str(info.status),
        config=info.config,
        depends_on=info.depends_on,
        started_at=info.started_at,
        duration_sec=info.duration_sec,
        problem=problem,
        result=info.result,
        directory=str(entry.directory) if show_details else "",
        attempts=attempts if show_details else tuple(map(_without_details, attempts)),
        attempt_count=len(info.attempts),
        logs=_read_logs(info) if show_details else {},
    )


def describe_node(node: Node[Any], recorded: NodeFacts | None) -> NodeFacts:
    """Return a node whose configuration is not recorded yet as its run knows it, with the attempts that are
    recorded. Calls the node's own methods."""
    facts = recorded or NodeFacts(node.furu_hash, class_name(type(node)), str(Status.TODO), None, ())
    depends_on = tuple([one.furu_hash for one in dependencies(node)])
    return dataclasses.replace(facts, config=configuration(node), depends_on=depends_on)


def node_values(facts: NodeFacts) -> dict[str, Any]:
    """Return a node as JSON for clients: all but its result."""
    return {
        "hash": facts.hash,
        "class": facts.node_class,
        "status": facts.status,
        "config": facts.config,
        "depends_on": facts.depends_on,
        "started_at": facts.started_at,
        "duration_sec": facts.duration_sec,
        "problem": facts.problem,
        "attempts": [
            {
                "number": attempt.number,
                "state": attempt.state,
                "owner": attempt.owner,
                "error": attempt.error,
                "traceback": attempt.traceback,
                "started_at": attempt.started_at,
                "duration_sec": attempt.duration_sec,
                "log": facts.logs[attempt.number].text if attempt.number in facts.logs else None,
            }
            for attempt in facts.attempts
        ],
    }


def _without_details(attempt: AttemptInfo) -> AttemptInfo:
    name = attempt.error.partition(":")[0]
    error = name if _ERROR_NAME.match(name) else "an error" if name else ""
    return dataclasses.replace(attempt, owner="", error=error, traceback=())


def _read_logs(info: NodeInfo) -> dict[int, LogText]:
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


# ---- the store ----


@dataclass(frozen=True, slots=True)
class StoreSummary:
    """The nodes of a store by class and state; it is JSON as it stands. `partial` names the classes that
    were not counted to their end, because that took too long. `store` is empty unless details are shown."""

    store: str
    classes: dict[str, Counter[str]]
    partial: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StorePage:
    """Some nodes of a class, by hash: hash and state of each. `next_after`: the hash after which the next
    page goes on; None if there are no more. `is_cut`: the page ended because it took too long."""

    node_class: str
    nodes: list[tuple[str, str]]
    next_after: str | None
    is_cut: bool


def summarize_store(settings: Settings, *, show_details: bool) -> StoreSummary:
    """Count for a bounded time. Raises `FuruStoreError` if the store cannot be listed."""
    deadline = time.monotonic() + COUNT_SEC
    classes = {name: Counter[str]() for name in _class_names(settings)}
    counted: set[str] = set()
    current = ""
    for entry in walk(settings):
        if entry.name != current:
            counted.add(current)
            current = entry.name
        counts = classes.setdefault(current, Counter())
        if time.monotonic() > deadline:
            partial = tuple([name for name in classes if name not in counted])
            break
        counts[_state(entry)] += 1
    else:
        partial = ()
        classes = {name: counts for name, counts in classes.items() if counts}
    return StoreSummary(str(settings.store) if show_details else "", classes, partial)


def list_nodes(settings: Settings, node_class: str, state: str | None, after: str) -> StorePage:
    """Return the next nodes of a class that are in a state, if one is given, for a bounded time.

    Raises `FuruStoreError` if the store cannot be listed.
    """
    found: list[tuple[str, str]] = []
    deadline = time.monotonic() + LIST_SEC
    seen = after
    for entry in _nodes_of(settings, node_class):
        if entry.hash <= after:
            continue
        is_late = time.monotonic() > deadline and seen != after
        if len(found) == NODES_A_PAGE or is_late:
            return StorePage(node_class, found, seen, is_late)
        now = _state(entry)
        if state is None or state == now:
            found.append((entry.hash, now))
        seen = entry.hash
    return StorePage(node_class, found, None, False)


def _class_names(settings: Settings) -> list[str]:
    return [f"{module}:{cls}" for module, cls, _ in directories_of_classes(settings.store)]


def _nodes_of(settings: Settings, node_class: str) -> Iterator[Entry]:
    """Yield the nodes of a class of the store, by hash."""
    if node_class not in _class_names(settings):
        return
    module, _, cls = node_class.partition(":")
    entries = find_class(settings, module, cls)
    first = next(entries, None)
    if first is not None:
        yield first
        yield from entries
    else:  # its name was too long for a directory, or is not printable
        yield from (entry for entry in walk(settings) if entry.name == node_class)


def _state(entry: Entry) -> str:
    try:
        return entry.status()
    except FuruStoreError:
        return UNREADABLE
