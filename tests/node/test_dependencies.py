"""Finding the nodes inside values, each once and in a fixed order, and the order of a graph."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import furu
from furu import Furu, FuruCycleError, FuruError, FuruUsageError, register_canonical_form, run_local
from furu.node.dependencies import dependencies, nodes_within, postorder
from furu.node.identity import MAX_DEPTH
from tests.graphs import Node, from_edges


class Holder(Furu[int]):
    value: Any = None
    other: Any = None

    def _create(self) -> int:
        return 1


@dataclasses.dataclass(frozen=True)
class Config:
    source: Any
    note: Any = dataclasses.field(default=None, compare=False)


class Packed(msgspec.Struct):
    source: Any


class Named(NamedTuple):
    source: Any


A, B, C = Node(name="a"), Node(name="b"), Node(name="c")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (A, [A]),
        ([A, B], [A, B]),
        ((B, A), [B, A]),
        ({"x": A, "y": B}, [A, B]),
        ({A: B}, [A, B]),
        ({A}, [A]),
        (frozenset({A}), [A]),
        (Config(A), [A]),
        (Config(1, note=A), [A]),
        (Packed(A), [A]),
        (Named(A), [A]),
        ([{"a": ({"b": Config(Packed([Named(A)]))},)}], [A]),
        ([A, (A, {"x": A})], [A]),
        ([A, Node(name="a")], [A]),
        (Node(name="top", below=(A, B)), [Node(name="top", below=(A, B))]),
        ([1, "a", None, b"", 1.5, Path("a"), object, ..., range(3)], []),
        (Node, []),
        ([], []),
    ],
)
def test_nodes_inside_a_value_are_found(value: Any, expected: list[Node]) -> None:
    """Each node is listed once, in order of appearance. Dependencies of these nodes are not listed."""
    assert expected == nodes_within([value], Furu)
    assert expected == dependencies(Holder(value=value))


def test_nodes_of_several_fields_are_found_in_the_order_of_the_class() -> None:
    """The nodes from `_dependencies` follow, except those that were found in fields."""

    class Adding(Holder):
        def _dependencies(self) -> Iterable[Furu[Any]]:
            return [C, A]

    assert [B, A] == dependencies(Holder(other=A, value=B))
    assert [B, A, C] == dependencies(Adding(other=A, value=B))


def test_node_in_a_field_outside_identity_is_a_dependency() -> None:

    class Hinted(Furu[int]):
        x: int
        hint: Any = dataclasses.field(default=None, compare=False)

    assert Hinted(x=1) == Hinted(x=1, hint=A)
    assert [A] == dependencies(Hinted(x=1, hint=[A]))


def test_nodes_of_a_set_come_in_the_order_of_their_hashes() -> None:
    """The iteration order of the set itself is arbitrary."""
    nodes = {Node(name=str(number)) for number in range(50)}
    assert sorted(nodes, key=lambda node: node.furu_hash) == nodes_within([nodes], Furu)
    assert nodes_within([nodes], Furu) == nodes_within([frozenset({frozenset(nodes)})], Furu)


def test_order_of_dependencies_does_not_depend_on_the_hash_seed() -> None:
    code = """
        from tests.graphs import Node
        from furu.node.dependencies import nodes_within
        from furu import Furu
        words = ["pear", "apple", "fig", "quince", "plum"]
        value = [{Node(name=w) for w in words}, {(w, Node(name=w * 2)) for w in words}]
        print([node.name for node in nodes_within(value, Furu)])
    """
    folders = [str(Path(__file__).parents[2]), str(Path(furu.__file__).parent.parent)]
    printed = {
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(folders)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert 1 == len(printed)
    assert 10 == printed.pop().count(",") + 1


# ---- registered types ----


class Box:
    def __init__(self, content: Any) -> None:
        self.content = content


class OuterBox(Box):
    pass


register_canonical_form(Box, lambda box: box.content)
register_canonical_form(OuterBox, lambda box: Box(box.content))


@pytest.mark.parametrize("wrap", [Box, OuterBox])
@pytest.mark.parametrize("content", [lambda node: [node], lambda node: {"x": (node,)}, lambda node: node])
def test_nodes_inside_a_registered_type_are_found(
    wrap: Callable[[Any], Any], content: Callable[[Any], Any]
) -> None:
    """The canonical form may be a container, a node, or a value of another registered type."""
    node = Node(name="top", below=(A,))
    assert [node] == dependencies(Holder(value=wrap(content(node))))
    assert [node] == dependencies(Holder(value=[wrap(content(node))]))


def test_run_computes_the_node_inside_a_registered_type() -> None:
    node = Node(name="inside")
    run_local([Holder(value=Box([node]))])
    assert node.exists()


# ---- misuse ----


def test_non_node_dependencies_are_an_error() -> None:
    """The message names the node and the wrong value."""

    class Wrong(Holder):
        def _dependencies(self) -> Any:
            return [A, "a"]

    with pytest.raises(FuruUsageError, match=r"Wrong\(.*_dependencies\(\) returned a str among .*'a'"):
        dependencies(Wrong())


def test_error_in_dependencies_names_the_node() -> None:
    """The original exception is the cause of the error."""

    class Raising(Holder):
        def _dependencies(self) -> Any:
            raise ValueError("no such split")

    with pytest.raises(
        FuruError, match=r"Raising\(.*_dependencies\(\) raised ValueError: no such"
    ) as caught:
        dependencies(Raising())
    assert isinstance(caught.value.__cause__, ValueError)


def test_container_that_holds_itself_outside_identity_is_an_error() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(FuruUsageError, match="does a container hold itself"):
        dependencies(Holder(value=Config(1, note=endless)))


@pytest.mark.parametrize("innermost", [1, A], ids=["a number", "a node"])
def test_dependencies_are_found_as_deep_as_identity_allows(innermost: Any) -> None:
    value = innermost
    for _ in range(MAX_DEPTH):
        value = [value]
    node = Holder(value=value)
    assert [one for one in [innermost] if one is A] == dependencies(node)


# ---- the order of a graph ----


def below_of(node: Node) -> tuple[Any, ...]:
    return node.below


def test_postorder_gives_each_node_after_everything_under_it() -> None:
    r"""
     top
    /   \
    left right
    \   /
     base
    """
    base, left, right, top = from_edges([[], [0], [0], [1, 2]])
    seen: set[str] = set()

    def new_below(node: Any) -> Any:
        if node.furu_hash in seen:
            return None
        seen.add(node.furu_hash)
        return node.below

    assert [base, left, right, top] == list(postorder(top, new_below))


def test_postorder_leaves_out_known_nodes() -> None:
    """If the function returns None for a node, the order leaves out that node and the nodes below it."""
    top = Node(name="top", below=(Node(name="known", below=(A,)), B))
    visited: list[str] = []

    def below(node: Any) -> Any:
        visited.append(node.name)
        return None if node.name == "known" else node.below

    assert [B, top] == list(postorder(top, below))
    assert ["top", "known", "b"] == visited
    assert [] == list(postorder(top, lambda node: None))


def test_postorder_asks_for_dependencies_when_it_visits_a_node() -> None:
    """A node may have become DONE since the walk began."""
    top = Node(name="top", below=(A, B))
    visited: list[str] = []

    def below(node: Any) -> Any:
        visited.append(node.name)
        return node.below

    order = postorder(top, below)
    assert A == next(order)
    assert ["top", "a"] == visited


def test_postorder_of_a_deep_chain_needs_no_recursion() -> None:
    """The chain is ten times deeper than Python's recursion limit."""
    node = Node(name="0")
    for number in range(1, 10_000):
        node = Node(name=str(number), below=(node,))
    assert [str(number) for number in range(10_000)] == [one.name for one in postorder(node, below_of)]


