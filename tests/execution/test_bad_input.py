"""Bad input to a run raises an error that says what is allowed, before any node is computed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from blockbuster import BlockBuster

from furu import (
    FuruComputeError,
    FuruRunningLoopError,
    FuruUsageError,
    plan_local,
    run_local,
    run_local_async,
)
from tests.graphs import AsyncNode, Computed, Node, diamond, flat, recording


@pytest.fixture(autouse=True)
def nothing_is_computed() -> Iterator[Computed]:
    """Check that no test of this module computes a node."""
    with recording() as computed:
        yield computed
        assert [] == computed.order


@pytest.mark.parametrize("limit", ["max_workers", "max_async"])
@pytest.mark.parametrize("call", [run_local, plan_local])
@pytest.mark.parametrize("wrong", [True, False, "8", 1.5, None])
def test_limits_of_a_wrong_type_are_rejected(call: Any, limit: str, wrong: Any) -> None:
    """A bool is rejected although it is an int."""
    with pytest.raises(TypeError, match=f"{limit} must be an int, not {wrong!r}"):
        call([diamond()], **{limit: wrong})


@pytest.mark.parametrize("limit", ["max_workers", "max_async"])
@pytest.mark.parametrize("call", [run_local, plan_local])
@pytest.mark.parametrize("wrong", [0, -1])
def test_limits_below_one_are_rejected(call: Any, limit: str, wrong: int) -> None:
    """With a limit of zero the run could never finish."""
    with pytest.raises(ValueError, match=f"{limit} must be 1 or more, not {wrong}"):
        call([diamond()], **{limit: wrong})


@pytest.mark.parametrize("wrong", [0, -1, "", "depth", "3"])
def test_wrong_window_sizes_are_rejected(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"window_size must be 'dfs' .* 'bfs' .* int of 1 or more"):
        run_local([diamond()], window_size=wrong)


@pytest.mark.parametrize("wrong", [True, 1.5, None])
def test_window_sizes_of_a_wrong_type_are_rejected(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"window_size must be 'dfs' .* 'bfs' .* int of 1 or more"):
        run_local([diamond()], window_size=wrong)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (0, ValueError),
        (-1.0, ValueError),
        (float("inf"), ValueError),
        (float("nan"), ValueError),
        ("1", TypeError),
        (None, TypeError),
        (True, TypeError),
    ],
)
def test_poll_interval_must_be_a_positive_number(wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="poll_interval_sec must be a positive number of seconds"):
        run_local([diamond()], poll_interval_sec=wrong)


def test_unknown_on_failure_is_rejected() -> None:
    """The message names both allowed values."""
    with pytest.raises(ValueError, match="on_failure must be 'stop' or 'continue', not 'ignore'"):
        run_local([diamond()], on_failure="ignore")  # type: ignore[arg-type]


def test_unknown_order_is_rejected() -> None:
    with pytest.raises(ValueError, match="order must be 'roots' or 'critical-path', not 'random'"):
        run_local([diamond()], order="random")  # type: ignore[arg-type]


@pytest.mark.parametrize("call", [run_local, plan_local])
@pytest.mark.parametrize(
    ("roots", "message"),
    [
        (diamond(), r"iterable of Furu nodes: write \[Node\(...\)\] for one"),
        ("abc", "iterable of Furu nodes, not a str"),
        (b"abc", "iterable of Furu nodes, not a bytes"),
        ({"a": diamond()}, "iterable of Furu nodes, not a dict"),
        (7, "iterable of Furu nodes, not an int"),
        (None, "iterable of Furu nodes, not a NoneType"),
        ([diamond(), "abc"], r"roots\[1\] is a str: 'abc'"),
        ([None], r"roots\[0\] is a NoneType: None"),
        ([Node], r"roots\[0\] is the class Node; make a node of it: Node\(...\)"),
        ([[diamond()]], r"roots\[0\] is a list"),
    ],
)
def test_non_node_roots_are_rejected(roots: Any, message: str, call: Any) -> None:
    """The message gives the root's index and its type. A list is checked before any node is computed."""
    with pytest.raises(FuruUsageError, match=message):
        call(roots)


def test_generator_that_yields_a_non_node_is_an_error() -> None:

    def roots() -> Iterator[Any]:
        yield "not a node"

    with pytest.raises(FuruUsageError, match=r"roots\[0\] is a str: 'not a node'"):
        run_local(roots(), window_size=1)


@pytest.mark.anyio
async def test_run_local_inside_a_running_loop_names_the_right_call() -> None:
    """The message is the same on asyncio and on trio."""
    with pytest.raises(FuruRunningLoopError, match=r"use `await run_local_async\(...\)`"):
        run_local([diamond()])


def test_run_local_in_a_callback_of_a_loop_names_the_right_call() -> None:
    """A callback runs on the loop outside any task."""
    seen: list[BaseException] = []

    async def main() -> None:
        def callback() -> None:
            try:
                run_local([diamond()])
            except RuntimeError as error:
                seen.append(error)

        asyncio.get_running_loop().call_soon(callback)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert [FuruRunningLoopError] == [type(error) for error in seen]


@pytest.mark.anyio
async def test_sync_get_of_an_async_node_on_a_running_loop_names_the_right_call(
    no_blocking_calls: BlockBuster,
) -> None:
    """The call would block the loop on which the node has to run."""
    no_blocking_calls.deactivate()  # a sync get() is a blocking call
    with pytest.raises(FuruRunningLoopError, match=r"use `await node.aget\(\)`"):
        AsyncNode(name="a").get()


@pytest.mark.anyio
async def test_run_local_async_rejects_the_same_input() -> None:
    """The same code checks the input of both functions."""
    with pytest.raises(ValueError, match="max_workers"):
        await run_local_async(flat(1), max_workers=0)
    with pytest.raises(FuruUsageError, match="roots"):
        await run_local_async(diamond())  # type: ignore[arg-type]


def test_spec_key_must_be_a_str() -> None:
    """The error names the node."""

    class Keyless(Node):
        def _executor_spec_key(self) -> Any:
            return None

    with pytest.raises(
        FuruComputeError, match=r"Keyless\(.*_executor_spec_key\(\) must return a non-empty str"
    ):
        run_local([Keyless(name="k")])
