"""Logging inside nodes: lines go to the node's log, and the host's logging works as before."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from blockbuster import BlockBuster

from furu import Furu, FuruComputeError, run_local
from furu.store.attempt import Attempt
from tests.graphs import Node, actions, flat, recording

library = logging.getLogger("some.library")


class AsyncTalker(Furu[int]):
    """Logs from the event loop and from a thread."""

    name: str

    async def _create(self) -> int:
        library.warning("%s on the loop", self.name)
        await anyio.to_thread.run_sync(library.warning, f"{self.name} in a thread")
        return 1


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Clear the actions of nodes after each test."""
    with recording():
        yield


def log_of(node: Furu[int]) -> str:
    """Return the log of a node's attempt."""
    return Path(node.furu_dir, "furu.log").read_text(encoding="utf-8")


def test_logging_of_a_library_reaches_the_log_of_the_node_that_calls_it() -> None:
    """A line does not reach the logs of other nodes."""
    roots = flat(2)
    for root in roots:
        actions[root.name] = lambda name=root.name: library.warning("said by %s", name)  # type: ignore[misc]
    run_local(roots)
    for root, other in zip(roots, reversed(roots), strict=True):
        assert f"WARNING some.library: said by {root.name}\n" in log_of(root)
        assert other.name not in log_of(root)


def test_async_nodes_log_from_loop_and_threads_to_their_own_file(no_blocking_calls: BlockBuster) -> None:
    """The guard is off, because a node's log is written on the loop, as by any file handler."""
    no_blocking_calls.deactivate()
    roots = [AsyncTalker(name="a"), AsyncTalker(name="b")]
    run_local(roots)
    for root in roots:
        lines = log_of(root).splitlines()
        assert [f"{root.name} on the loop", f"{root.name} in a thread"] == [
            line.partition("library: ")[2] for line in lines
        ]


def test_thread_of_a_node_logs_with_a_copied_context() -> None:

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
    """The host sees each record once, as without furu."""
    before = (list(logging.root.handlers), logging.root.level)
    (root,) = flat(1)
    actions[root.name] = lambda: library.warning("heard")
    run_local([root])
    assert before == (list(logging.root.handlers), logging.root.level)
    assert ["heard"] == [record.message for record in caplog.records if record.name == "some.library"]


def test_logging_outside_nodes_is_not_written() -> None:
    (root,) = flat(1)
    actions[root.name] = lambda: library.warning("inside")
    run_local([root])
    library.warning("outside")
    assert "outside" not in log_of(root)


def test_own_logger_writes_each_line_once() -> None:
    """The record factory does not write the logger's records a second time."""

    class Own(Furu[int]):
        def _create(self) -> int:
            self.logger.warning("only once")
            return 1

    node = Own()
    run_local([node])
    assert 1 == log_of(node).count("only once")


def test_message_that_does_not_fit_its_arguments_does_not_fail_the_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The host's logging reports the error."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    (root,) = flat(1)
    logger = logging.getLogger("some.library.quiet")
    logger.propagate = False
    actions[root.name] = lambda: logger.warning("%d apples", "no")
    run_local([root])
    assert f"a message that cannot be formatted, of {__file__}:" in log_of(root)


def test_traceback_is_in_the_log_and_not_left_on_the_record() -> None:
    """If the record kept the text, the host's formatter would not format the exception itself."""
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


@pytest.fixture
def factory() -> Iterator[None]:
    """Restore the record factory after the test."""
    before = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(before)


def run_one(act: Callable[[Node], object]) -> str:
    """Run a node that calls `act`, and return its log."""
    root = Node(name=f"one{len(actions)}")
    actions[root.name] = lambda: act(root)
    run_local([root])
    return log_of(root)


