"""The shapes of the measured graphs, as edges between numbers, for every engine."""

from __future__ import annotations

import random
from collections.abc import Callable

# For each node, the earlier nodes that it depends on. Nodes can be computed in this order.
Edges = list[tuple[int, ...]]

_LAYER_WIDTH = 100


def flat(size: int) -> Edges:
    """Independent nodes, and one node that depends on all of them."""
    return [*[()] * (size - 1), tuple(range(size - 1))]


def chain(size: int) -> Edges:
    """Each node depends on the node before."""
    return [(), *[(number - 1,) for number in range(1, size)]]


def layered(size: int, width: int = _LAYER_WIDTH) -> Edges:
    """Layers of nodes. Each node depends on three random nodes of the layer before."""
    chance = random.Random(size)
    return [
        tuple(sorted(chance.sample(range(start - width, start), 3)))
        if (start := n // width * width)
        else ()
        for n in range(size)
    ]


def ladder(size: int) -> Edges:
    """A stack of diamonds: one node, two that depend on it, one that depends on both, two on it, ..."""
    shapes = [(1, 2), (1,), (2,)]  # how far back the dependencies are, for n modulo 3
    return [tuple(n - back for back in shapes[n % 3] if back <= n) if n else () for n in range(size)]


SHAPES: dict[str, Callable[[int], Edges]] = {
    "flat": flat,
    "chain": chain,
    "layered": layered,
    "ladder": ladder,
}


def sinks(edges: Edges) -> list[int]:
    """Return the nodes that no node depends on."""
    below = {number for numbers in edges for number in numbers}
    return [number for number in range(len(edges)) if number not in below]
