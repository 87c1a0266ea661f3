"""The pages, from plain values to HTML. Pure: reads no disk, no request and no live run.

Every link is made here, of the path that the application is mounted at and of hashes; whatever a node, a
log or an exception says is text.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args
from urllib.parse import urlencode

from furu._common.text import printable
from furu.drawing import DrawnNode
from furu.graph import UNNEEDED, ClassNode, Graph, GraphNode
from furu.service.progress import NodeProgress, NodeState
from furu.store.catalog import AttemptInfo, LogText
from furu.web.drawing import draw
from furu.web.html import Child, Html, document, el, join, text_block
from furu.web.jobs import Job
from furu.web.reading import MAX_LISTED, STATES, NodeFacts, RunFacts, RunSnapshot, StorePage, StoreSummary

# People do not read a drawing of more boxes; more cells make a page slow.
_MAX_BOXES = 60
_MAX_COLUMN = 12
_MAX_CELLS = 5_000
_MAX_SHOWN_CHARS = 20_000
_COUNTED: tuple[NodeState, ...] = get_args(NodeState)


class Pages:
    """Makes the pages of an application that is mounted at `base`, a path without a slash at its end."""

    def __init__(self, base: str) -> None:
        self._base = base

    def index(self, live: Sequence[RunFacts], recent: Sequence[RunFacts], jobs: Iterable[Job]) -> str:
        """The runs of this process, and the jobs that it can start."""
        described = [
            el(
                "tr",
                el("td", el("code", one.name)),
                el("td", _parameters(one)),
                el("td", one.on_disconnect),
            )
            for one in jobs
        ]
        return self._page(
            "Runs",
            el("h1", "Runs"),
            el("h2", f"Live: {len(live)}"),
            self._runs(live) if live else el("p", "No run is queued or running.", class_="quiet"),
            el("h2", f"Recent: {len(recent)}"),
            self._runs(recent) if recent else el("p", "No run has ended yet.", class_="quiet"),
            el("h2", "Jobs") if described else None,
            _table(("Job", "Arguments", "When all clients left"), described) if described else None,
            refresh=bool(live),
        )

    def run(self, snapshot: RunSnapshot, graph: Graph | None, problem: str = "") -> str:
        """One run: how far it is, its graph, its nodes. All of it is of the moment of the snapshot, and the
        page's stream goes on from there."""
        run, progress = snapshot.facts, snapshot.progress
        is_live = run.ended_at is None
        here = f"{self._base}/api/runs/{run.id}"
        return self._page(
            f"Run {run.title}",
            el("p", el("a", "Runs", href=f"{self._base}/"), class_="trail"),
            el("h1", printable(run.title)),
            el(
                "p",
                el("span", run.state, class_=f"badge {run.state}", id="state"),
                " ",
                el("span", _run_times(run), class_="quiet"),
            ),
            el("p", id="connection", class_="problem", role="status", hidden=True) if is_live else None,
            el("progress", id="progress", max=sum(run.counts.values()) or 1, value=_settled(run.counts)),
            _counts(run.counts),
            el("p", printable(run.error), class_="problem") if run.error and not snapshot.failed else None,
            el("p", problem, class_="problem") if problem else None,
            el("h2", "Failed"),
            el("ul", *map(self._failed, snapshot.failed), id="failed", class_="nodes"),
            el("h2", "Running"),
            el("ul", *map(self._running, progress.running), id="running", class_="nodes"),
            *(self._graph(graph, snapshot) if graph is not None else ()),
            live={
                "events": f"{here}/events",
                "after": progress.last_change,
                "nodes": f"{self._base}/nodes/",
                "run": here,
            }
            if is_live
            else None,
        )

    def node(self, node: NodeFacts, run: RunFacts | None = None, run_state: str = "") -> str:
        """One node: its configuration, dependencies, attempts with their tracebacks and logs. Where the
        store has no configuration yet, `run` is a run that knows the node, in `run_state`."""
        config = json.dumps(node.config, indent=2, ensure_ascii=False) if node.config is not None else None
        facts: list[tuple[str, Child]] = [("Class", printable(node.node_class)), ("Hash", node.hash)]
        if run is not None:
            link = el("a", printable(run.title)[:200], href=f"{self._base}/runs/{run.id}")
            facts.append(("Run", join(link, f": {_label(run_state)}")))
        if node.started_at is not None:
            facts.append(("Started", _when(node.started_at)))
        if node.duration_sec is not None:
            facts.append(("Took", _duration(node.duration_sec)))
        if node.directory:
            facts.append(("Directory", printable(node.directory)))
        return self._page(
            printable(node.name),
            el("p", el("a", "Store", href=f"{self._base}/store"), class_="trail"),
            el("h1", printable(node.name)),
            el("p", _badge(node.status)),
            el("p", printable(node.problem), class_="problem") if node.problem else None,
            el("dl", *(join(el("dt", name), el("dd", value)) for name, value in facts)),
            el("h2", "Configuration"),
            text_block(_cut(config))
            if config is not None
            else el("p", "Not recorded yet.", class_="quiet"),
            el("h2", "Depends on") if node.depends_on else None,
            el("ul", *(el("li", self._node_link(key)) for key in node.depends_on[:MAX_LISTED])),
            _left_out(len(node.depends_on), MAX_LISTED),
            el("h2", "Result") if node.result is not None else None,
            _result(node.result) if node.result is not None else None,
            el("h2", f"Attempts: {node.attempt_count}"),
            *(_attempt(one, node.logs.get(one.number)) for one in reversed(node.attempts)),
            _left_out(node.attempt_count, len(node.attempts)),
        )

    def store(self, summary: StoreSummary) -> str:
        """The store by class and state. Counts of a class that were cut off say so."""
        partial = set(summary.partial)
        states = [state for state in STATES if any(counts[state] for counts in summary.classes.values())]
        rows = [
            el(
                "tr",
                el("td", self._nodes_link(node_class, None, printable(node_class))),
                *(
                    el(
                        "td",
                        self._nodes_link(node_class, state, f"{counts[state]:,}") if counts[state] else "0",
                        class_="number",
                    )
                    for state in states
                ),
                el("td", "not all counted", class_="quiet") if node_class in partial else None,
            )
            for node_class, counts in sorted(summary.classes.items())
        ]
        total = sum(counts.total() for counts in summary.classes.values())
        return self._page(
            "Store",
            el("h1", "Store"),
            el("p", el("code", printable(summary.store)), class_="quiet") if summary.store else None,
            el("p", f"{total:,} nodes{', and more that were not counted in time' if partial else ''}"),
            _table(("Class", *states), rows) if rows else el("p", "It is empty.", class_="quiet"),
        )

    def nodes(self, page: StorePage, state: str | None) -> str:
        """Some nodes of one class."""
        query = {"class": page.node_class, "after": page.next_after or ""} | (
            {"state": state} if state else {}
        )
        return self._page(
            page.node_class,
            el("p", el("a", "Store", href=f"{self._base}/store"), class_="trail"),
            el("h1", printable(page.node_class)),
            el("p", f"in state {state}", class_="quiet") if state else None,
            _table(
                ("Node", "State"),
                [
                    el("tr", el("td", self._node_link(key)), el("td", _badge(status)))
                    for key, status in page.nodes
                ],
            ),
            el("p", "Looking took too long, so this page is not full.", class_="quiet")
            if page.is_cut
            else None,
            el("p", el("a", "Go on", href=f"{self._base}/store/nodes?{urlencode(query)}"))
            if page.next_after
            else None,
        )

    def error(self, status_code: int, message: str) -> str:
        """An error, with its status code."""
        return self._page(f"{status_code}", el("h1", f"{status_code}"), el("p", printable(message)))

    # ---- parts ----

    def _page(
        self,
        title: str,
        *content: Child,
        refresh: bool = False,
        live: Mapping[str, str | int] | None = None,
    ) -> str:
        static = f"{self._base}/static"
        head = join(
            el("meta", http_equiv="refresh", content="5") if refresh else None,
            el("link", rel="icon", href=f"{static}/icon.svg", type="image/svg+xml"),
            el("link", rel="stylesheet", href=f"{static}/style.css"),
            el("script", src=f"{static}/live.js", defer=True) if live else None,
        )
        links = el(
            "nav", el("a", "Runs", href=f"{self._base}/"), el("a", "Store", href=f"{self._base}/store")
        )
        main = el("main", *content, **{f"data_{name}": value for name, value in (live or {}).items()})
        return document(f"{printable(title)[:80]} · furu", head, el("body", el("header", links), main))

    def _runs(self, runs: Sequence[RunFacts]) -> Html:
        rows = [
            el(
                "tr",
                el("td", el("a", printable(run.title)[:200], href=f"{self._base}/runs/{run.id}")),
                el("td", _badge(run.state)),
                el("td", f"{_settled(run.counts):,}", class_="number"),
                el("td", _run_times(run)),
            )
            for run in runs
        ]
        return _table(("Run", "State", "Nodes", "Time"), rows)

    def _graph(self, graph: Graph, snapshot: RunSnapshot) -> list[Child]:
        """The graph drawn by node, or by class if there are many nodes; and a cell for each node."""
        classes, labels, states = graph.by_class(), graph.labels(), snapshot.states(graph)
        widest = max(Counter(node.level for node in graph.nodes).values(), default=0)
        if len(graph.nodes) <= _MAX_BOXES and widest <= _MAX_COLUMN:
            boxes = [
                self._node_box(node, labels[node.node_class], states[node.hash]) for node in graph.nodes
            ]
        else:
            boxes = [_class_box(cls, labels[cls.node_class]) for cls in classes[:_MAX_BOXES]]
        sections: list[Child] = []
        room = _MAX_CELLS
        for cls in classes:
            sections.append(self._cells(cls, labels[cls.node_class], states, room))
            room = max(room - len(cls.hashes), 0)
        more = f" of the first {len(graph.nodes):,}; there are more" if graph.is_cut else ""
        return [
            el("h2", "Graph"),
            el("div", draw(boxes), class_="scroll", tabindex=0) if len(classes) <= _MAX_BOXES else None,
            el("h2", f"Nodes: {len(graph.nodes):,}{more}"),
            *sections,
        ]

    def _node_box(self, node: GraphNode, label: str, state: str) -> DrawnNode:
        href = f"{self._base}/nodes/{node.hash}"
        return DrawnNode(node.hash, label, node.hash[:12], state, node.level, node.depends_on, href)

    def _cells(self, cls: ClassNode, label: str, states: Mapping[str, str], room: int) -> Html:
        cells = [
            el(
                "a",
                class_=f"cell {states[key]}",
                id=f"n{key}",
                href=f"{self._base}/nodes/{key}",
                title=f"{label} {key[:12]}",
            )
            for key in cls.hashes[:room]
        ]
        counts = Counter(states[key] for key in cls.hashes)
        text = ", ".join(f"{count:,} {_label(state)}" for state, count in sorted(counts.items()))
        needs = f"needs {printable(', '.join(cls.depends_on))}" if cls.depends_on else ""
        return el(
            "section",
            el("h3", printable(label), " ", el("span", text, class_="quiet counts")),
            el("p", needs, class_="quiet") if needs else None,
            el("div", *cells, class_="cells"),
            _left_out(len(cls.hashes), room),
            data_class=cls.node_class,
            data_total=len(cls.hashes),
            data_unneeded=counts[UNNEEDED],
        )

    def _running(self, node: NodeProgress) -> Html:
        return el("li", self._node_link(node.hash, node.name))

    def _failed(self, node: NodeProgress) -> Html:
        return el("li", self._node_link(node.hash, node.name), el("span", printable(node.error)))

    def _node_link(self, key: str, name: str = "") -> Html:
        shown = f"{printable(name)} {key[:12]}" if name else key
        return el("a", shown, href=f"{self._base}/nodes/{key}", class_="hash")

    def _nodes_link(self, node_class: str, state: str | None, shown: str) -> Html:
        query = {"class": node_class} | ({"state": state} if state else {})
        return el("a", shown, href=f"{self._base}/store/nodes?{urlencode(query)}")


