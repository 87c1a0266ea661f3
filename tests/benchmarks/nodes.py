"""The nodes of the benchmarks, which do almost nothing or sleep, and functions to make them from edges."""

from __future__ import annotations

import dataclasses
import time

from furu import Furu
from tests.benchmarks.graphs import Edges

# Keeps the results of a ladder small: they double at each diamond.
MODULUS = 1_000_003

# When each sleeping node started and finished, by number.
began: dict[int, float] = {}
ended: dict[int, float] = {}


class Small(Furu[int]):
    """Loads its dependencies and returns a number."""

    number: int
    below: tuple[Small, ...] = ()

    def _create(self) -> int:
        return (1 + sum(node.get() for node in self.below)) % MODULUS


class Sleeping(Furu[int]):
    """Sleeps, and records when it started and finished."""

    number: int
    seconds: float
    below: tuple[Sleeping, ...] = ()

    def _create(self) -> int:
        began[self.number] = time.perf_counter()
        time.sleep(self.seconds)
        ended[self.number] = time.perf_counter()
        return self.number


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plain:
    """A plain dataclass with the fields of `Small`."""

    number: int
    below: tuple[Plain, ...] = ()


def make_small(edges: Edges, node_class: type[Small] = Small) -> list[Small]:
    nodes: list[Small] = []
    for number, below in enumerate(edges):
        nodes.append(node_class(number=number, below=tuple([nodes[n] for n in below])))
    return nodes


def make_plain(edges: Edges) -> list[Plain]:
    nodes: list[Plain] = []
    for number, below in enumerate(edges):
        nodes.append(Plain(number=number, below=tuple([nodes[n] for n in below])))
    return nodes


def make_sleeping(edges: Edges, seconds: float) -> list[Sleeping]:
    nodes: list[Sleeping] = []
    for number, below in enumerate(edges):
        nodes.append(Sleeping(number=number, seconds=seconds, below=tuple([nodes[n] for n in below])))
    return nodes
