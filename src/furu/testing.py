"""For tests of nodes: small graphs, and a check that nodes declare what they get. Needs no test framework;
`furu.pytest_plugin` holds the fixtures."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from furu.context import Cancellation
from furu.execution.workers.base import Job, Lane
from furu.execution.workers.call import call
from furu.graph import walk
from furu.node.base import Node, artifact_of, is_async
from furu.node.furu import Furu
from furu.node.load import exists
from furu.retry import INSTANT
from furu.settings import use_settings
from furu.store.layout import OWNERS

__all__ = ["Total", "chain", "check_declared", "diamond", "flat", "from_edges", "instant_retries"]


class Total(Furu[int]):
    """One more than the nodes below it add up to. A node for tests of what runs nodes."""

    name: str
    below: tuple[Furu[int], ...] = ()

    def _create(self) -> int:
        return 1 + sum(node.get() for node in self.below)


def chain(length: int) -> Total:
    """Return the end of ``n0 <- n1 <- n2 ...``."""
    node = Total(name="n0")
    for number in range(1, length):
        node = Total(name=f"n{number}", below=(node,))
    return node


def diamond() -> Total:
    """Return the top of ``base <- left, right <- top``."""
    base = Total(name="base")
    left, right = Total(name="left", below=(base,)), Total(name="right", below=(base,))
    return Total(name="top", below=(left, right))


def flat(width: int) -> list[Total]:
    """Return as many nodes that have nothing to do with each other."""
    return [Total(name=f"f{number}") for number in range(width)]


def from_edges(edges: Iterable[Sequence[int]]) -> list[Total]:
    """Return a node for each item of `edges`, which holds the numbers of the earlier ones it depends on."""
    nodes: list[Total] = []
    for number, below in enumerate(edges):
        nodes.append(Total(name=f"e{number}", below=tuple(nodes[one] for one in below)))
    return nodes


@contextmanager
def instant_retries() -> Iterator[None]:
    """Let the runs of a block retry failed nodes at once, whatever delay their `Retry` asks for.

    >>> with instant_retries():
    ...     run_local([Total(name="flaky")]).retried
    0
    """
    token = INSTANT.set(True)
    try:
        yield
    finally:
        INSTANT.reset(token)


def check_declared(*roots: Node[Any]) -> None:
    """Compute nodes and all below them, each in a store that holds what it declares and nothing else.

    So a `get()` of a node that is neither in a field nor in `_dependencies()` fails here, whatever else has
    been computed: in a run it would fail only where nobody happened to have computed that node before. What
    a dependency depends on is not declared by that. Uses temporary stores. Blocks: not for a running loop.

    Raises `FuruComputeError` for the first node that fails, with what to declare in its message.

    >>> check_declared(diamond())
    """
    with tempfile.TemporaryDirectory(prefix="furu-check-") as folder:
        # Two stores, however many nodes: each that is computed in has an owner, who holds a file open.
        alone, whole = Path(folder, "alone"), Path(folder, "whole")
        for node, below in walk(roots):
            _compute_alone(node, below, alone, whole)


def _compute_alone(node: Node[Any], below: list[Node[Any]], alone: Path, whole: Path) -> None:
    for directory in alone.glob("*"):
        if directory.name != OWNERS:
            shutil.rmtree(directory)
    for dependency in below:
        _take_over(dependency, whole, alone)
    with use_settings(store=alone):
        if exists(node):  # an input file, which is there without an artifact
            return
        lane = Lane(is_async(node), node._executor_spec_key())
        outcome = call(Job(node, node.furu_hash, lane), "testing", Cancellation())
    if outcome.error is not None:
        raise outcome.error
    _take_over(node, alone, whole)


def _take_over(node: Node[Any], source: Path, target: Path) -> None:
    with use_settings(store=source):
        made = artifact_of(node).files.directory
    if os.path.isdir(made):
        shutil.copytree(made, target / Path(made).relative_to(source))
