"""The nodes of a storm. A seed determines them, and their values and files can be checked.

Sturdy nodes are removed by furu, or by hand with one rename. Only fragile nodes are damaged, and removed
file by file. No sturdy node depends on a fragile node.
"""

from __future__ import annotations

import os
import random
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio

from furu import Furu

MODULUS = 1_000_003
SEED = int(os.environ.get("FURU_STORM_SEED", "1"))
PARTS = ("first", "second", "third")


class TornError(Exception):
    """The files of an artifact come from two attempts, or from another node."""


def note(*words: object) -> None:
    """Append a line to the log of the storm with a single write."""
    path = os.environ.get("FURU_STORM_LOG")
    if path:
        line = " ".join(map(str, [time.monotonic_ns(), os.getpid(), *words])).replace("\n", " ")
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode() + b"\n")
        finally:
            os.close(descriptor)


@contextmanager
def noted(node: Furu[Any]) -> Iterator[None]:
    """Log the start and the end of a computation."""
    note("start", node.furu_hash)
    try:
        yield
    finally:
        note("end", node.furu_hash)


def write_parts(node: Any) -> None:
    """Write files that name the node and the attempt, with pauses in between."""
    nonce = secrets.token_hex(8)
    directory = node.furu_dir
    for part in PARTS:
        (directory / part).write_text(f"{node.furu_hash} {nonce} {part}")
        time.sleep(random.random() * 0.004)


def check_parts(node: Any) -> None:
    """Raise an error if a part is missing, belongs to another node, or is from another attempt."""
    directory = node.furu_dir  # read once: the node may be removed and computed again meanwhile
    texts = [(directory / part).read_text().split() for part in PARTS]
    if [text[:1] + text[2:] for text in texts] != [[node.furu_hash, part] for part in PARTS]:
        raise TornError(f"{node.furu_hash}: {texts}")
    if len({text[1] for text in texts}) != 1:
        raise TornError(f"{node.furu_hash}: files of two attempts: {texts}")


class Plain(Furu[int]):
    number: int
    fragile: bool = False
    below: tuple[Furu[int], ...] = ()

    def _create(self) -> int:
        with noted(self):
            time.sleep(random.random() * 0.003)
            return total_of(self)


class Files(Furu[int]):
    number: int
    fragile: bool = False
    below: tuple[Furu[int], ...] = ()

    def _create(self) -> int:
        with noted(self):
            write_parts(self)
            return total_of(self)

    def _load(self) -> int:
        check_parts(self)
        return value_of(self)


class Pickled(Furu[int]):
    number: int
    fragile: bool = False
    below: tuple[Furu[int], ...] = ()
    _codec = "pickle"

    def _create(self) -> int:
        with noted(self):
            self.logger.info("computing")
            return total_of(self)


class Async(Furu[int]):
    number: int
    fragile: bool = False
    below: tuple[Furu[int], ...] = ()

    async def _create(self) -> int:
        with noted(self):
            await anyio.sleep(random.random() * 0.003)
            total = self.number
            for node in self.below:
                total += await node.aget()
            return total % MODULUS


def total_of(node: Any) -> int:
    """Add up a node's number and the values of its dependencies, inside its `_create`."""
    total: int = node.number + sum(one.get() for one in node.below)
    return total % MODULUS


def value_of(node: Any) -> int:
    """Compute a node's value without furu."""
    total: int = node.number + sum(value_of(one) for one in node.below)
    return total % MODULUS


def draw() -> list[Furu[int]]:
    """Return all nodes of the storm, dependencies first."""
    chance = random.Random(SEED)
    nodes: list[Furu[int]] = []
    for number in range(60):
        fragile = number % 4 == 3
        allowed = [node for node in nodes[-25:] if fragile or not node.fragile]  # type: ignore[attr-defined]
        below = tuple(chance.sample(allowed, min(len(allowed), chance.choice([0, 0, 1, 2, 3]))))
        kind: Any = chance.choice([Plain, Files, Files, Pickled, Async])
        nodes.append(kind(number=number, fragile=fragile, below=below))
    return nodes


NODES = draw()


def kept() -> list[Furu[int]]:
    """Return the roots that `furu gc --keep` keeps: even and odd nodes, alternating every second."""
    return [node for node in NODES if node.number % 2 == int(time.time()) % 2]  # type: ignore[attr-defined]
