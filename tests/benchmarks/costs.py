"""Costs that are counted, not timed. They are the same on every machine, so tests can check them."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import tempfile
import threading
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import furu
from furu import Furu, run_local, use_settings
from furu.execution.discovery import Discovery, Found
from furu.execution.plan import Plan
from tests.benchmarks.graphs import SHAPES, sinks
from tests.benchmarks.nodes import Small, make_small

# Every function of `os` that could read or change the state of a node.
_CALLS = [
    "access", "chmod", "close", "fstat", "fsync", "ftruncate", "link", "listdir", "lstat", "mkdir", "open",
    "read", "readlink", "remove", "rename", "replace", "rmdir", "scandir", "stat", "unlink", "utime",
    "write",
]  # fmt: skip


@contextlib.contextmanager
def counting_calls() -> Iterator[Counter[str]]:
    """Count the calls of the functions in `_CALLS`, in all threads."""
    counts: Counter[str] = Counter()

    def counting(name: str) -> Any:
        real = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            # Heartbeats do not depend on the number of nodes, and a test process has many stores.
            counts[name] += threading.current_thread().name != "furu-heartbeat"
            return real(*args, **kwargs)

        return call

    with contextlib.ExitStack() as patches:
        for name in _CALLS:
            patches.enter_context(mock.patch.object(os, name, counting(name)))
        yield counts


def count_calls(place: Path, size: int) -> tuple[float, float, int]:
    """Return the system calls of a cold and of a warm node, without the calls of an empty run. The third
    number is how many calls a warm run of `size` nodes makes to compare the code that made them."""
    with tempfile.TemporaryDirectory(dir=place) as directory, use_settings(store=directory):
        run_local([Small(number=-1)])  # creates the owner and the class's directory
        nodes = [Small(number=number) for number in range(size)]
        with counting_calls() as cold:
            run_local(nodes)
        with counting_calls() as warm:
            run_local(nodes, on_code_change="ignore")
        with counting_calls() as comparing:
            run_local(nodes)
        with counting_calls() as none:
            run_local([])
    fixed = none.total()
    # The calls of a cold node include the look-up by discovery, which finds the node missing.
    sample = comparing.total() - warm.total()
    return (cold.total() - fixed) / size, (warm.total() - fixed) / size, sample


def count_inodes(place: Path, size: int) -> float:
    """Return the inodes of a stored node, without those of an empty run."""
    with tempfile.TemporaryDirectory(dir=place) as directory, use_settings(store=directory):
        run_local([Small(number=-1)])
        before = len(list(Path(directory).rglob("*")))
        run_local([Small(number=number) for number in range(size)])
        return (len(list(Path(directory).rglob("*"))) - before) / size


def plan_bytes(size: int, shape: str = "layered") -> float:
    """Return the bytes that a run keeps for each node of a fully known graph, without the node itself."""
    edges = SHAPES[shape](size)
    nodes = make_small(edges)
    roots: list[Furu[int]] = [nodes[number] for number in sinks(edges)]
    with tempfile.TemporaryDirectory() as directory, use_settings(store=directory):
        tracemalloc.start()
        try:
            held = _plan(roots)
            return tracemalloc.get_traced_memory()[0] / size if held else 0.0
        finally:
            tracemalloc.stop()


def _plan(roots: list[Furu[int]]) -> tuple[Any, ...]:
    """Return the objects that the scheduler keeps for a graph: the discovery, the plan and the jobs."""
    discovery = Discovery(roots, remember=True, retry_failed=True)
    plan: Plan[Any] = Plan()
    jobs: dict[str, Any] = {}
    batch = discovery.step(None)
    while True:
        for fact in batch.facts:
            if isinstance(fact, Found):
                plan.add(fact.job.key, fact.job.lane, fact.depends_on)
                jobs[fact.job.key] = fact.job
        if batch.idle:
            return discovery, plan, jobs
        batch = discovery.step(None)


def count_operations(shape: str, size: int) -> int:
    """Return the number of calls of furu's functions in a cold run, in all threads."""
    edges = SHAPES[shape](size)
    nodes = make_small(edges)
    roots = [nodes[number] for number in sinks(edges)]
    package = os.path.dirname(furu.__file__)
    calls = itertools.count()

    def count(frame: Any, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(package):
            next(calls)

    before = sys.getprofile()
    with tempfile.TemporaryDirectory() as directory, use_settings(store=directory):
        threading.setprofile(count)
        sys.setprofile(count)
        try:
            run_local(roots)
        finally:
            sys.setprofile(before)
            threading.setprofile(None)
    return next(calls)
