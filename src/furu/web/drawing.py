"""Draws a graph as boxes and lines, in SVG. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from furu.drawing import DrawnNode, edges, layout
from furu.web.html import Html, el, join

__all__ = ["draw"]

_WIDTH, _HEIGHT = 168, 38
# The distances between columns and between rows. Layers are further apart, to leave room for the lines.
_STEP_X, _STEP_Y, _LAYER_GAP, _MARGIN = 180, 50, 0.2, 6
_MAX_LABEL_CHARS = 22

_Place = tuple[int, int]


def draw(nodes: Sequence[DrawnNode]) -> Html:
    """Return a drawing of `nodes`. Lines to nodes that are not among `nodes` are left out."""
    places = _places(nodes)
    width = max((x for x, _ in places.values()), default=0) + _WIDTH + _MARGIN
    height = max((y for _, y in places.values()), default=0) + _HEIGHT + _MARGIN
    return el(
        "svg",
        *(_line(places[below], places[above]) for below, above in edges(nodes)),
        *(_box(node, *places[node.key]) for node in nodes),
        class_="graph",
        width=width,
        height=height,
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_label=f"graph of {len(nodes)}",
    )


def _places(nodes: Sequence[DrawnNode]) -> dict[str, _Place]:
    """Return the upper left corner of each box."""
    places = layout(nodes, gap=_LAYER_GAP)
    top = min((row for _, row in places.values()), default=0.0)
    return {
        key: (_MARGIN + round(column * _STEP_X), _MARGIN + round((row - top) * _STEP_Y))
        for key, (column, row) in places.items()
    }


def _line(start: _Place, end: _Place) -> Html:
    x1, y1 = start[0] + _WIDTH, start[1] + _HEIGHT // 2
    x2, y2 = end[0], end[1] + _HEIGHT // 2
    bend = (x2 - x1) // 2
    return el("path", d=f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}")


def _box(node: DrawnNode, x: int, y: int) -> Html:
    inside = join(
        el("title", f"{node.name} {node.detail}"),
        el("rect", x=x, y=y, width=_WIDTH, height=_HEIGHT, rx=6),
        el("text", _shortened(node.name), x=x + 10, y=y + 16),
        el("text", _shortened(node.detail), class_="detail", x=x + 10, y=y + 31),
    )
    group = el("g", inside, class_=f"box {node.state}", data_box=node.key)
    return el("a", group, href=node.href) if node.href else group


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_LABEL_CHARS else f"{text[: _MAX_LABEL_CHARS - 1]}…"
