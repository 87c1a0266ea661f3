"""What clients see of the store and of runs, as plain values.

Without `show_details`, the values contain no paths, exception messages or other internals. The class and
the state in a request are only compared with existing classes and states. Functions that read the store are
called in threads. Functions that read live runs are called on the loop of these runs.
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

from furu._common.text import describe_error, printable
from furu.errors import FuruComputeError, FuruStoreError
from furu.graph import Graph
from furu.node.base import Node, artifact_of, configuration
from furu.node.dependencies import dependencies
from furu.service.progress import NodeProgress, NodeState, Snapshot
from furu.service.run import Run, RunState
from furu.settings import Settings
from furu.store.artifact import Artifact, Status
from furu.store.catalog import AttemptInfo, LogText, NodeInfo, class_directories, find, inspect, walk
from furu.store.node_json import node_json, read_logs

__all__ = [
    "MAX_LISTED",
    "SEE_LOG",
    "STATES",
    "NodeFacts",
    "RunFacts",
    "RunSnapshot",
    "StorePage",
    "StoreSummary",
    "describe_node",
    "list_nodes",
    "node_values",
    "read_node",
    "run_facts",
    "shown_progress",
    "summarize_store",
    "take_snapshot",
]

logger = logging.getLogger("furu.web")

# The largest number of nodes in a list on a page.
MAX_LISTED = 50
_NODES_A_PAGE = 200
# Clients see only the last attempts of a node, because it may have failed for years.
_SHOWN_ATTEMPTS = 20
# Clients see only the first roots of a run, because every response about the run contains them.
_MAX_ROOTS = 100
_NAMED_FAILURES = 3

_UNREADABLE = "UNREADABLE"
STATES = (*(str(status) for status in Status), _UNREADABLE)

SEE_LOG = "The log of the service has more."
_ERROR_NAME = re.compile(r"[\w.<>]{1,200}\Z")


# ---- runs ----


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A run as clients see it at one moment, ready to be sent as JSON."""

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
    """Return the current facts about a run, as clients see them. Called on the loop of the run."""
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
    """A run and its nodes at one moment, as its page shows them."""

    facts: RunFacts
    progress: Snapshot
    failed: tuple[NodeProgress, ...]

    def states(self, graph: Graph) -> dict[str, str]:
        """Return the state of each node of the run's graph."""
        known = {key: node.state for key, node in self.progress.nodes.items()}
        return graph.states(known, is_finished=self.facts.state == "finished")


def take_snapshot(run: Run, *, show_details: bool) -> RunSnapshot:
    """Return the current state of a run and its nodes, as clients see it. Called on the loop of the run."""
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
    """Return the states of nodes as clients see them: without error messages unless details are shown."""
    return [
        node if show_details or not node.error else dataclasses.replace(node, error="see its page")
        for node in nodes
    ]


def advance_text(node: NodeProgress) -> str:
    """Return what a running node has reported with `furu.progress`, as text; empty if it has not."""
    return printable(str(node.advance)) if node.advance is not None else ""


# ---- nodes ----


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """A node as clients see it. `info` has only the last attempts; `attempt_count` counts all of them.

    `logs` maps attempt numbers to logs. `logs` and `path` are empty unless details are shown.
    """

    info: NodeInfo
    depends_on: tuple[str, ...]
    path: str = ""
    attempt_count: int = 0
    logs: Mapping[int, LogText] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """The node's hash."""
        return self.info.artifact.hash

    @property
    def name(self) -> str:
        """The class's name without its module."""
        return self.info.node_class.rpartition(":")[2]


def read_node(settings: Settings, node_hash: str, *, show_details: bool) -> NodeFacts | None:
    """Return what the store knows about the node with this hash, or None if it does not have the node.

    Raises `FuruStoreError` if the store cannot be listed.
    """
    try:
        artifact = find(settings, node_hash)
    except FuruStoreError:
        next(class_directories(settings.store), None)  # raises if the store itself cannot be listed
        return None
    info = inspect(artifact)
    count = len(info.attempts)
    info = dataclasses.replace(info, attempts=info.attempts[-_SHOWN_ATTEMPTS:])
    if show_details:
        return NodeFacts(info, info.depends_on, str(artifact.path), count, read_logs(info))
    if info.problem:
        logger.warning("the node %s: %s", artifact, info.problem)
        info = dataclasses.replace(
            info, problem=f"A file of this node is damaged or cannot be read. {SEE_LOG}"
        )
    info = dataclasses.replace(info, attempts=tuple(map(_without_details, info.attempts)), made_by=None)
    return NodeFacts(info, info.depends_on, attempt_count=count)


