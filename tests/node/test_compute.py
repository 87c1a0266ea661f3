"""Computing a node: failures, `_validate`, and the context of `_create`."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import signal
import threading
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar

import pytest

import furu
from furu import (
    EXEC_CONTEXT,
    ExecContext,
    Failure,
    Furu,
    FuruComputeError,
    FuruError,
    Status,
    register_canonical_form,
    use_settings,
)
from furu.node.base import describe
from tests.graphs import Computed, Node, actions, chain, diamond
from tests.node.nodes import Holder, fail

# ---- failing ----


def test_failed_node_says_which_with_what_where_and_what_next() -> None:
    """One error, the original as its cause, the traceback in the file that it names."""
    actions["a"] = fail
    node = Node(name="a")
    with pytest.raises(FuruComputeError) as caught:
        node.get()
    error = caught.value
    assert isinstance(error.__cause__, ValueError)
    assert node is error.node
    assert [Failure(node, error.__cause__, error.state_path, str(error))] == list(error.failures)
    assert error.report is None
    assert error.state_path is not None
    assert (
        str(error)
        == f"{node!r} failed: ValueError: bad split. State: {error.state_path}. Run again to retry."
    )
    assert "in fail" in error.state_path.read_text()


def test_failed_dependency_is_the_node_of_the_error(record: Computed) -> None:
    """Nothing above it is tried."""
    actions["left"] = fail
    with pytest.raises(FuruComputeError) as caught:
        diamond().get()
    assert "left" == caught.value.node.name
    assert ["base", "left"] == record.order


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupt_in_a_users_own_code_stays_what_it_is(error: type[BaseException]) -> None:
    """It is the user's, not the node's: the node is not FAILED."""

    def interrupt() -> None:
        raise error

    actions["a"] = interrupt
    with pytest.raises(error):
        Node(name="a").get()
    assert Status.TODO is Node(name="a").status()
    actions.clear()
    assert 1 == Node(name="a").get()


class Unprintable:
    """An object for a field outside identity, which nobody can print."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Annotated(Furu[int]):
    value: Any = None
    note: Any = dataclasses.field(default=None, compare=False, repr=False)
    fails: bool = False

    def _create(self) -> int:
        if self.fails:
            raise ValueError("bad split")
        return 1


# Values that have a hash, and that are hard to show to people.
AWKWARD = {
    "lone surrogate": {"value": "\ud800"},
    "surrogate as a key": {"value": {"\ud800": 1}},
    "path that is not UTF-8": {"value": Path("\udcff")},
    "huge int": {"value": 10**5000},
    "huge int in a list": {"value": [10**5000]},
    "no repr": {"note": Unprintable()},
    "text of two MiB": {"value": "x" * 2**21},
    "NaN": {"value": float("nan")},
    "nested at the limit": {"value": eval("[" * 90 + "]" * 90)},
}


@pytest.mark.parametrize("name", AWKWARD)
def test_field_that_is_hard_to_show_does_not_keep_a_node_from_being_computed(name: str) -> None:
    """A configuration is written next to the result for people; the result matters more."""
    node = Annotated(**AWKWARD[name])
    assert 1 == node.get()
    assert Status.DONE is node.status()
    assert 1 == node.get()


@pytest.mark.parametrize("name", AWKWARD)
def test_field_that_is_hard_to_show_does_not_hide_why_a_node_failed(name: str) -> None:
    """The node's own error is the cause, and the node is FAILED: nobody waits for it."""
    node = Annotated(**AWKWARD[name], fails=True)
    with pytest.raises(FuruComputeError) as caught:
        node.get()
    assert "bad split" == str(caught.value.__cause__)
    assert Status.FAILED is node.status()


@pytest.mark.parametrize("name", AWKWARD)
def test_field_that_is_hard_to_show_has_a_repr(name: str) -> None:
    """Messages about a node must not fail before they are made."""
    assert describe(Annotated(**AWKWARD[name])).startswith("Annotated(")


def test_small_results_of_large_configurations_can_be_read_back() -> None:
    """The setting limits the result, not what was asked for."""
    node = Annotated(value="x" * 2**21)
    with use_settings(max_result_bytes=100):
        assert 1 == node.get()
        assert 1 == node.get()


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no str")


@pytest.mark.parametrize(
    "error",
    [ValueError("\ud800"), ValueError("x" * 2**21), UnprintableError(), ValueError(), ValueError("a\nb")],
    ids=["surrogate", "two MiB", "no str", "empty", "two lines"],
)
def test_whatever_a_node_raises_is_the_cause_and_is_recorded(error: Exception) -> None:
    """Even where its message is hard to write down."""

    def raise_it() -> None:
        raise error

    actions["a"] = raise_it
    with pytest.raises(FuruComputeError) as caught:
        Node(name="a").get()
    assert error is caught.value.__cause__
    assert Status.FAILED is Node(name="a").status()
    assert 5000 > len(str(caught.value))


def test_node_that_was_changed_after_it_was_made_is_not_computed() -> None:
    """Its hash would stand for what it no longer is."""

    class Listing(Furu[int]):
        items: list[int]

        def _create(self) -> int:
            return len(self.items)

    node = Listing(items=[1])
    node.items.append(2)
    with pytest.raises(FuruError, match=r"was changed after it was made.*make another node"):
        node.get()
    assert not node.exists()
    node.items.pop()
    assert 1 == node.get()
    changed_deep = Holder(value={"a": [{"b": set()}]})
    changed_deep.value["a"][0]["b"].add(1)
    with pytest.raises(FuruError, match="was changed"):
        changed_deep.get()


