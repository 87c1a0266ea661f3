"""Reports artifacts that were made by other code, once for each class and run."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import furu.events as events
from furu.node.changes import CODE_CHANGES, CodeChanges
from furu.observing.report import Sink
from furu.report import CodeChange

__all__ = ["ChangeReporter"]

logger = logging.getLogger("furu.code")


class ChangeReporter:
    """A sink for the events of a run. When all nodes are known, and at the end of the run, it logs and
    emits what the run has found out by then."""

    def __init__(self, changes: CodeChanges) -> None:
        self._changes = changes
        self.emit: Sink | None = None
        self._reported: set[str] = set()

    def __call__(self, event: events.Event) -> None:
        """Report changes if this event says that the plan is known."""
        if isinstance(event, events.PlanKnown):
            self.report()

    @property
    def found(self) -> tuple[CodeChange, ...]:
        """The changes so far."""
        return self._changes.found()

    def report(self) -> None:
        """Report the classes that have not been reported yet."""
        for change in self.found:
            if change.node_class not in self._reported:
                self._reported.add(change.node_class)
                logger.warning("%s", change)
                if self.emit is not None:
                    self.emit(events.CodeChanged(change))

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """Compare what is loaded in this context, and in the threads of the run."""
        token = CODE_CHANGES.set(self._changes)
        try:
            yield
        finally:
            CODE_CHANGES.reset(token)