def _class_box(cls: ClassNode, label: str) -> DrawnNode:
    detail = _nodes(len(cls.hashes))
    return DrawnNode(cls.node_class, label, detail, "class", cls.level, cls.depends_on)


def _attempt(attempt: AttemptInfo, log: LogText | None) -> Html:
    took = f"took {_duration(attempt.duration_sec)}" if attempt.duration_sec is not None else ""
    began = _when(attempt.started_at) if attempt.started_at is not None else ""
    facts = " · ".join(part for part in (began, took, printable(attempt.owner)) if part)
    return el(
        "section",
        el("h3", f"Attempt {attempt.number} ", _badge(attempt.state)),
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


def _label(state: str) -> str:
    return "not needed" if state == UNNEEDED else state


def _badge(state: str) -> Html:
    return el("span", state, class_=f"badge {state.lower()}")


def _counts(counts: Mapping[Any, int]) -> Html:
    """Every count that there may be, so that the live part only changes numbers."""
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


def _nodes(count: int) -> str:
    return f"{count:,} node" if count == 1 else f"{count:,} nodes"


def _settled(counts: Mapping[Any, int]) -> int:
    return sum(counts.get(state, 0) for state in ("done", "reused", "failed"))


def _table(heads: Sequence[str], rows: Sequence[Html]) -> Html:
    head = el("thead", el("tr", *(el("th", name) for name in heads)))
    return el("div", el("table", head, el("tbody", *rows)), class_="scroll", tabindex=0)


def _parameters(job: Job) -> str:
    return ", ".join(f"{name}: {kind}" for name, kind in job.parameters().items()) or "none"


def _left_out(count: int, shown: int) -> Html | None:
    return el("p", f"and {count - shown:,} more", class_="quiet") if count > shown else None


def _cut(text: str) -> str:
    more = len(text) - _MAX_SHOWN_CHARS
    return f"{text[:_MAX_SHOWN_CHARS]}\n… and {more:,} characters more" if more > 0 else text


def _result(result: bytes) -> Html:
    """A result's beginning: it may have hundreds of megabytes."""
    shown = result[:_MAX_SHOWN_CHARS].decode("utf-8", "replace")
    more = len(result) - _MAX_SHOWN_CHARS
    return text_block(f"{shown}\n… and {more:,} bytes more" if more > 0 else shown)


def _run_times(run: RunFacts) -> str:
    if run.started_at is None:
        return f"since {_when(run.created_at)}"
    if run.ended_at is None:
        return f"since {_when(run.started_at)}"
    return f"{_when(run.started_at)}, took {_duration(run.ended_at - run.started_at)}"


def _when(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
    except (ValueError, OverflowError, OSError):  # a record may hold any number
        return "at an unknown time"


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:,.1f} s"