@pytest.mark.anyio
async def test_changed_node_is_not_computed_by_aget_or_a_run_either() -> None:
    """The same words."""
    node = Holder(value=[1])
    node.value.append(2)
    with pytest.raises(FuruError, match="was changed after it was made"):
        await node.aget()
    with pytest.raises(FuruError, match="was changed after it was made"):
        await furu.run_local_async([node])


# ---- _validate ----


class Checked(Furu[int]):
    name: str = "a"
    good: ClassVar[list[bool]] = [True]
    computed: ClassVar[list[int]] = []

    def _create(self) -> int:
        self.computed.append(1)
        self.good[0] = True
        return len(self.computed)

    def _validate(self) -> bool:
        return self.good[0]


@pytest.fixture
def checked() -> Checked:
    """A node that is DONE, and whose artifact a test may declare invalid."""
    Checked.good[0] = True
    Checked.computed.clear()
    node = Checked()
    assert 1 == node.get()
    return node


def test_artifact_that_validate_rejects_counts_as_missing(checked: Checked) -> None:
    """And is replaced, once."""
    Checked.good[0] = False
    assert (False, Status.TODO) == (checked.exists(), checked.status())
    assert 2 == checked.get()
    assert (True, Status.DONE, 2) == (checked.exists(), checked.status(), checked.get())


def test_rejected_dependency_is_computed_again_for_what_is_above(checked: Checked) -> None:
    """By a get() of something missing that stands on it."""

    class Above(Furu[int]):
        below: Checked

        def _create(self) -> int:
            return 10 * self.below.get()

    Checked.good[0] = False
    assert 20 == Above(below=checked).get()


def test_validate_is_asked_only_where_there_is_something_to_validate() -> None:
    """It may look at the files without checking that there are any."""

    class Filed(Furu[int]):
        def _create(self) -> int:
            (self.furu_dir / "a").write_text("x")
            return 1

        def _validate(self) -> bool:
            return (self.furu_dir / "a").read_text() == "x"

    node = Filed()
    assert (False, Status.TODO) == (node.exists(), node.status())
    assert 1 == node.get()
    (node.furu_dir / "a").write_text("y")
    assert not node.exists()
    assert 1 == node.get()
    assert "x" == (node.furu_dir / "a").read_text()


def test_validate_that_rejects_what_create_has_just_made_fails_the_node() -> None:
    """It would be made for ever."""

    class Never(Furu[int]):
        def _create(self) -> int:
            return 1

        def _validate(self) -> bool:
            return False

    with pytest.raises(FuruComputeError, match=r"_validate\(\) rejects the artifact of _create\(\)"):
        Never().get()


# ---- and the rest of the contract ----


def test_registered_type_is_shown_in_the_record_and_counts_in_the_hash() -> None:
    """A node with a foreign value is computed like any other."""

    class Grid:
        def __init__(self, size: int) -> None:
            self.size = size

    register_canonical_form(Grid, lambda grid: grid.size)
    assert Holder(value=Grid(1)) == Holder(value=Grid(1)) != Holder(value=Grid(2))
    assert 1 == Holder(value=Grid(1)).get() == Holder(value=Grid(1)).get()


def test_create_without_side_effects_on_the_context(record: Computed) -> None:
    """In a user's own code the context stays interactive, inside and after."""
    seen: list[ExecContext] = []
    actions["a"] = lambda: seen.append(EXEC_CONTEXT.get())
    Node(name="a").get()
    assert [ExecContext()] == seen
    assert ExecContext("interactive", None, None, None) == EXEC_CONTEXT.get()


@pytest.mark.parametrize("raises", [False, True])
def test_what_create_sets_in_its_context_ends_with_it(raises: bool) -> None:
    """However it ends, the context of its caller is as it was."""
    variable: ContextVar[str] = ContextVar("variable", default="the caller's")

    def set_and_end() -> None:
        variable.set("the node's")
        if raises:
            raise ValueError("bad")

    actions["a"] = set_and_end
    with contextlib.suppress(FuruComputeError):
        Node(name="a").get()
    assert "the caller's" == variable.get()


def test_signal_handlers_are_not_touched_outside_the_main_thread() -> None:
    """And in it only on request."""
    before = signal.getsignal(signal.SIGTERM)
    errors: list[BaseException] = []

    def call() -> None:
        try:
            Furu._setup_signal_handlers()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert [] == errors
    assert before == signal.getsignal(signal.SIGTERM)
    try:
        Furu._setup_signal_handlers()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_hash_seed_does_not_reach_pythons_hash_of_a_node() -> None:
    """Sets of nodes iterate alike in every process."""
    node = Node(name="a")
    assert int(node.furu_hash[:15], 16) == hash(node)
    assert collections.Counter([node, Node(name="a")]) == {node: 2}


def test_no_class_is_kept_alive_by_its_nodes_being_asked(record: Computed) -> None:
    """A failing block leaves nothing running: the same node can be computed at once."""
    actions["a"] = fail
    with contextlib.suppress(FuruComputeError):
        Node(name="a").get()
    actions.clear()
    assert 1 == Node(name="a").get()
    assert ["a", "a"] == record.order


def test_place_of_a_node_in_the_store_is_where_its_artifact_lies() -> None:
    node = chain(1)
    node.get()
    assert Path(node._artifact().files.done).is_file()
