"""The cost of a node, counted rather than timed. A change that raises the cost fails a test here."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from furu import Furu, run_local
from furu.observing import critical_path
from tests.benchmarks.costs import count_calls, count_inodes, count_operations, plan_bytes
from tests.benchmarks.graphs import SHAPES
from tests.benchmarks.nodes import Small


def test_cold_node_takes_ten_system_calls_and_a_warm_one_a_single_stat(tmp_path: Path) -> None:
    """A cold node makes two stats of `done`, one of the claim, two links, two unlinks, and three calls that
    write the document. Calls for the user's own files are not counted."""
    assert (10.0, 1.0) == count_calls(tmp_path, 20)[:2]


def test_warm_run_reads_the_records_of_a_small_sample(tmp_path: Path) -> None:
    """To read a record takes four calls. Of 64 nodes, the first 8, the 16th, the 32nd and the 64th are
    compared with the code of their class."""
    assert 4 * 11 == count_calls(tmp_path, 64)[2]


def test_node_without_files_takes_one_inode(tmp_path: Path) -> None:
    """Inode quotas are what users of shared clusters run out of first."""
    assert 1.0 == count_inodes(tmp_path, 20)


@pytest.mark.parametrize("shape", SHAPES)
def test_live_plan_takes_at_most_half_a_kib_a_node(shape: str) -> None:
    """The plan of a whole graph is measured before any node is computed, without the caller's objects."""
    assert plan_bytes(1000, shape) <= 512


@pytest.mark.parametrize("shape", SHAPES)
def test_run_is_linear_in_its_nodes(shape: str) -> None:
    """Four times as many nodes need at most 4.6 times as many calls: 15 percent is a margin for noise."""
    assert count_operations(shape, 1200) <= 4.6 * count_operations(shape, 300)


def test_roots_behind_the_window_are_not_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished root leaves less than 64 bytes in memory. Memory may grow once for other reasons, for
    example when threads are added, so only the smallest growth between two samples is checked."""
    monkeypatch.setattr(critical_path, "REMEMBERED_NODES", 100)
    sizes: list[int] = []

    def roots() -> Iterator[Furu[int]]:
        for number in range(3001):
            if number % 1000 == 0:
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
            yield Small(number=number)

    tracemalloc.start()
    try:
        run_local(roots(), window_size=20)
    finally:
        tracemalloc.stop()
    assert min(later - sooner for sooner, later in pairwise(sizes)) < 64 * 1000
