"""Computing a node: failures, `_validate`, and the context of `_create`."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import signal
import threading
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar

import msgspec
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


def test_error_of_a_failed_node_is_complete() -> None:
    """The error has the original as its cause, and names the file with the traceback."""
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
    """The dependents of the failed node are not computed."""
    actions["left"] = fail
    with pytest.raises(FuruComputeError) as caught:
        diamond().get()
    assert "left" == caught.value.node.name
    assert ["base", "left"] == record.order


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupt_in_interactive_code_is_raised_unchanged(error: type[BaseException]) -> None:
    """The node is not FAILED."""

    def interrupt() -> None:
        raise error

    actions["a"] = interrupt
    with pytest.raises(error):
        Node(name="a").get()
    assert Status.TODO is Node(name="a").status()
    actions.clear()
    assert 1 == Node(name="a").get()


class Unprintable:
    """An object for a field outside identity, whose `__repr__` raises."""

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


# Values that have a hash, but are hard to show as text.
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
def test_field_whose_repr_raises_does_not_prevent_computing(name: str) -> None:
    node = Annotated(**AWKWARD[name])
    assert 1 == node.get()
    assert Status.DONE is node.status()
    assert 1 == node.get()


@pytest.mark.parametrize("name", AWKWARD)
def test_field_whose_repr_raises_does_not_hide_the_nodes_error(name: str) -> None:
    """The node's own error is the cause, and the node is FAILED."""
    node = Annotated(**AWKWARD[name], fails=True)
    with pytest.raises(FuruComputeError) as caught:
        node.get()
    assert "bad split" == str(caught.value.__cause__)
    assert Status.FAILED is node.status()


@pytest.mark.parametrize("name", AWKWARD)
def test_node_with_a_field_whose_repr_raises_has_a_repr(name: str) -> None:
    assert describe(Annotated(**AWKWARD[name])).startswith("Annotated(")


def test_small_results_of_large_configurations_can_be_read_back() -> None:
    """`max_result_bytes` limits the result, not the configuration."""
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
def test_any_exception_of_a_node_is_the_cause_and_is_recorded(error: Exception) -> None:
    """This includes exceptions that are hard to format."""

    def raise_it() -> None:
        raise error

    actions["a"] = raise_it
    with pytest.raises(FuruComputeError) as caught:
        Node(name="a").get()
    assert error is caught.value.__cause__
    assert Status.FAILED is Node(name="a").status()
    assert 5000 > len(str(caught.value))


def test_node_that_was_changed_after_it_was_made_is_not_computed() -> None:

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
    """The message is the same as that of `get`."""
    node = Holder(value=[1])
    node.value.append(2)
    with pytest.raises(FuruError, match="was changed after it was made"):
        await node.aget()
    with pytest.raises(FuruError, match="was changed after it was made"):
        await furu.run_local_async([node])


@dataclasses.dataclass
class Open:
    """A dataclass whose fields can be assigned."""

    rate: float


@dataclasses.dataclass(frozen=True)
class Closed:
    """A frozen dataclass, whose field may hold a value that can be modified."""

    inside: Any


class Struct(msgspec.Struct):
    rate: float


class Registered:
    def __init__(self) -> None:
        self.rate = 1.0


furu.register_canonical_form(Registered, lambda value: value.rate)


