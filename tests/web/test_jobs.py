"""Jobs: which functions clients may start, and with which arguments."""

from __future__ import annotations

from typing import Any

import pytest

from furu import FuruUsageError
from furu.web import JobInputError, job
from tests.graphs import Node


def make(name: str, below: int = 0, *, tags: tuple[str, ...] = ()) -> list[Node]:
    """Make a root with some nodes below it, and a root for each tag."""
    if below > 5:
        raise ValueError("at most 5 below")
    return [Node(name=name, below=tuple(Node(name=f"{name}{i}") for i in range(below))), *map(_node, tags)]


def _node(name: str) -> Node:
    return Node(name=name)


def test_arguments_are_decoded_as_annotated() -> None:
    """Arguments with a default may be omitted."""
    one = job("make", make)
    assert ["a"] == [root.name for root in one.make_roots(b'{"name": "a"}')]  # type: ignore[attr-defined]
    roots = one.make_roots(b'{"name": "a", "below": 2, "tags": ["x", "y"]}')
    assert make("a", 2, tags=("x", "y")) == list(roots)
    assert {"name": "str", "below": "int", "tags": "tuple[str, ...]"} == one.parameters()


def test_job_function_may_return_a_single_node() -> None:

    def single(name: str) -> Node:
        return Node(name=name)

    assert (Node(name="a"),) == job("single", single).make_roots(b'{"name": "a"}')


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "missing required field `name`"),
        (b"[]", "Expected `object`"),
        (b'{"name": 1}', r"Expected `str`, got `int` - at `\$.name`"),
        (b'{"name": "a", "below": "2"}', "Expected `int`"),
        (b'{"name": "a", "__class__": "os.system"}', "unknown field `__class__`"),
        (b'{"name": "a", "below": 9}', "refuses these arguments: at most 5 below"),
        (b'{"name": ' + b"[" * 100_000, "cannot be used"),
        (b'{"name": "\xff"}', "cannot be used"),
        (b"{", "truncated"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_bad_arguments_are_job_input_errors_that_say_why(body: bytes, why: str) -> None:
    with pytest.raises(JobInputError, match=why):
        job("make", make).make_roots(body)


def test_other_errors_of_a_job_function_are_not_job_input_errors() -> None:

    def broken() -> Node:
        raise KeyError("x")

    with pytest.raises(KeyError):
        job("broken", broken).make_roots(b"")
    with pytest.raises(FuruUsageError, match="must return nodes"):
        job("odd", lambda: 7).make_roots(b"")  # type: ignore[arg-type,return-value]


def _untyped(a) -> Any:  # type: ignore[no-untyped-def]
    return a


def _many(*names: str) -> Any:
    return names


def _foreign(node: complex) -> Any:
    return node


async def _coroutine() -> Any:
    return None


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("a/b", make),
        ("", make),
        (7, make),
        ("x" * 65, make),
        ("a", None),
        ("a", _untyped),
        ("a", _many),
        ("a", _foreign),
        ("a", _coroutine),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_bad_job_is_rejected_when_it_is_created(name: Any, function: Any) -> None:
    """The error is not delayed until the first request."""
    with pytest.raises(FuruUsageError):
        job(name, function)


def test_wrong_values_of_on_disconnect_are_rejected() -> None:
    with pytest.raises(ValueError, match="'cancel' or 'finish'"):
        job("make", make, on_disconnect="ignore")  # type: ignore[arg-type]
