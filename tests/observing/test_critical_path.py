"""The longest chain of nodes that depend on each other."""

from __future__ import annotations

import tracemalloc

from furu.observing.critical_path import CriticalPath, longest_chain
from furu.report import NodeTime
from tests.observing.events import planned


def done(name: str, duration_sec: float) -> NodeTime:
    return NodeTime(name, "Node", duration_sec)


def test_longest_chain_is_the_longest_in_time() -> None:
    """
    a(1) <- b(5) <- d(1)
         <- c(2) <-
    """
    nodes = [("a", (), 1.0), ("c", ("a",), 2.0), ("b", ("a",), 5.0), ("d", ("b", "c"), 1.0)]
    assert (7.0, ["d", "b", "a"]) == longest_chain(nodes)


def test_longest_chain_of_no_nodes_is_empty() -> None:
    assert (0.0, []) == longest_chain([])


def test_dependencies_that_are_not_among_the_nodes_count_as_done() -> None:
    assert (2.0, ["b"]) == longest_chain([("a", ("gone",), 1.0), ("b", ("gone",), 2.0)])


def test_critical_path_of_a_run_is_the_longest_chain_of_its_nodes() -> None:
    """
    a(1) <- b(5) <- d(1)
         <- c(2) <-
    """
    path = CriticalPath()
    for event in [planned("a"), planned("b", "a"), planned("c", "a"), planned("d", "b", "c")]:
        path.planned(event)
    for node in [done("a", 1), done("c", 2), done("b", 5), done("d", 1)]:
        path.done(node)
    assert 7 == path.longest.total_sec
    assert ["b", "a", "d"] == [node.hash for node in path.longest.slowest]


def test_critical_path_leads_through_nodes_done_before_their_dependents_were_found() -> None:
    """The plan grows while nodes run."""
    path = CriticalPath()
    path.planned(planned("a"))
    path.done(done("a", 3))
    path.planned(planned("b", "a"))
    path.done(done("b", 1))
    assert 4 == path.longest.total_sec


def test_memory_of_a_critical_path_does_not_grow_with_the_nodes_that_are_done() -> None:
    """Neither for many roots nor for a long chain."""
    path = CriticalPath()
    tracemalloc.start()
    for number in range(20_000):
        path.planned(planned(f"leaf {number}"))
        path.planned(planned(f"root {number}", f"leaf {number}"))
        path.done(done(f"leaf {number}", 1))
        path.done(done(f"root {number}", 1))
        if number == 10_000:
            half = tracemalloc.get_traced_memory()[0]
    grown = tracemalloc.get_traced_memory()[0] - half
    tracemalloc.stop()
    assert 10_000 * 16 > grown
