"""A graph as boxes in columns with lines between them, as SVG. Pure: places and writes, reads nothing.

Every box stands to the right of all that it depends on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from furu.web.html import Html, el, join

_WIDTH, _HEIGHT = 168, 38
_GAP_X, _GAP_Y, _MARGIN = 44, 12, 6
_MAX_LABEL_CHARS = 22


@dataclass(frozen=True, slots=True)
class Box:
    """Something to draw. `state` becomes its class, `detail` the line under its name."""

    key: str
    name: str
    detail: str
    level: int
    depends_on: tuple[str, ...]
    state: str
    href: str | None = None


def draw(boxes: Sequence[Box]) -> Html:
    """Return the drawing. Lines to nodes without a box are left out."""
    places = _places(boxes)
    lines = [
        _line(places[below], places[box.key])
        for box in boxes
        for below in box.depends_on
        if below in places
    ]
    width = max((x for x, _ in places.values()), default=0) + _WIDTH + _MARGIN
    height = max((y for _, y in places.values()), default=0) + _HEIGHT + _MARGIN
    return el(
        "svg",
        *lines,
        *(_box(box, *places[box.key]) for box in boxes),
        class_="graph",
        width=width,
        height=height,
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_label=f"graph of {len(boxes)}",
    )


def _places(boxes: Sequence[Box]) -> dict[str, tuple[int, int]]:
    columns: dict[int, list[Box]] = defaultdict(list)
    for box in boxes:
        columns[box.level].append(box)
    tallest = max((len(column) for column in columns.values()), default=0)
    places = {}
    for number, level in enumerate(sorted(columns)):
        column = columns[level]
        top = _MARGIN + (tallest - len(column)) * (_HEIGHT + _GAP_Y) // 2
        for row, box in enumerate(column):
            places[box.key] = (_MARGIN + number * (_WIDTH + _GAP_X), top + row * (_HEIGHT + _GAP_Y))
    return places


def _line(start: tuple[int, int], end: tuple[int, int]) -> Html:
    x1, y1 = start[0] + _WIDTH, start[1] + _HEIGHT // 2
    x2, y2 = end[0], end[1] + _HEIGHT // 2
    bend = (x2 - x1) // 2
    return el("path", d=f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}")


def _box(box: Box, x: int, y: int) -> Html:
    inside = join(
        el("title", f"{box.name} {box.detail}"),
        el("rect", x=x, y=y, width=_WIDTH, height=_HEIGHT, rx=6),
        el("text", _shortened(box.name), x=x + 10, y=y + 16),
        el("text", _shortened(box.detail), class_="detail", x=x + 10, y=y + 31),
    )
    group = el("g", inside, class_=f"box {box.state}", data_box=box.key)
    return el("a", group, href=box.href) if box.href else group


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_LABEL_CHARS else f"{text[: _MAX_LABEL_CHARS - 1]}…"
