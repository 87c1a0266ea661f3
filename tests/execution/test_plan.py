"""Plan is bookkeeping on keys, so its tests need no disk, no threads and no clock."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from furu.errors import FuruError
from furu.execution.plan import Plan, State


def everywhere(lane: str, presuming: bool) -> bool:
    return True


def drain(plan: Plan[str]) -> list[str]:
    """Run a plan with one worker, and return the order of its nodes."""
    order: list[str] = []
    while (key := plan.get_ready(everywhere)) is not None:
        order.append(key)
        plan.done(key)
    return order


def make_plan(*nodes: tuple[str, str]) -> Plan[str]:
    """Make a plan of ("key", "its dependencies") pairs."""
    plan: Plan[str] = Plan()
    for key, below in nodes:
        assert [] == plan.add(key, "lane", below)
    return plan


def test_node_is_ready_only_after_everything_it_depends_on() -> None:
    """
     d
    / \\
    b   c
    \\ /
     a
    """
    plan = make_plan(("a", ""), ("b", "a"), ("c", "a"), ("d", "bc"))
    assert "a" == plan.get_ready(everywhere)
    assert None is plan.get_ready(everywhere)
    plan.done("a")
    assert ["b", "c"] == [plan.get_ready(everywhere), plan.get_ready(everywhere)]
    plan.done("c")
    assert None is plan.get_ready(everywhere)
    plan.done("b")
    assert "d" == plan.get_ready(everywhere)


def test_ready_nodes_come_in_the_order_they_were_added() -> None:
    """The order in which their dependencies finish does not matter."""
    plan = make_plan(("x", ""), ("y", ""), ("b", "x"), ("a", "y"), ("c", ""))
    assert ["x", "y"] == [plan.get_ready(everywhere), plan.get_ready(everywhere)]
    plan.done("y")
    plan.done("x")
    assert ["b", "a", "c"] == drain(plan)


def test_finished_nodes_leave_the_plan() -> None:
    plan = make_plan(("a", ""), ("b", "a"))
    assert ["a", "b"] == drain(plan)
    assert 0 == len(plan)
    assert dict.fromkeys(State, 0) == {state: plan.count(state) for state in State}


def test_key_that_left_the_plan_counts_as_done() -> None:
    """A node that is found late may depend on a node that was done long before."""
    plan = make_plan(("a", ""))
    drain(plan)
    plan.add("b", "lane", ["a"])
    assert "b" == plan.get_ready(everywhere)


def test_lane_without_room_does_not_delay_other_lanes() -> None:
    """The next node to start is the earliest added node whose lane has room."""
    plan: Plan[str] = Plan()
    for key, lane in [("g1", "gpu"), ("c1", "cpu"), ("g2", "gpu"), ("c2", "cpu")]:
        plan.add(key, lane, [])
    assert "c1" == plan.get_ready(lambda lane, presuming: lane == "cpu")
    assert "g1" == plan.get_ready(everywhere)
    assert "c2" == plan.get_ready(lambda lane, presuming: lane == "cpu")
    assert None is plan.get_ready(lambda lane, presuming: lane == "cpu")
    assert "g2" == plan.get_ready(everywhere)


def test_failure_removes_exactly_the_dependents() -> None:
    """
      d   e
     / \\ /
    b   c      b fails: d is lost; c and e still run
    """
    plan = make_plan(("b", ""), ("c", ""), ("d", "bc"), ("e", "c"))
    assert "b" == plan.get_ready(everywhere)
    assert ["d"] == plan.failed("b")
    assert [True, True, False] == [plan.is_lost(key) for key in "bde"]
    assert ["c", "e"] == drain(plan)
    assert 0 == len(plan)


def test_node_found_after_its_dependency_was_lost_is_lost() -> None:
    """Discovery may still be walking the graph when a node fails."""
    plan = make_plan(("a", ""))
    plan.get_ready(everywhere)
    plan.failed("a")
    assert ["b"] == plan.add("b", "lane", ["a"])
    assert ["c"] == plan.add("c", "lane", ["b"])
    assert 0 == len(plan)


def test_waiting_node_delays_only_its_dependents() -> None:
    """The node stops waiting when it is done or added again."""
    plan = make_plan(("a", ""), ("b", ""))
    plan.add_waiting("x", "lane")
    plan.add("y", "lane", ["x"])
    assert ["a", "b"] == drain(plan)
    plan.done("x")
    assert ["y"] == drain(plan)


def test_waiting_node_that_was_given_up_is_added_again_in_its_old_place() -> None:
    """Its dependents keep waiting for the node, and the node waits for its new dependencies."""
    plan: Plan[str] = Plan()
    plan.add("a", "lane", [])
    plan.add("later", "lane", [])
    assert "a" == plan.get_ready(everywhere)
    plan.waits("a")
    plan.add("top", "lane", ["a"])
    plan.add("new", "lane", [])
    plan.add("a", "lane", ["new"])
    assert ["later", "new", "a", "top"] == drain(plan)


def test_lost_dependency_of_a_returning_node_removes_its_dependents() -> None:
    """Another owner was computing the node when its dependency failed."""
    plan = make_plan(("bad", ""))
    plan.get_ready(everywhere)
    plan.failed("bad")
    plan.add_waiting("x", "lane")
    plan.add("top", "lane", ["x"])
    assert ["x", "top"] == plan.add("x", "lane", ["bad"])
    assert 0 == len(plan)


@pytest.mark.parametrize(
    "misuse",
    [
        lambda plan: plan.add("a", "lane", []),
        lambda plan: plan.add_waiting("a", "lane"),
        lambda plan: plan.done("a"),
        lambda plan: plan.done("unknown"),
        lambda plan: plan.waits("a"),
    ],
)
def test_misuse_names_the_node(misuse) -> None:  # type: ignore[no-untyped-def]
    """A call for a node in the wrong state raises an error that begins with the node's key."""
    plan = make_plan(("a", ""))
    with pytest.raises(FuruError, match=r"^(a|unknown) is "):
        misuse(plan)


