"""Drawings of graphs as Mermaid, as DOT, and as an HTML page with a script.

Names and values are always escaped, so text from a graph never becomes markup, a DOT statement or a script.
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["DrawnNode", "edges", "layout", "to_dot", "to_html", "to_mermaid"]

_COLOURS = {"DONE": "#2da44e", "FAILED": "#cf222e", "IN_PROGRESS": "#bf8700", "TODO": "#8c959f"}
# Layers are wrapped so that a drawing is about 1.6 times as wide as high. A column may always have this
# many rows.
_MIN_ROWS = 12
_SWEEPS = 4


@dataclass(frozen=True, slots=True)
class DrawnNode:
    """A box for a node, or for all nodes of a class. `key` is the node's hash, or the class's full name.

    `name` is the class's label; `detail` is a longer description. A box is drawn to the right of all
    boxes with a lower `level`. In web pages the box links to `href`.
    """

    key: str
    name: str
    detail: str
    state: str
    level: int
    depends_on: tuple[str, ...]
    href: str | None = None


def to_mermaid(nodes: Sequence[DrawnNode]) -> str:
    """Return a Mermaid flowchart. Its arrows lead from dependencies to their dependents."""
    names = _numbered(nodes)
    lines = ["flowchart LR"]
    for node in nodes:
        label = f"{node.name} {node.key[:8]}".replace("&", "&amp;").replace('"', "&quot;")
        label = label.replace("<", "&lt;").replace(">", "&gt;")
        lines.append(f'  {names[node.key]}["{label}"]:::{node.state.lower()}')
    lines += [f"  {names[below]} --> {names[above]}" for below, above in edges(nodes)]
    lines += [
        f"  classDef {status.lower()} fill:{colour},color:#fff,stroke:none"
        for status, colour in _COLOURS.items()
    ]
    return "\n".join(lines) + "\n"


def to_dot(nodes: Sequence[DrawnNode]) -> str:
    """Return a graph in the DOT language of Graphviz."""
    names = _numbered(nodes)
    lines = ["digraph furu {", "  rankdir=LR;", '  node [shape=box, style=filled, fontcolor="white"];']
    for node in nodes:
        label, tip = (_quoted(text) for text in (f"{node.name} {node.key[:8]}", node.detail))
        colour = _COLOURS[node.state]
        lines.append(f'  {names[node.key]} [label={label}, tooltip={tip}, fillcolor="{colour}"];')
    lines += [f"  {names[below]} -> {names[above]};" for below, above in edges(nodes)]
    return "\n".join([*lines, "}"]) + "\n"


def to_html(nodes: Sequence[DrawnNode]) -> str:
    """Return a self-contained HTML page in which people can move, zoom and search the graph."""
    places = layout(nodes)
    index = {node.key: number for number, node in enumerate(nodes)}
    drawn = {
        "nodes": [[node.key, node.name, node.detail, node.state, *places[node.key]] for node in nodes],
        "edges": [[index[below], index[above]] for below, above in edges(nodes)],
        "colours": _COLOURS,
    }
    # Inside a script element, only `<` can end the element or begin a comment.
    data = json.dumps(drawn, separators=(",", ":")).replace("<", "\\u003c")
    page = importlib.resources.files("furu").joinpath("drawing.html").read_text(encoding="utf-8")
    return page.replace("{{data}}", data)


def layout(nodes: Sequence[DrawnNode], *, gap: float = 0.6) -> dict[str, tuple[float, float]]:
    """Return the column and row of each node.

    Layers run from left to right, `gap` columns apart; row 0 is the middle. The nodes of a layer are sorted
    by the mean position of their neighbours (Sugiyama's barycentres). A layer with too many nodes for one
    column is wrapped into several columns.
    """
    layers = _layers(nodes)
    depends_on: dict[str, list[str]] = {node.key: [] for node in nodes}
    dependents: dict[str, list[str]] = {node.key: [] for node in nodes}
    for below, above in edges(nodes):
        depends_on[above].append(below)
        dependents[below].append(above)
    for sweep in range(_SWEEPS):
        neighbours, order = (depends_on, layers) if sweep % 2 == 0 else (dependents, layers[::-1])
        place = {key: row / len(layer) for layer in layers for row, key in enumerate(layer)}
        for layer in order:
            layer.sort(key=lambda key: _mean([place[other] for other in neighbours[key]], place[key]))
            place.update({key: row / len(layer) for row, key in enumerate(layer)})
    rows = max(_MIN_ROWS, round((2.4 * len(nodes)) ** 0.5))
    places: dict[str, tuple[float, float]] = {}
    x = 0.0
    for layer in layers:
        columns = -(-len(layer) // rows)
        height = -(-len(layer) // columns)
        for number, key in enumerate(layer):
            column, row = divmod(number, height)
            places[key] = (x + column, row - (height - 1) / 2)
        x += columns + gap
    return places


def edges(nodes: Sequence[DrawnNode]) -> list[tuple[str, str]]:
    """Return the edges between `nodes` as pairs of a dependency and its dependent."""
    known = {node.key for node in nodes}
    return [(below, node.key) for node in nodes for below in node.depends_on if below in known]


def _layers(nodes: Sequence[DrawnNode]) -> list[list[str]]:
    layers: dict[int, list[str]] = {level: [] for level in sorted({node.level for node in nodes})}
    for node in sorted(nodes, key=lambda node: node.name):
        layers[node.level].append(node.key)
    return list(layers.values())


def _mean(places: Sequence[float], otherwise: float) -> float:
    return sum(places) / len(places) if places else otherwise


def _numbered(nodes: Sequence[DrawnNode]) -> dict[str, str]:
    return {node.key: f"n{number}" for number, node in enumerate(nodes)}


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
