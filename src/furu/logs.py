"""What a node logs: into the log file of its own attempt, and on to the host's logging as ever.

Sets no level and no handler on any logger of the host's: the host hears of a node what it asked for. What
other loggers let through inside a node is found by a record factory around the host's own, which asks a
context variable where the attempt's log is.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

WriteLine = Callable[[str], None]

_FORMAT = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
_FOREIGN_FORMAT = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
_PREFIX = "furu.node."

# Where the node that is computed here logs to.
_ATTEMPT_LOG: ContextVar[WriteLine | None] = ContextVar("furu_attempt_log", default=None)
_installing = threading.Lock()
_installed = False


class NodeLogger(logging.Logger):
    """The logger of one node. Every level goes to the log of the node's attempt while one runs; the
    host's logger of the same name gets what its own level lets through, and passes it upwards.

    `write_line` returns the function that appends to the attempt's log, or None between attempts. Not
    known to `logging.getLogger`, which keeps what it makes for ever: there may be a million nodes.
    """

    def __init__(self, name: str, write_line: Callable[[], WriteLine | None]) -> None:
        super().__init__(name, logging.DEBUG)
        self._write_line = write_line
        self._host = logging.getLogger(name)

    def handle(self, record: logging.LogRecord) -> None:
        """Write the record to the attempt's log and hand it on."""
        write = self._write_line()
        if write is not None:
            try:
                write(_as_line(_FORMAT, record))
            except OSError as error:  # a full disk must not fail the node that wanted to say so
                self._host.warning("the attempt's log could not be written: %s", error)
        if self._host.isEnabledFor(record.levelno):
            self._host.handle(record)


@contextmanager
def logging_to(write_line: WriteLine) -> Iterator[None]:
    """Have all that is logged in this context, by whatever logger, written to an attempt's log."""
    _install()
    token = _ATTEMPT_LOG.set(write_line)
    try:
        yield
    finally:
        _ATTEMPT_LOG.reset(token)


def _install() -> None:
    """Wrap the record factory of this process, once."""
    global _installed
    if _installed:
        return
    with _installing:
        if _installed:
            return
        make_record = logging.getLogRecordFactory()

        def make_and_write(*args: Any, **kwargs: Any) -> logging.LogRecord:
            record = make_record(*args, **kwargs)
            write = _ATTEMPT_LOG.get()
            # A node's own logger writes by itself, also from threads that have no context.
            if write is not None and not record.name.startswith(_PREFIX):
                try:
                    write(_as_line(_FOREIGN_FORMAT, record))
                except OSError as error:
                    host = logging.getLogger(f"{_PREFIX}log")
                    host.warning("the attempt's log could not be written: %s", error)
            return record

        logging.setLogRecordFactory(make_and_write)
        _installed = True


def _as_line(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """Format a record, a copy of it: formatting leaves traces that the host's own formatters would find.
    Of a message that does not fit its arguments the host's handlers complain, so here it fails nobody."""
    record = copy.copy(record)
    try:
        return formatter.format(record)
    except Exception:
        record.msg, record.args = (
            "a message that cannot be formatted, of %s:%d",
            (record.pathname, record.lineno),
        )
        record.exc_info = None
        return formatter.format(record)