@st.composite
def graphs(draw: st.DrawFn) -> list[list[int]]:
    """Draw a graph: for each node, the earlier nodes that it depends on."""
    size = draw(st.integers(0, 20))
    return [
        sorted(draw(st.sets(st.integers(0, node - 1), max_size=4))) if node else [] for node in range(size)
    ]


@given(
    graph=graphs(), seed=st.integers(0, 2**32), failing=st.sets(st.integers(0, 19)), by_rank=st.booleans()
)
def test_every_node_finishes_once_and_after_its_dependencies(
    graph: list[list[int]], seed: int, failing: set[int], by_rank: bool
) -> None:
    """In any interleaving and order, each node is done, fails, or is lost because a dependency failed."""
    chance = random.Random(seed)
    plan: Plan[str] = Plan(by_rank=by_rank)
    todo = list(enumerate(graph))
    started: list[str] = []
    done: list[str] = []
    lost: list[str] = []
    while todo or len(plan):
        choice = chance.randrange(3)
        if choice == 0 and todo:
            node, below = todo.pop(0)
            lost += plan.add(str(node), "lane", map(str, below), weight=chance.random())
        elif choice == 1 and (key := plan.get_ready(everywhere)) is not None:
            assert all(str(below) in done for below in graph[int(key)])
            started.append(key)
        elif started:
            key = started.pop(chance.randrange(len(started)))
            if int(key) in failing:
                lost += [key, *plan.failed(key)]
            else:
                plan.done(key)
                done.append(key)
    assert sorted(map(str, range(len(graph)))) == sorted(done + lost)
    below_failure = {
        node
        for node in range(len(graph))
        if node in failing or any(str(below) in lost for below in graph[node])
    }
    assert {str(node) for node in below_failure} == set(lost)


@given(graph=graphs(), seed=st.integers(0, 2**32))
def test_plan_by_rank_takes_the_node_with_the_longest_chain_of_dependents(
    graph: list[list[int]], seed: int
) -> None:
    """With one worker, each choice is compared with the definition of a rank."""
    chance = random.Random(seed)
    weights = [chance.randrange(1, 5) for _ in graph]
    plan: Plan[str] = Plan(by_rank=True)
    for node, below in enumerate(graph):
        plan.add(str(node), "lane", map(str, below), weights[node])
    plan.rank()

    def rank(node: int) -> int:
        above = [rank(other) for other, below in enumerate(graph) if node in below]
        return weights[node] + max(above, default=0)

    done: list[int] = []
    while (key := plan.get_ready(everywhere)) is not None:
        ready = [n for n, below in enumerate(graph) if n not in done and all(b in done for b in below)]
        assert rank(int(key)) == max(rank(node) for node in ready)
        plan.done(key)
        done.append(int(key))
    assert len(graph) == len(done)


def test_plan_by_rank_ranks_nodes_that_are_added_later() -> None:
    """Ranks are computed again when the plan has grown by half."""
    plan: Plan[str] = Plan(by_rank=True)
    plan.add("short", "lane", [], 2.0)
    plan.add("bottom", "lane", [], 1.0)
    plan.rank()
    plan.add("top", "lane", ["bottom"], 1.0)
    plan.add("higher", "lane", ["top"], 1.0)
    assert ["bottom", "short", "top", "higher"] == drain(plan)


def test_ranks_of_a_growing_plan_cost_linear_time() -> None:
    """The test counts the nodes that ranking visits while a chain grows node by node and no node starts."""

    def looks(size: int) -> int:
        counter = itertools.count()
        plan: Plan[str] = Plan(by_rank=True)
        original = plan.rank

        def counting() -> None:
            for _ in range(len(plan)):
                next(counter)
            original()

        plan.rank = counting  # type: ignore[method-assign]
        for number in range(size):
            plan.add(f"{number}", "lane", [f"{number - 1}"])
            plan.get_ready(lambda lane, presuming: False)
        return next(counter)

    assert looks(800) <= 4.5 * looks(200)


def test_cost_of_an_event_is_the_degree_of_its_node() -> None:
    """For n independent pairs of nodes, the number of lane checks is linear in n."""

    def checks(pairs: int) -> int:
        counter = itertools.count()
        plan: Plan[str] = Plan()
        for number in range(pairs):
            plan.add(f"a{number}", "lane", [])
            plan.add(f"b{number}", "lane", [f"a{number}"])

        def has_room(lane: str, presuming: bool) -> bool:
            next(counter)
            return True

        while (key := plan.get_ready(has_room)) is not None:
            plan.done(key)
        return next(counter)

    assert 10 * checks(100) >= checks(1000)
