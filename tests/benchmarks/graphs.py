"""The shapes of graph that are measured, as edges between numbers. Knows no engine."""

from __future__ import annotations

import random
from collections.abc import Callable

# For each node, in an order in which they can be computed, the earlier nodes that it depends on.
Edges = list[tuple[int, ...]]

_LAYER_WIDTH = 100


def flat(size: int) -> Edges:
    """Nodes that have nothing to do with each other, and one that joins them all."""
    return [*[()] * (size - 1), tuple(range(size - 1))]


def chain(size: int) -> Edges:
    """Each node on the one before."""
    return [(), *[(number - 1,) for number in range(1, size)]]


def layered(size: int, width: int = _LAYER_WIDTH) -> Edges:
    """Layers; each node on three random nodes of the layer before."""
    chance = random.Random(size)
    return [
        tuple(sorted(chance.sample(range(start - width, start), 3)))
        if (start := n // width * width)
        else ()
        for n in range(size)
    ]


def ladder(size: int) -> Edges:
    """Diamonds on top of each other: one node, two on it, one on both, two on it, ..."""
    shapes = [(1, 2), (1,), (2,)]  # how far back each third node reaches
    return [tuple(n - back for back in shapes[n % 3] if back <= n) if n else () for n in range(size)]


SHAPES: dict[str, Callable[[int], Edges]] = {
    "flat": flat,
    "chain": chain,
    "layered": layered,
    "ladder": ladder,
}


def sinks(edges: Edges) -> list[int]:
    """Return the nodes that nothing depends on."""
    below = {number for numbers in edges for number in numbers}
    return [number for number in range(len(edges)) if number not in below]
