"""What a node logs: into the log file of its own attempt, and on to the host's logging.

Sets no level and no handler on the host's loggers, so the host receives what it asked for. What other
loggers let through inside a node is seen by a record factory around the host's own; a context variable
holds where the attempt's log is. Takes no lock of its own: a fork or a signal handler may log at any time.
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

# Where the node that is computed here logs to. None also while a record is made or written on its behalf,
# so that no record is written twice.
_ATTEMPT_LOG: ContextVar[WriteLine | None] = ContextVar("furu_attempt_log", default=None)


class NodeLogger(logging.Logger):
    """The logger of one node. Every level goes to the log of the node's attempt while one runs; the
    host's logger of the same name gets what its own level lets through, and passes it upwards.

    `write_line` returns the function that appends to the attempt's log, or None between attempts. Not
    known to `logging.getLogger`, which keeps every logger that it makes: there may be a million nodes.
    """

    def __init__(self, name: str, write_line: Callable[[], WriteLine | None]) -> None:
        super().__init__(name, logging.DEBUG)
        self._write_line = write_line
        known = self.manager.loggerDict.get(name)
        # An interrupt in the midst of `getLogger` would leave logging's own lock taken.
        self._host = known if isinstance(known, logging.Logger) else uninterrupted(logging.getLogger, name)

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802
        """Whether a level is logged; without logging's lock, for the same reason."""
        return not self.disabled and self.manager.disable < level and level >= self.level

    def getChild(self, suffix: str) -> NodeLogger:  # noqa: N802  # logging's name
        """Return a logger below this one, which writes to the log of the same attempt."""
        return NodeLogger(f"{self.name}.{suffix}", self._write_line)

    def makeRecord(self, *args: Any, **kwargs: Any) -> logging.LogRecord:  # noqa: N802
        """Make a record that `handle` alone writes, also in threads that have no context."""
        with logging_to(None):
            return super().makeRecord(*args, **kwargs)

    def handle(self, record: logging.LogRecord) -> None:
        """Write the record to the attempt's log and hand it on."""
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
    """Have all that is logged in a block, by any logger, written to an attempt's log, or to none."""

    __slots__ = ("_token", "_write_line")

    def __init__(self, write_line: WriteLine | None) -> None:
        self._write_line = write_line

    def __enter__(self) -> None:
        make_record = logging.getLogRecordFactory()
        if not isinstance(make_record, _RecordFactory):  # the host may have set another one since
            logging.setLogRecordFactory(_RecordFactory(make_record))
        self._token: Token[WriteLine | None] = _ATTEMPT_LOG.set(self._write_line)

    def __exit__(self, *_: object) -> None:
        _ATTEMPT_LOG.reset(self._token)


class _RecordFactory:
    """Makes records as the host's own factory does, and writes them to the log of the attempt, if any. If
    the host's factory calls another of these, only the outermost one writes."""

    def __init__(self, make_record: Callable[..., logging.LogRecord]) -> None:
        self._make_record = make_record

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        write = _ATTEMPT_LOG.get()
        if write is None:
            return self._make_record(*args, **kwargs)
        with logging_to(None):
            record = self._make_record(*args, **kwargs)
        # `logging.makeLogRecord` fills a record without a name later; nothing was logged by that.
        if getattr(record, "name", None) is not None:
            _write(write, _FOREIGN_FORMAT, record)
        return record


def _write(write: WriteLine, formatter: logging.Formatter, record: logging.LogRecord) -> None:
    """Write a record to an attempt's log. A node does not fail because its log cannot be written."""
    try:
        write(_as_line(formatter, record))
    except Exception as error:
        with logging_to(None):
            logging.getLogger("furu.log").warning("the attempt's log could not be written: %s", error)


def _as_line(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """Format a copy of a record, because formatting leaves traces that the host's formatters would find.
    The host's handlers report a message that does not fit its arguments, so here it is no error."""
    try:
        return formatter.format(copy.copy(record))
    except Exception:
        place = f"{getattr(record, 'pathname', '?')}:{getattr(record, 'lineno', '?')}"
        args = ("a message that cannot be formatted, of %s", (place,), None)
        name, level = getattr(record, "name", "?"), getattr(record, "levelno", logging.WARNING)
        return formatter.format(logging.LogRecord(name, level, "", 0, *args))
