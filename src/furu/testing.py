"""Helpers for tests of nodes: small graphs, and a check that nodes declare their dependencies. They work
with any test framework. Fixtures for pytest are in `furu.pytest_plugin`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from furu.context import Cancellation
from furu.execution.workers.base import Lane, make_job
from furu.execution.workers.call import call
from furu.graph import walk
from furu.node.base import Node, artifact_of, is_async
from furu.node.furu import Furu
from furu.node.load import exists
from furu.retry import INSTANT
from furu.settings import use_settings
from furu.store.layout import INTERNAL

__all__ = ["Total", "chain", "check_declared", "diamond", "flat", "from_edges", "instant_retries"]


class Total(Furu[int]):
    """A node whose value is one more than the sum of its dependencies' values."""

    name: str
    below: tuple[Furu[int], ...] = ()

    def _create(self) -> int:
        return 1 + sum(node.get() for node in self.below)


def chain(length: int) -> Total:
    """Return the last node of a chain ``n0 <- n1 <- n2 ...``."""
    node = Total(name="n0")
    for number in range(1, length):
        node = Total(name=f"n{number}", below=(node,))
    return node


def diamond() -> Total:
    """Return `top` of the graph ``base <- left, right <- top``."""
    base = Total(name="base")
    left, right = Total(name="left", below=(base,)), Total(name="right", below=(base,))
    return Total(name="top", below=(left, right))


def flat(width: int) -> list[Total]:
    """Return `width` independent nodes."""
    return [Total(name=f"f{number}") for number in range(width)]


def from_edges(edges: Iterable[Sequence[int]]) -> list[Total]:
    """Return one node per item of `edges`. Each item lists the indices of that node's dependencies."""
    nodes: list[Total] = []
    for number, below in enumerate(edges):
        nodes.append(Total(name=f"e{number}", below=tuple(nodes[one] for one in below)))
    return nodes


@contextmanager
def instant_retries() -> Iterator[None]:
    """Remove the delays of `Retry` from runs in a `with` block.

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
    """Compute nodes and everything they depend on, each in a store that contains only its dependencies.

    Here a `get()` always fails if the node is neither in a field nor in `_dependencies()`. In a run, such a
    `get()` succeeds if the node happens to have been computed already. If `_create` gets a dependency of a
    dependency, the class must declare that dependency too. This function uses temporary stores. It blocks,
    so call it in a thread if an event loop is running.

    Raises `FuruComputeError` for the first node that fails. The message says what to declare.

    >>> check_declared(diamond())
    """
    with tempfile.TemporaryDirectory(prefix="furu-check-") as folder:
        # Two stores serve all nodes. With one store per node, the owner in each store would keep a file
        # open.
        alone, whole = Path(folder, "alone"), Path(folder, "whole")
        for node, below in walk(roots):
            _compute_alone(node, below, alone, whole)


def _compute_alone(node: Node[Any], below: list[Node[Any]], alone: Path, whole: Path) -> None:
    for directory in alone.glob("*"):
        if directory.name not in INTERNAL:
            shutil.rmtree(directory)
    for dependency in below:
        _take_over(dependency, whole, alone)
    with use_settings(store=alone):
        if exists(node):  # an input file, which is never computed
            return
        lane = Lane(is_async(node), node._executor_spec_key())
        outcome = call(make_job(node, lane), "testing", Cancellation())
    if outcome.error is not None:
        raise outcome.error
    _take_over(node, alone, whole)


def _take_over(node: Node[Any], source: Path, target: Path) -> None:
    with use_settings(store=source):
        names = artifact_of(node).files.all
    for made in map(Path, names):
        copy = target / made.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if made.is_dir():
            shutil.copytree(made, copy)
        elif made.exists():
            shutil.copyfile(made, copy)
