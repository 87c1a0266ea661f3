"""What is logged inside a node: where it goes, and what stays as it was."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio.to_thread
import pytest
from blockbuster import BlockBuster

from furu import Furu, FuruComputeError, run_local

from .graphs import Node, actions, flat, recording

library = logging.getLogger("some.library")


class AsyncTalker(Furu[int]):
    """Logs from the loop, a task, and a thread."""

    name: str

    async def _create(self) -> int:
        library.warning("%s on the loop", self.name)
        await anyio.to_thread.run_sync(library.warning, f"{self.name} in a thread")
        return 1


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """No actions are left behind."""
    with recording():
        yield


def log_of(node: Furu[int]) -> str:
    """What a node's attempt logged."""
    return Path(node.furu_dir, "furu.log").read_text(encoding="utf-8")


def test_logging_of_a_library_reaches_the_log_of_the_node_that_calls_it() -> None:
    """And of no other."""
    roots = flat(2)
    for root in roots:
        actions[root.name] = lambda name=root.name: library.warning("said by %s", name)  # type: ignore[misc]
    run_local(roots)
    for root, other in zip(roots, reversed(roots), strict=True):
        assert f"WARNING some.library: said by {root.name}\n" in log_of(root)
        assert other.name not in log_of(root)


def test_async_nodes_log_from_loop_and_threads_to_their_own_file(no_blocking_calls: BlockBuster) -> None:
    """Side by side on one loop. As any file handler does, it writes where it is called."""
    no_blocking_calls.deactivate()
    roots = [AsyncTalker(name="a"), AsyncTalker(name="b")]
    run_local(roots)
    for root in roots:
        lines = log_of(root).splitlines()
        assert [f"{root.name} on the loop", f"{root.name} in a thread"] == [
            line.partition("library: ")[2] for line in lines
        ]


def test_thread_of_the_node_s_own_logs_with_a_copied_context() -> None:
    """As the how-to says."""

    def work() -> None:
        thread = threading.Thread(
            target=contextvars.copy_context().run, args=(library.warning, "from a thread")
        )
        thread.start()
        thread.join()

    (root,) = flat(1)
    actions[root.name] = work
    run_local([root])
    assert "from a thread" in log_of(root)


def test_root_logger_keeps_its_handlers_and_level(caplog: pytest.LogCaptureFixture) -> None:
    """The host hears what it would hear without furu, once."""
    before = (list(logging.root.handlers), logging.root.level)
    (root,) = flat(1)
    actions[root.name] = lambda: library.warning("heard")
    run_local([root])
    assert before == (list(logging.root.handlers), logging.root.level)
    assert ["heard"] == [record.message for record in caplog.records if record.name == "some.library"]


def test_logging_outside_of_nodes_is_written_nowhere() -> None:
    """The context variable is reset."""
    (root,) = flat(1)
    actions[root.name] = lambda: library.warning("inside")
    run_local([root])
    library.warning("outside")
    assert "outside" not in log_of(root)


def test_own_logger_writes_each_line_once() -> None:
    """Its records are not written a second time by the factory."""

    class Own(Furu[int]):
        def _create(self) -> int:
            self.logger.warning("only once")
            return 1

    node = Own()
    run_local([node])
    assert 1 == log_of(node).count("only once")


def test_message_that_does_not_fit_its_arguments_fails_no_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is the host's logging that complains, in its own way."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    (root,) = flat(1)
    logger = logging.getLogger("some.library.quiet")
    logger.propagate = False
    actions[root.name] = lambda: logger.warning("%d apples", "no")
    run_local([root])
    assert f"a message that cannot be formatted, of {__file__}:" in log_of(root)


def test_traceback_is_in_the_log_and_not_left_on_the_record() -> None:
    """The host's own formatter makes its own text of an exception."""
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    def fail() -> None:
        try:
            raise KeyError("lost")
        except KeyError:
            alone.exception("caught")

    alone = logging.getLogger("some.library.alone")
    alone.propagate = False
    handler = Keep()
    alone.addHandler(handler)
    try:
        (root,) = flat(1)
        actions[root.name] = fail
        run_local([root])
    finally:
        alone.removeHandler(handler)
    assert "KeyError: 'lost'" in log_of(root)
    assert [None] == [record.exc_text for record in records]


def test_log_of_a_failed_node_is_kept() -> None:
    """That is when it is read."""
    node = Node(name="bad")

    def fail() -> None:
        library.error("just before")
        raise ValueError("no")

    actions["bad"] = fail
    with pytest.raises(FuruComputeError):
        run_local([node])
    assert "just before" in log_of(node)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_interactive_get_logs_too(no_blocking_calls: BlockBuster) -> None:
    """Computing is the same wherever it happens."""
    no_blocking_calls.deactivate()
    node = AsyncTalker(name="x")
    assert 1 == await node.aget()
    assert "x on the loop" in await asyncio.to_thread(log_of, node)
