"""The longest chain of nodes that depend on each other."""

from __future__ import annotations

import tracemalloc

from furu.observing.critical_path import CriticalPath, longest_chain


def test_longest_chain_is_the_one_that_takes_longest() -> None:
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
    path.computed("a", "Node", 1, ["b", "c"])
    path.computed("c", "Node", 2, ["d"])
    path.computed("b", "Node", 5, ["d"])
    path.computed("d", "Node", 1, [])
    assert 7 == path.longest.total_sec
    assert ["b", "a", "d"] == [node.hash for node in path.longest.slowest]


def test_critical_path_leads_through_nodes_done_before_their_dependents_were_found() -> None:
    """Here c is found only after its dependencies a and b are done."""
    path = CriticalPath()
    path.computed("a", "Node", 3, [])
    path.computed("b", "Node", 2, [])
    path.found("c", ["b", "a"])
    path.computed("c", "Node", 1, [])
    assert 4 == path.longest.total_sec


def test_critical_path_does_not_lead_through_nodes_that_were_not_computed() -> None:
    """
    a(3) <- b(another process) <- c(1)
    """
    path = CriticalPath()
    path.computed("a", "Node", 3, ["b"])
    path.gone("b")
    path.computed("c", "Node", 1, [])
    assert 3 == path.longest.total_sec


def test_memory_of_a_critical_path_does_not_grow_with_the_nodes_that_are_done() -> None:
    """It grows neither with the number of roots nor with the length of a chain."""
    path = CriticalPath()
    tracemalloc.start()
    for number in range(20_000):
        path.computed(f"leaf {number}", "Node", 1, [f"root {number}"])
        path.computed(f"root {number}", "Node", 1, [f"chain {number}"])
        path.computed(f"chain {number}", "Node", 1, [f"chain {number + 1}"])
        if number == 10_000:
            half = tracemalloc.get_traced_memory()[0]
    grown = tracemalloc.get_traced_memory()[0] - half
    tracemalloc.stop()
    assert 10_000 * 16 > grown