@pytest.mark.parametrize(
    ("value", "change"),
    [
        ({"a": 1}, lambda value: value.update(a=2)),
        ({1}, lambda value: value.add(2)),
        (bytearray(b"a"), lambda value: value.extend(b"b")),
        (Open(1.0), lambda value: setattr(value, "rate", 2.0)),
        (Closed([1]), lambda value: value.inside.append(2)),
        ((1, (Open(1.0),)), lambda value: setattr(value[1][0], "rate", 2.0)),
        (frozenset([Closed(Registered())]), lambda value: setattr(next(iter(value)).inside, "rate", 2.0)),
        (Struct(1.0), lambda value: setattr(value, "rate", 2.0)),
        (Registered(), lambda value: setattr(value, "rate", 2.0)),
    ],
    ids=[
        "dict",
        "set",
        "bytearray",
        "dataclass",
        "inside frozen",
        "deep",
        "frozenset",
        "struct",
        "registered",
    ],
)
def test_change_of_any_value_that_can_be_modified_is_noticed(
    value: Any, change: Callable[[Any], object]
) -> None:
    node = Holder(value=value)
    change(value)
    with pytest.raises(FuruError, match="was changed after it was made"):
        node.get()


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
    """A DONE node, whose artifact a test may declare invalid."""
    Checked.good[0] = True
    Checked.computed.clear()
    node = Checked()
    assert 1 == node.get()
    return node


def test_artifact_that_validate_rejects_counts_as_missing(checked: Checked) -> None:
    """The rejected artifact is replaced once."""
    Checked.good[0] = False
    assert (False, Status.TODO) == (checked.exists(), checked.status())
    assert 2 == checked.get()
    assert (True, Status.DONE, 2) == (checked.exists(), checked.status(), checked.get())


def test_rejected_dependency_is_computed_again_for_a_missing_dependent(checked: Checked) -> None:

    class Above(Furu[int]):
        below: Checked

        def _create(self) -> int:
            return 10 * self.below.get()

    Checked.good[0] = False
    assert 20 == Above(below=checked).get()


def test_validate_is_called_only_for_a_published_artifact() -> None:
    """Therefore `_validate` need not check whether its files exist."""

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


def test_validate_that_rejects_the_new_artifact_fails_the_node() -> None:
    """Otherwise every `get` would compute the node again."""

    class Never(Furu[int]):
        def _create(self) -> int:
            return 1

        def _validate(self) -> bool:
            return False

    with pytest.raises(FuruComputeError, match=r"_validate\(\) rejects the artifact of _create\(\)"):
        Never().get()


# ---- other guarantees ----


def test_registered_type_counts_in_the_hash() -> None:
    """A node with a value of a registered type is computed like any other node."""

    class Grid:
        def __init__(self, size: int) -> None:
            self.size = size

    register_canonical_form(Grid, lambda grid: grid.size)
    assert Holder(value=Grid(1)) == Holder(value=Grid(1)) != Holder(value=Grid(2))
    assert 1 == Holder(value=Grid(1)).get() == Holder(value=Grid(1)).get()


def test_context_is_interactive_inside_and_after_create(record: Computed) -> None:
    seen: list[ExecContext] = []
    actions["a"] = lambda: seen.append(EXEC_CONTEXT.get())
    Node(name="a").get()
    assert [ExecContext()] == seen
    assert ExecContext("interactive", None, None, None) == EXEC_CONTEXT.get()


@pytest.mark.parametrize("raises", [False, True])
def test_context_variables_set_by_create_are_reset_after_it(raises: bool) -> None:
    """This holds whether `_create` returns or raises."""
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
    """In the main thread, only a call of `_setup_signal_handlers` changes them."""
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


def test_hash_of_a_node_does_not_depend_on_the_hash_seed() -> None:
    """Python's `hash` of a node is derived from `furu_hash`, so it is the same in every process."""
    node = Node(name="a")
    assert int(node.furu_hash[:15], 16) == hash(node)
    assert collections.Counter([node, Node(name="a")]) == {node: 2}


def test_failed_node_is_computed_again_by_the_next_get(record: Computed) -> None:
    actions["a"] = fail
    with contextlib.suppress(FuruComputeError):
        Node(name="a").get()
    actions.clear()
    assert 1 == Node(name="a").get()
    assert ["a", "a"] == record.order


def test_artifact_of_a_node_is_its_place_in_the_store() -> None:
    node = chain(1)
    node.get()
    assert Path(node._artifact().files.done).is_file()
