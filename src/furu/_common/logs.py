"""Logging from nodes: to the log file of the node's attempt, and to the loggers of the host program.

The levels and handlers of the host's loggers are not changed. A record factory, which wraps the host's
factory, also writes the records of other loggers to the attempt's log while a node runs; a context variable
contains that log. This module takes no locks, because a fork or a signal handler may log at any time.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Any

from furu._common.steps import uninterrupted

WriteLine = Callable[[str], None]

_FORMAT = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
_FOREIGN_FORMAT = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")

# A function that writes a line to the log of the attempt running in this context. None while a record is
# being created or written, so that the record is not written twice.
_ATTEMPT_LOG: ContextVar[WriteLine | None] = ContextVar("furu_attempt_log", default=None)


class NodeLogger(logging.Logger):
    """The logger of one node. While an attempt runs, records of every level are written to the attempt's
    log. The host's logger of the same name receives the records that its own level allows.

    `write_line` returns the function that appends to the attempt's log, or None between attempts. These
    loggers are not created by `logging.getLogger`, which keeps every logger forever: there may be a million
    nodes.
    """

    def __init__(self, name: str, write_line: Callable[[], WriteLine | None]) -> None:
        super().__init__(name, logging.DEBUG)
        self._write_line = write_line
        known = self.manager.loggerDict.get(name)
        # An interrupt within `getLogger` could leave the lock of `logging` locked.
        self._host = known if isinstance(known, logging.Logger) else uninterrupted(logging.getLogger, name)

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802
        """Whether a level is logged. Unlike the base class, does not take the lock of `logging`: an
        interrupt could leave it locked."""
        return not self.disabled and self.manager.disable < level and level >= self.level

    def getChild(self, suffix: str) -> NodeLogger:  # noqa: N802  # logging's name
        """Return a child logger that writes to the log of the same attempt."""
        return NodeLogger(f"{self.name}.{suffix}", self._write_line)

    def makeRecord(self, *args: Any, **kwargs: Any) -> logging.LogRecord:  # noqa: N802
        """Create a record without writing it to the attempt's log. `handle` writes it later, which also
        works in threads without the node's context."""
        with logging_to(None):
            return super().makeRecord(*args, **kwargs)

    def handle(self, record: logging.LogRecord) -> None:
        """Write the record to the attempt's log, and pass it on to the host's logger."""
        passed = self.filter(record)
        if self.disabled or not passed:
            return
        record = passed if isinstance(passed, logging.LogRecord) else record
        write = self._write_line()
        if write is not None:
            _write(write, _FORMAT, record)
        if self.handlers:
            self.callHandlers(record)
        if self._host.isEnabledFor(record.levelno):
            self._host.handle(record)


class logging_to:  # noqa: N801  # used like a function
    """Write all records that any logger creates in a block to an attempt's log; with None, to no log."""

    __slots__ = ("_token", "_write_line")

    def __init__(self, write_line: WriteLine | None) -> None:
        self._write_line = write_line

    def __enter__(self) -> None:
        make_record = logging.getLogRecordFactory()
        if not isinstance(make_record, _RecordFactory):  # the host may have replaced the factory
            logging.setLogRecordFactory(_RecordFactory(make_record))
        self._token: Token[WriteLine | None] = _ATTEMPT_LOG.set(self._write_line)

    def __exit__(self, *_: object) -> None:
        _ATTEMPT_LOG.reset(self._token)


class _RecordFactory:
    """Creates records with the host's factory, and writes them to the attempt's log. If the host's factory
    calls another `_RecordFactory`, only the outermost one writes."""

    def __init__(self, make_record: Callable[..., logging.LogRecord]) -> None:
        self._make_record = make_record

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        write = _ATTEMPT_LOG.get()
        if write is None:
            return self._make_record(*args, **kwargs)
        with logging_to(None):
            record = self._make_record(*args, **kwargs)
        # `logging.makeLogRecord` creates a record without a name, to be filled in later. It logs nothing.
        if getattr(record, "name", None) is not None:
            _write(write, _FOREIGN_FORMAT, record)
        return record


def _write(write: WriteLine, formatter: logging.Formatter, record: logging.LogRecord) -> None:
    """Write a record to an attempt's log. If writing fails, log a warning rather than fail the node."""
    try:
        write(_as_line(formatter, record))
    except Exception as error:
        with logging_to(None):
            logging.getLogger("furu.log").warning("the attempt's log could not be written: %s", error)


def _as_line(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """Format a copy of a record, because formatting modifies a record that the host's handlers also use. If
    the message does not fit its arguments, return a line that says so; the host's handlers report it."""
    try:
        return formatter.format(copy.copy(record))
    except Exception:
        place = f"{getattr(record, 'pathname', '?')}:{getattr(record, 'lineno', '?')}"
        args = ("a message that cannot be formatted, of %s", (place,), None)
        name, level = getattr(record, "name", "?"), getattr(record, "levelno", logging.WARNING)
        return formatter.format(logging.LogRecord(name, level, "", 0, *args))
