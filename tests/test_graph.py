"""Walking over a graph, and the graph's nodes and classes as plain values."""

from __future__ import annotations

from typing import Any

import pytest

from furu import Furu, FuruUsageError
from furu.graph import UNNEEDED, make_graph, walk
from tests.graphs import Node, chain, diamond, flat


def twin(module: str, name: str = "Twin") -> Furu[int]:
    """Return a node of a new class with this module and name."""
    cls: Any = type(name, (Furu,), {"__module__": module, "__qualname__": name, "_create": lambda _: 1})
    node: Furu[int] = cls()
    return node


def test_walk_yields_each_node_once_after_its_dependencies() -> None:
    roots = [diamond(), *diamond().below, *flat(2)]
    seen: list[str] = []
    for node, below in walk(roots):
        assert {dependency.furu_hash for dependency in below} <= set(seen)
        seen.append(node.furu_hash)
    assert 6 == len(seen) == len(set(seen))


def test_two_classes_with_the_same_full_name_are_rejected_under_different_roots() -> None:
    def make(number: int) -> Furu[int]:
        class Same(Furu[int]):
            number: int

        return Same(number=number)

    with pytest.raises(FuruUsageError, match="two classes in one graph"):
        list(walk([make(1), make(2)]))


@pytest.mark.parametrize(
    ("roots", "max_nodes", "count"),
    [
        (flat(3), 3, 3),
        (flat(3), 2, 2),
        ([chain(5)], 5, 5),
        ([chain(5)], 4, 4),
        ([], 1, 0),
        ([chain(5)], None, 5),
    ],
)
def test_too_large_graph_is_cut_and_marked_as_cut(
    roots: list[Any], max_nodes: int | None, count: int
) -> None:
    graph = make_graph(roots, max_nodes)
    total = len(make_graph(roots).nodes)
    assert (count, count < total) == (len(graph.nodes), graph.is_cut)


def test_class_has_the_highest_level_of_its_nodes_and_a_label() -> None:
    """Classes that share a short name are labelled with their full names."""
    graph = make_graph([diamond(), twin("alpha"), twin("beta")])
    levels = [(cls.node_class, cls.level, len(cls.hashes)) for cls in graph.by_class()]
    assert [("alpha:Twin", 0, 1), ("beta:Twin", 0, 1), ("tests.graphs:Node", 2, 4)] == levels
    labels = {"alpha:Twin": "alpha:Twin", "beta:Twin": "beta:Twin", "tests.graphs:Node": "Node"}
    assert labels == graph.labels()


def test_class_depends_on_the_other_classes_that_its_nodes_need() -> None:
    graph = make_graph([Node(name="top", below=(twin("alpha"), *flat(2)))])
    assert [(), ("alpha:Twin",)] == [cls.depends_on for cls in graph.by_class()]


def test_states_of_unvisited_nodes_follow_from_their_dependents() -> None:
    top = chain(3)
    graph = make_graph([top])
    known = {top.furu_hash: "reused"}
    assert [UNNEEDED, UNNEEDED, "reused"] == list(graph.states(known, is_finished=False).values())[::-1]
    assert {"pending"} == set(list(graph.states({}, is_finished=False).values())[:1])