def describe_node(node: Node[Any], recorded: NodeFacts | None) -> NodeFacts:
    """Return the facts about a node whose configuration is not recorded yet, taken from the node object.

    Keeps the attempts that are recorded. Calls methods that the node's class defines.
    """
    if recorded is None:
        artifact = artifact_of(node)
        recorded = NodeFacts(NodeInfo(artifact, Status.TODO, artifact.node_class, None, ()), ())
    info = dataclasses.replace(recorded.info, config=configuration(node))
    depends_on = tuple([dependency.furu_hash for dependency in dependencies(node)])
    return dataclasses.replace(recorded, info=info, depends_on=depends_on)


def node_values(facts: NodeFacts) -> dict[str, Any]:
    """Return a node as JSON values for clients: everything except its result and path."""
    return {**node_json(facts.info, facts.logs), "depends_on": facts.depends_on}


def _without_details(attempt: AttemptInfo) -> AttemptInfo:
    name = attempt.error.partition(":")[0]
    error = name if _ERROR_NAME.match(name) else "an error" if name else ""
    return dataclasses.replace(attempt, owner="", error=error, traceback=())


# ---- the store ----


@dataclass(frozen=True, slots=True)
class StoreSummary:
    """The number of nodes of each class in each state, ready to be sent as JSON.

    `partial` names the classes whose nodes were not all counted, because that took too long. `store` is the
    path of the store, or empty unless details are shown.
    """

    store: str
    classes: dict[str, Counter[str]]
    partial: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StorePage:
    """Some nodes of a class, each with its state, sorted by hash.

    The next page starts after the hash `next_after`, which is None on the last page. If `is_cut`, the page
    is not full because reading the nodes took too long.
    """

    node_class: str
    nodes: list[tuple[str, str]]
    next_after: str | None
    is_cut: bool


def summarize_store(settings: Settings, *, show_details: bool, limit_sec: float = 2.0) -> StoreSummary:
    """Count the nodes of the store, but not for longer than `limit_sec`.

    Raises `FuruStoreError` if the store cannot be listed.
    """
    deadline = time.monotonic() + limit_sec
    classes = {name: Counter[str]() for name in _class_names(settings)}
    counted: set[str] = set()
    current = ""
    for artifact in walk(settings):
        if artifact.node_class != current:
            counted.add(current)
            current = artifact.node_class
        counts = classes.setdefault(current, Counter())
        if time.monotonic() > deadline:
            partial = tuple([name for name in classes if name not in counted])
            break
        counts[_state(artifact)] += 1
    else:
        partial = ()
        classes = {name: counts for name, counts in classes.items() if counts}
    return StoreSummary(str(settings.store) if show_details else "", classes, partial)


def list_nodes(
    settings: Settings, node_class: str, state: str | None, after: str, *, limit_sec: float = 1.0
) -> StorePage:
    """Return a page of the nodes of a class, starting after the hash `after`. With `state`, the page has
    only nodes in that state.

    Stops reading after about `limit_sec`, but reads at least one node, so that every page advances. Raises
    `FuruStoreError` if the store cannot be listed.
    """
    nodes: list[tuple[str, str]] = []
    deadline = time.monotonic() + limit_sec
    seen = after
    for artifact in _nodes_of(settings, node_class):
        if artifact.hash <= after:
            continue
        is_late = time.monotonic() > deadline and seen != after
        if len(nodes) == _NODES_A_PAGE or is_late:
            return StorePage(node_class, nodes, seen, is_late)
        current = _state(artifact)
        if state is None or state == current:
            nodes.append((artifact.hash, current))
        seen = artifact.hash
    return StorePage(node_class, nodes, None, False)


def _class_names(settings: Settings) -> list[str]:
    return [name for name, _ in class_directories(settings.store)]


def _nodes_of(settings: Settings, node_class: str) -> Iterator[Artifact]:
    """Yield the nodes of a class, sorted by hash, if the store has the class."""
    if node_class in _class_names(settings):
        yield from walk(settings, node_class=node_class)


def _state(artifact: Artifact) -> str:
    try:
        return artifact.status()
    except FuruStoreError:
        return _UNREADABLE
