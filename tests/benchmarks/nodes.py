"""The nodes of the benchmarks: bodies that do next to nothing, or sleep, and nodes made from edges."""

from __future__ import annotations

import dataclasses
import time

from furu import Furu
from tests.benchmarks.graphs import Edges

# Keeps the numbers of a ladder, which double at each diamond, small.
MODULUS = 1_000_003

# When each sleeping node began and ended, by number.
began: dict[int, float] = {}
ended: dict[int, float] = {}


class Small(Furu[int]):
    """Reads what it depends on and returns a number."""

    number: int
    below: tuple[Small, ...] = ()

    def _create(self) -> int:
        return (1 + sum(node.get() for node in self.below)) % MODULUS


class Sleeping(Furu[int]):
    """Sleeps, and notes when."""

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
    """What a `Small` would be if it were only an object."""

    number: int
    below: tuple[Plain, ...] = ()


def make_small(edges: Edges) -> list[Small]:
    nodes: list[Small] = []
    for number, below in enumerate(edges):
        nodes.append(Small(number=number, below=tuple([nodes[n] for n in below])))
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
