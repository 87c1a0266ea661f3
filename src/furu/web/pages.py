"""The pages, as HTML created from plain values. Pure: does not read the disk, requests or live runs.

Links begin with the path at which the application is mounted, and name nodes by their hashes. Everything
that a node, a log or an exception contains is shown as text.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import urlencode

import furu.web.parts as parts
from furu._common.text import printable
from furu.codecs.typed import described
from furu.drawing import DrawnNode
from furu.graph import UNNEEDED, ClassNode, Graph, GraphNode
from furu.service.progress import NodeProgress
from furu.web.drawing import draw
from furu.web.html import Child, Html, document, el, join, text_block
from furu.web.jobs import Job
from furu.web.reading import (
    MAX_LISTED,
    STATES,
    NodeFacts,
    RunFacts,
    RunSnapshot,
    StorePage,
    StoreSummary,
    advance_text,
)

__all__ = ["Pages"]

# Larger drawings are hard to read, and more cells make a page slow.
_MAX_BOXES = 60
_MAX_COLUMN = 12
_MAX_CELLS = 5_000


class Pages:
    """Creates the pages of an application that is mounted at `base`, a path without a trailing slash."""

    def __init__(self, base: str) -> None:
        self._base = base

    def index(self, live: Sequence[RunFacts], recent: Sequence[RunFacts], jobs: Iterable[Job]) -> str:
        """Return the page with the runs of this process and the jobs that clients may start."""
        described = [
            el(
                "tr",
                el("td", el("code", job.name)),
                el("td", _parameters(job)),
                el("td", job.on_disconnect),
            )
            for job in jobs
        ]
        return self._page(
            "Runs",
            el("h1", "Runs"),
            el("h2", f"Live: {len(live)}"),
            self._runs(live) if live else el("p", "No run is queued or running.", class_="quiet"),
            el("h2", f"Recent: {len(recent)}"),
            self._runs(recent) if recent else el("p", "No run has ended yet.", class_="quiet"),
            el("h2", "Jobs") if described else None,
            parts.table(("Job", "Arguments", "When all clients have left"), described)
            if described
            else None,
            refresh=bool(live),
        )

    def run(self, snapshot: RunSnapshot, graph: Graph | None, problem: str = "") -> str:
        """Return the page of a run, with its progress, graph and nodes at the moment of the snapshot.

        If the run is live, the page's script follows the run from that moment on.
        """
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
                el("span", parts.run_times(run), class_="quiet"),
            ),
            el("p", id="connection", class_="problem", role="status", hidden=True) if is_live else None,
            el(
                "progress",
                id="progress",
                max=sum(run.counts.values()) or 1,
                value=parts.settled(run.counts),
            ),
            parts.count_list(run.counts),
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
        """Return the page of a node: configuration, dependencies, result, and attempts with their logs.

        If the store does not have the node's configuration yet, `run` is a run that has the node, and
        `run_state` is the state of the node in that run.
        """
        info = node.info
        config = json.dumps(info.config, indent=2, ensure_ascii=False) if info.config is not None else None
        attempts = [
            parts.attempt_section(attempt, node.logs.get(attempt.number)) for attempt in info.attempts
        ]
        return self._page(
            printable(node.name),
            el("p", el("a", "Store", href=f"{self._base}/store"), class_="trail"),
            el("h1", printable(node.name)),
            el("p", parts.badge(str(info.status))),
            el("p", printable(info.problem), class_="problem") if info.problem else None,
            self._node_facts(node, run, run_state),
            el("h2", "Configuration"),
            text_block(parts.cut(config))
            if config is not None
            else el("p", "Not recorded yet.", class_="quiet"),
            el("h2", "Depends on") if node.depends_on else None,
            el("ul", *(el("li", self._node_link(key)) for key in node.depends_on[:MAX_LISTED])),
            parts.left_out(len(node.depends_on), MAX_LISTED),
            el("h2", "Result") if info.result is not None else None,
            parts.result_block(described(info.codec, info.result)) if info.result is not None else None,
            el("h2", f"Attempts: {node.attempt_count}"),
            *reversed(attempts),
            parts.left_out(node.attempt_count, len(attempts)),
        )

    def _node_facts(self, node: NodeFacts, run: RunFacts | None, run_state: str) -> Html:
        info = node.info
        facts: list[tuple[str, Child]] = [("Class", printable(info.node_class)), ("Hash", node.hash)]
        if run is not None:
            link = el("a", printable(run.title)[:200], href=f"{self._base}/runs/{run.id}")
            facts.append(("Run", join(link, f": {parts.label_of(run_state)}")))
        if info.started_at is not None:
            facts.append(("Started", parts.when(info.started_at)))
        if info.duration_sec is not None:
            facts.append(("Took", parts.duration(info.duration_sec)))
        if info.made_by is not None:
            facts.append(("Made by", str(info.made_by)))
            facts.append(("Source", printable(info.made_by.source)))
        if node.path:
            facts.append(("Path", printable(node.path)))
        return el("dl", *(join(el("dt", name), el("dd", value)) for name, value in facts))

    def store(self, summary: StoreSummary) -> str:
        """Return the page that counts the nodes of the store by class and state."""
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
            parts.table(("Class", *states), rows)
            if rows
            else el("p", "The store is empty.", class_="quiet"),
        )

    def nodes(self, page: StorePage, state: str | None) -> str:
        """Return the page that lists some nodes of a class."""
        query = {"class": page.node_class, "after": page.next_after or ""} | (
            {"state": state} if state else {}
        )
        return self._page(
            page.node_class,
            el("p", el("a", "Store", href=f"{self._base}/store"), class_="trail"),
            el("h1", printable(page.node_class)),
            el("p", f"in state {state}", class_="quiet") if state else None,
            parts.table(
                ("Node", "State"),
                [
                    el("tr", el("td", self._node_link(key)), el("td", parts.badge(status)))
                    for key, status in page.nodes
                ],
            ),
            el("p", "Reading the store took too long, so this page is not full.", class_="quiet")
            if page.is_cut
            else None,
            el("p", el("a", "Next page", href=f"{self._base}/store/nodes?{urlencode(query)}"))
            if page.next_after
            else None,
        )

    def error(self, status_code: int, message: str) -> str:
        """Return the page for an error, with its status code."""
        return self._page(f"{status_code}", el("h1", f"{status_code}"), el("p", printable(message)))

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
                el("td", parts.badge(run.state)),
                el("td", f"{parts.settled(run.counts):,}", class_="number"),
                el("td", parts.run_times(run)),
            )
            for run in runs
        ]
        return parts.table(("Run", "State", "Nodes", "Time"), rows)

    def _graph(self, graph: Graph, snapshot: RunSnapshot) -> list[Child]:
        """Return a drawing of the graph, and a cell for each node. Each box of the drawing is a node, or a
        class if there are many nodes."""
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
        text = ", ".join(f"{count:,} {parts.label_of(state)}" for state, count in sorted(counts.items()))
        needs = f"needs {printable(', '.join(cls.depends_on))}" if cls.depends_on else ""
        return el(
            "section",
            el("h3", printable(label), " ", el("span", text, class_="quiet counts")),
            el("p", needs, class_="quiet") if needs else None,
            el("div", *cells, class_="cells"),
            parts.left_out(len(cls.hashes), room),
            data_class=cls.node_class,
            data_total=len(cls.hashes),
            data_unneeded=counts[UNNEEDED],
        )

    def _running(self, node: NodeProgress) -> Html:
        advance = advance_text(node)
        return el(
            "li",
            self._node_link(node.hash, node.name),
            el("span", advance, class_="quiet") if advance else None,
        )

    def _failed(self, node: NodeProgress) -> Html:
        return el("li", self._node_link(node.hash, node.name), el("span", printable(node.error)))

    def _node_link(self, key: str, name: str = "") -> Html:
        shown = f"{printable(name)} {key[:12]}" if name else key
        return el("a", shown, href=f"{self._base}/nodes/{key}", class_="hash")

    def _nodes_link(self, node_class: str, state: str | None, shown: str) -> Html:
        query = {"class": node_class} | ({"state": state} if state else {})
        return el("a", shown, href=f"{self._base}/store/nodes?{urlencode(query)}")


def _class_box(cls: ClassNode, label: str) -> DrawnNode:
    detail = parts.count_of_nodes(len(cls.hashes))
    return DrawnNode(cls.node_class, label, detail, "class", cls.level, cls.depends_on)


def _parameters(job: Job) -> str:
    return ", ".join(f"{name}: {kind}" for name, kind in job.parameters().items()) or "none"
