"""Nodes that a run computes once more, and nodes that are forgotten."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from furu import (
    Furu,
    FuruComputeError,
    FuruInProgressError,
    FuruUsageError,
    Status,
    plan_local,
    run_local,
    run_local_async,
)
from tests.graphs import Node, actions, chain, computed, diamond, recording


@pytest.fixture(autouse=True)
def _empty_record() -> Iterator[None]:
    COUNTS.clear()
    with recording():
        yield


COUNTS: dict[str, int] = {}


class Counted(Furu[int]):
    """Its value is how often it has been computed."""

    name: str
    below: tuple[Furu[int], ...] = ()

    def _create(self) -> int:
        COUNTS[self.name] = COUNTS.get(self.name, 0) + 1
        if COUNTS[self.name] == FAILS_AT.get(self.name):
            raise ValueError("not this time")
        return COUNTS[self.name] + 100 * sum(node.get() for node in self.below)


FAILS_AT: dict[str, int] = {}


def pyramid() -> Counted:
    """
    top -> left, right;  left -> base;  right -> other
    """
    left = Counted(name="left", below=(Counted(name="base"),))
    right = Counted(name="right", below=(Counted(name="other"),))
    return Counted(name="top", below=(left, right))


@pytest.mark.parametrize(
    ("again", "expected"),
    [
        (lambda top: [top.below[0]], {"left", "top"}),
        (lambda top: [top.below[0].below[0]], {"base", "left", "top"}),
        (lambda top: {top}, {"top"}),
        (lambda top: (node for node in [top.below[1]]), {"right", "top"}),
        (lambda top: lambda node: node.name == "other", {"other", "right", "top"}),
        (lambda top: [Counted], {"base", "left", "other", "right", "top"}),
        (lambda top: [], set()),
    ],
)
def test_chosen_nodes_and_their_dependents_are_computed_once_more(
    again: Callable[[Any], Any], expected: set[str]
) -> None:
    top = pyramid()
    run_local([top])
    before = dict(COUNTS)
    plan = plan_local([top], again=again(top))
    assert len(expected) == plan.to_compute
    report = run_local([top], again=again(top))
    assert len(expected) == report.computed
    assert expected == {name for name in COUNTS if COUNTS[name] > before[name]}
    assert before == {name: COUNTS[name] - (name in expected) for name in COUNTS}
    assert 0 == run_local([top]).computed
    assert top.get() == COUNTS["top"] + 100 * sum(node.get() for node in top.below)


def test_plan_says_why_a_node_is_computed_again() -> None:
    top = pyramid()
    run_local([top])
    plan = plan_local([top], again=[top.below[0]])
    assert ["again", "stale input"] == [node.reason for node in plan.nodes]


def test_failure_of_the_new_attempt_leaves_the_old_value() -> None:
    top = pyramid()
    run_local([top])
    old = top.get()
    FAILS_AT["left"] = 2
    try:
        with pytest.raises(FuruComputeError, match="not this time"):
            run_local([top], again=[top.below[0]])
    finally:
        FAILS_AT.clear()
    assert (1, old) == (top.below[0].get() % 100, top.get())
    assert Status.DONE is top.below[0].status()


def test_old_value_is_served_until_the_new_one_is_published() -> None:
    node = Node(name="slow")
    run_local([node])
    computing, go_on = threading.Event(), threading.Event()

    def block() -> None:
        computing.set()
        assert go_on.wait(30)

    actions["slow"] = block
    run = threading.Thread(target=run_local, args=([node],), kwargs={"again": [node]})
    run.start()
    assert computing.wait(30)
    assert (Status.DONE, 1) == (Status.DONE if node.exists() else node.status(), node.get())
    with pytest.raises(FuruInProgressError, match="is being computed, so it was not removed"):
        node.forget()
    go_on.set()
    run.join()
    assert 2 == computed.counts()["slow"]


class Listing(Furu[list[str]]):
    """Has one more name each time that it is computed."""

    def _create(self) -> list[str]:
        COUNTS["listing"] = COUNTS.get("listing", 0) + 1
        return [f"name {number}" for number in range(COUNTS["listing"])]


class Report(Furu[int]):
    """Report -> Listing, and then -> a node for each name"""

    listing: Listing

    def _dependencies(self) -> Iterable[Counted]:
        return [Counted(name=name) for name in self.listing.get()]

    def _create(self) -> int:
        return sum(node.get() for node in self._dependencies())


def test_growing_node_waits_for_the_new_value_of_what_it_asks_for() -> None:
    root = Report(listing=Listing())
    run_local([root])
    assert 1 == root.get()
    assert 3 == run_local([root], again=[Listing]).computed
    assert 2 == root.get()


def test_named_node_outside_the_graph_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    run_local([chain(2)])
    with caplog.at_level(logging.WARNING, logger="furu.run"):
        run_local([chain(2)], again=[Node(name="other"), Node(name="n0")])
    assert "the roots do not depend on them: Node(name='other'" in caplog.text
    assert "n0" not in caplog.text


@pytest.mark.parametrize("again", ["Node", Node, Node(name="x"), 3, [3], {"a": Node(name="x")}])
def test_bad_choice_is_rejected_before_anything_is_computed(again: Any) -> None:
    for call in (run_local, plan_local):
        with pytest.raises(TypeError, match="again must"):
            call([Node(name="x")], again=again)  # type: ignore[operator]
    assert [] == computed.order


def test_error_of_the_function_is_a_failure_of_the_node() -> None:
    run_local([Node(name="x")])

    def fail(node: Furu[Any]) -> bool:
        raise KeyError("no such name")

    with pytest.raises(FuruComputeError, match=r"again\(Node\(name='x'.*raised KeyError"):
        run_local([Node(name="x")], again=fail)


@pytest.mark.anyio
async def test_again_in_an_async_run() -> None:
    await run_local_async([diamond()])
    report = await run_local_async([diamond()], again=[Node(name="base")])
    assert 4 == report.computed


# ---- forget ----


def test_forgotten_node_counts_as_never_computed() -> None:
    top = pyramid()
    run_local([top])
    assert top.below[0].forget()
    assert not top.below[0].forget()
    assert (False, True) == (top.below[0].exists(), top.exists())
    assert 1 == run_local([top.below[0]]).computed


def test_failed_node_is_forgotten_with_its_attempts() -> None:
    def fail() -> None:
        raise ValueError

    actions["x"] = fail
    with pytest.raises(FuruComputeError):
        run_local([Node(name="x")])
    assert Status.FAILED is Node(name="x").status()
    assert Node(name="x").forget()
    assert Status.TODO is Node(name="x").status()


def test_input_cannot_be_forgotten(tmp_path: Any) -> None:
    from furu import File

    (tmp_path / "a").write_text("a")
    with pytest.raises(FuruUsageError, match="is an input"):
        File(path=tmp_path / "a").forget()  # type: ignore[attr-defined]
