"""What a node logs: into the log file of its own attempt, and on to the host's logging as ever.

Sets no level and no handler on any logger of the host's: the host hears of a node what it asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

_FORMAT = logging.Formatter("%(asctime)s %(levelname)s %(message)s")


class NodeLogger(logging.Logger):
    """The logger of one node. Every level goes to the log of the node's attempt while one runs; the
    host's logger of the same name gets what its own level lets through, and passes it upwards.

    `write_line` returns the function that appends to the attempt's log, or None between attempts. Not
    known to `logging.getLogger`, which keeps what it makes for ever: there may be a million nodes.
    """

    def __init__(self, name: str, write_line: Callable[[], Callable[[str], None] | None]) -> None:
        super().__init__(name, logging.DEBUG)
        self._write_line = write_line
        self._host = logging.getLogger(name)

    def handle(self, record: logging.LogRecord) -> None:
        """Write the record to the attempt's log and hand it on."""
        write = self._write_line()
        if write is not None:
            try:
                write(_FORMAT.format(record))
            except OSError as error:  # a full disk must not fail the node that wanted to say so
                self._host.warning("the attempt's log could not be written: %s", error)
        if self._host.isEnabledFor(record.levelno):
            self._host.handle(record)