class Circular(Furu[int]):
    """Has its dependencies in the table `EDGES`, because nodes in fields cannot form a cycle."""

    name: str

    def _dependencies(self) -> list[Furu[Any]]:
        return [Circular(name=name) for name in EDGES.get(self.name, "")]

    def _create(self) -> int:
        return 1


EDGES = {"a": "b", "b": "c", "c": "db", "d": "", "x": "x"}


def test_cycle_error_lists_only_the_nodes_of_the_cycle() -> None:
    """a -> b -> c -> b: a is not part of the cycle."""
    with pytest.raises(FuruCycleError) as caught:
        list(postorder(Circular(name="a"), dependencies))
    assert ["b", "c", "b"] == [node.name for node in caught.value.cycle]
    assert "Circular(name='b')\n  -> Circular(name='c')\n  -> Circular(name='b')" in str(caught.value)
    assert "_dependencies()" in str(caught.value)


def test_node_that_depends_on_itself_is_a_cycle() -> None:
    with pytest.raises(FuruCycleError) as caught:
        Circular(name="x").get()
    assert [Circular(name="x")] * 2 == list(caught.value.cycle)


def test_long_cycle_is_cut_in_the_message_but_not_in_the_data() -> None:

    class Ring(Furu[int]):
        number: int

        def _dependencies(self) -> list[Furu[Any]]:
            return [Ring(number=(self.number + 1) % 1000)]

    with pytest.raises(FuruCycleError) as caught:
        list(postorder(Ring(number=0), dependencies))
    assert 1001 == len(caught.value.cycle)
    assert 20 > len(str(caught.value).splitlines())
    assert "..." in str(caught.value)


graphs = st.integers(1, 9).flatmap(
    lambda size: st.tuples(
        *[
            st.lists(st.integers(0, number - 1), unique=True) if number else st.just([])
            for number in range(size)
        ]
    )
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(graphs)
def test_postorder_of_a_random_graph_is_topological_and_complete(edges: tuple[list[int], ...]) -> None:
    """The order has each node below the last node exactly once, after its dependencies."""
    nodes = from_edges(list(edges))
    seen: set[str] = set()

    def new_below(node: Any) -> Any:
        if node.furu_hash in seen:
            return None
        seen.add(node.furu_hash)
        return node.below

    order = list(postorder(nodes[-1], new_below))
    reachable = {len(nodes) - 1}
    for number in range(len(nodes) - 1, -1, -1):
        if number in reachable:
            reachable.update(edges[number])
    assert {nodes[number] for number in reachable} == set(order)
    assert len(reachable) == len(order)
    place = {node: index for index, node in enumerate(order)}
    assert all(place[below] < place[node] for node in order for below in node.below)