def test_child_loggers_of_a_node_write_to_its_log_and_the_host(caplog: pytest.LogCaptureFixture) -> None:

    def act(node: Node) -> None:
        child = node.logger.getChild("part")
        child.warning("from the child")
        logging.LoggerAdapter(node.logger, {"epoch": 1}).warning("from the adapter")
        logging.LoggerAdapter(child.getChild("deeper"), {}).warning("from the grandchild")
        logging.getLogger(f"{node.logger.name}.named").warning("from the named one")
        thread = threading.Thread(target=child.warning, args=("from a thread",))
        thread.start()
        thread.join()

    written = run_one(act)
    for text in ("child", "adapter", "grandchild", "named one"):
        assert 1 == written.count(f"from the {text}\n")
    assert 1 == written.count("from a thread\n")
    assert 5 == len([record for record in caplog.records if record.message.startswith("from ")])
    assert "furu.node.tests.graphs.Node.part" in {record.name for record in caplog.records}


def test_filters_and_handlers_of_a_node_logger_work() -> None:
    handled: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            handled.append(record.getMessage())

    def act(node: Node) -> None:
        logger = node.logger
        logger.addHandler(Handler())
        logger.addFilter(lambda record: "secret" not in record.getMessage())
        logger.warning("a secret")
        logger.warning("in the open")

    assert "secret" not in run_one(act)
    assert ["in the open"] == handled


@pytest.mark.parametrize("values", [{"name": "x", "msg": "m"}, {"name": None, "msg": None}, {}])
def test_record_made_from_a_dict_is_not_logged(values: dict[str, Any]) -> None:
    """Receivers of log records from sockets and queues create a record without a name first."""
    made: list[logging.LogRecord] = []
    assert "None" not in run_one(
        lambda _: (library.warning("here"), made.append(logging.makeLogRecord(values)))
    )
    assert values == {name: getattr(made[0], name) for name in values}


@pytest.mark.usefixtures("factory")
@pytest.mark.parametrize("wraps", [True, False])
def test_factory_set_later_by_the_host_does_not_duplicate_lines(wraps: bool) -> None:
    """The host's factory may or may not call the previous factory."""
    run_one(lambda _: library.warning("before"))
    inner = logging.getLogRecordFactory() if wraps else logging.LogRecord
    made: list[logging.LogRecord] = []

    def make(
        name: Any, level: Any, fn: Any, lno: Any, msg: Any, args: Any, exc: Any, *rest: Any, **more: Any
    ) -> logging.LogRecord:
        record = inner(name, level, fn, lno, msg, args, exc, *rest, **more)
        record.host_made = True
        made.append(record)
        return record

    logging.setLogRecordFactory(make)
    written = run_one(lambda _: library.warning("after"))
    assert 1 == written.count("after\n")
    assert "after" in [record.getMessage() for record in made]


@pytest.mark.usefixtures("factory")
@pytest.mark.parametrize("name", [None, 7, object()])
def test_factory_of_incomplete_records_does_not_fail_the_node(name: Any) -> None:

    class Odd:
        levelno = logging.WARNING

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.name = name

    logger = logging.Logger("odd")
    logger.handle = lambda record: None  # type: ignore[method-assign]

    logging.setLogRecordFactory(Odd)  # type: ignore[arg-type]
    written = run_one(lambda node: (logger.warning("x"), node.furu_dir.joinpath("furu.log").touch()))
    assert ("" if name is None else "a message that cannot be formatted, of ?:?") in written


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), ValueError("closed"), MemoryError()]
)
def test_log_that_cannot_be_written_does_not_fail_the_node(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The host's log gets a warning for each lost line."""

    def fail(self: Attempt, line: str) -> None:
        raise error

    monkeypatch.setattr(Attempt, "log", fail)
    (root,) = flat(1)
    actions[root.name] = lambda: (root.logger.warning("mine"), library.warning("foreign"))
    assert 1 == run_local([root]).computed
    warned = [
        record for record in caplog.records if "the attempt's log could not be written" in record.message
    ]
    assert 2 == len(warned)


def test_log_of_a_failed_node_is_kept() -> None:
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
    no_blocking_calls.deactivate()
    node = AsyncTalker(name="x")
    assert 1 == await node.aget()
    assert "x on the loop" in await asyncio.to_thread(log_of, node)
