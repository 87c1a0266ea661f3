"""What a node costs, counted and not timed, so that no change makes it more, or quadratic, unnoticed."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from furu import Furu, run_local
from furu.observing import critical_path
from tests.benchmarks.costs import count_calls, count_operations, plan_bytes
from tests.benchmarks.graphs import SHAPES
from tests.benchmarks.nodes import Small


def test_cold_node_takes_ten_system_calls_and_a_warm_one_a_single_stat(tmp_path: Path) -> None:
    """Without the user's own files: two looks at `done`, the claim, a document, its name, and a look at the
    claim."""
    assert (10.0, 1.0) == count_calls(tmp_path, 20)


@pytest.mark.parametrize("shape", SHAPES)
def test_live_plan_takes_at_most_2_kib_a_node(shape: str) -> None:
    """Without the caller's own objects, for a whole graph that is known and not computed."""
    assert plan_bytes(1000, shape) <= 2048


@pytest.mark.parametrize("shape", SHAPES)
def test_run_is_linear_in_its_nodes(shape: str) -> None:
    """Four times the nodes, at most 4.6 times the calls: 15 percent for chance."""
    assert count_operations(shape, 1200) <= 4.6 * count_operations(shape, 300)


def test_nothing_is_kept_of_a_root_behind_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than 64 bytes a root. Memory may grow once, for example when threads are added, but not
    always."""
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
