"""A graph as text that other programs draw, or as a page that draws itself. Reads no store.

Every name in it is written as text: nothing in a graph becomes markup, a statement or a script.
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_COLOURS = {"DONE": "#2da44e", "FAILED": "#cf222e", "IN_PROGRESS": "#bf8700", "TODO": "#8c959f"}
# A layer of more nodes than this, and than makes the page about 1.6 times as wide as high, is wrapped.
_MIN_ROWS = 12
_SWEEPS = 4


@dataclass(frozen=True, slots=True)
class DrawnNode:
    """A node as it is drawn. `text` is all of it, `name` its class."""

    hash: str
    name: str
    text: str
    status: str
    depends_on: tuple[str, ...]


def to_mermaid(nodes: Sequence[DrawnNode]) -> str:
    """Return a Mermaid flowchart, from what is depended on to what depends on it."""
    names = _numbered(nodes)
    lines = ["flowchart LR"]
    for node in nodes:
        label = f"{node.name} {node.hash[:8]}".replace("&", "&amp;").replace('"', "&quot;")
        label = label.replace("<", "&lt;").replace(">", "&gt;")
        lines.append(f'  {names[node.hash]}["{label}"]:::{node.status.lower()}')
    lines += [f"  {names[below]} --> {names[above]}" for below, above in _edges(nodes)]
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
        label, tip = (_quoted(text) for text in (f"{node.name} {node.hash[:8]}", node.text))
        colour = _COLOURS[node.status]
        lines.append(f'  {names[node.hash]} [label={label}, tooltip={tip}, fillcolor="{colour}"];')
    lines += [f"  {names[below]} -> {names[above]};" for below, above in _edges(nodes)]
    return "\n".join([*lines, "}"]) + "\n"


def to_html(nodes: Sequence[DrawnNode]) -> str:
    """Return a page that needs nothing else: it can be moved and zoomed, searched and followed."""
    places = layout(nodes)
    index = {node.hash: number for number, node in enumerate(nodes)}
    drawn = {
        "nodes": [[node.hash, node.name, node.text, node.status, *places[node.hash]] for node in nodes],
        "edges": [[index[below], index[above]] for below, above in _edges(nodes)],
        "colours": _COLOURS,
    }
    # Inside a script element only `<` could end it, or begin a comment.
    data = json.dumps(drawn, separators=(",", ":")).replace("<", "\\u003c")
    page = importlib.resources.files("furu").joinpath("drawing.html").read_text(encoding="utf-8")
    return page.replace("{{data}}", data)


def layout(nodes: Sequence[DrawnNode]) -> dict[str, tuple[float, float]]:
    """Return a place for each node: layers from left to right, each node right of all it depends on.

    Within a layer nodes stand by the mean place of what they depend on (Sugiyama's barycentres), and a
    layer that is much wider than others is wrapped into columns.
    """
    layers = _layers(nodes)
    dependents: dict[str, list[str]] = {node.hash: [] for node in nodes}
    for below, above in _edges(nodes):
        dependents[below].append(above)
    depends_on = {node.hash: [key for key in node.depends_on if key in dependents] for node in nodes}
    for sweep in range(_SWEEPS):
        neighbours, order = (depends_on, layers) if sweep % 2 == 0 else (dependents, layers[::-1])
        place = {key: number / len(layer) for layer in layers for number, key in enumerate(layer)}
        for layer in order:
            layer.sort(key=lambda key: _mean([place[one] for one in neighbours[key]], place[key]))
            place.update({key: number / len(layer) for number, key in enumerate(layer)})
    rows = max(_MIN_ROWS, round((2.4 * len(nodes)) ** 0.5))
    places: dict[str, tuple[float, float]] = {}
    x = 0.0
    for layer in layers:
        columns = -(-len(layer) // rows)
        height = -(-len(layer) // columns)
        for number, key in enumerate(layer):
            column, row = divmod(number, height)
            places[key] = (x + column, row - (height - 1) / 2)
        x += columns + 0.6
    return places


def _layers(nodes: Sequence[DrawnNode]) -> list[list[str]]:
    """Put each node one layer above the highest that it depends on; nodes come after those."""
    depth: dict[str, int] = {}
    for node in nodes:
        depth[node.hash] = 1 + max((depth[key] for key in node.depends_on if key in depth), default=-1)
    layers: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for node in sorted(nodes, key=lambda one: one.name):
        layers[depth[node.hash]].append(node.hash)
    return layers


def _mean(places: Sequence[float], otherwise: float) -> float:
    return sum(places) / len(places) if places else otherwise


def _edges(nodes: Sequence[DrawnNode]) -> Iterable[tuple[str, str]]:
    known = {node.hash for node in nodes}
    return [(below, node.hash) for node in nodes for below in node.depends_on if below in known]


def _numbered(nodes: Sequence[DrawnNode]) -> dict[str, str]:
    return {node.hash: f"n{number}" for number, node in enumerate(nodes)}


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
