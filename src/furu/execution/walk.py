"""Drives discovery during a run: one step at a time, in a worker thread.

A root is read only when the window has room for it. A node that another owner is computing is checked again
when its next check is due. The scheduler processes each batch on the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import anyio
import anyio.to_thread

from furu.execution.discovery import Batch, Source
from furu.execution.elsewhere import Elsewhere
from furu.execution.window import Window
from furu.node.base import Node

__all__ = ["Walk"]


class Walk:
    """Drives discovery for one run, and calls functions of the scheduler on the loop: `take` with each
    batch, `deliver` with an exception that a step raised, and `stepped` after each step.

    `is_walking` is True while there is more to walk or a step is running, `is_exhausted` once all roots
    have been read, and `is_stepping` while a step is running in its thread.
    """

    def __init__(
        self,
        discovery: Source,
        window: Window,
        *,
        take: Callable[[Batch], None],
        deliver: Callable[[BaseException], None],
        stepped: Callable[[], object],
    ) -> None:
        self._discovery = discovery
        self._window = window
        self._take = take
        self._deliver = deliver
        self._stepped = stepped
        self.is_walking = True
        self.is_exhausted = False
        self._is_stopping = False
        self._step_scope: anyio.CancelScope | None = None
        self._wanted = anyio.Event()
        self._again: list[Node[Any]] = []

    @property
    def is_stepping(self) -> bool:
        return self._step_scope is not None

    def want(self) -> None:
        """Make the walk check again whether there is a root to read or a node of another owner to check."""
        self._wanted.set()

    def look_again(self, node: Node[Any]) -> None:
        """Look at a node of the plan once more: it may be done, or have more dependencies."""
        self._again.append(node)
        self.want()

    def stop(self) -> None:
        """Begin no more steps, and make a running step return early."""
        self._is_stopping = True
        self._discovery.stop()

    def abandon(self) -> None:
        """Stop waiting for a running step. It finishes in its thread, and its result is ignored."""
        if self._step_scope is not None:
            self._step_scope.cancel()

    async def run(self, elsewhere: Elsewhere) -> None:
        """Walk until `stop` is called or a step raises an exception."""
        limiter = anyio.CapacityLimiter(1)
        try:
            while not self._is_stopping:
                room, again = self._window.room(), [*self._again, *elsewhere.take_due()]
                self._again.clear()
                if not (self.is_walking or again) and (self.is_exhausted or room == 0):
                    await self._wait_wanted(elsewhere)
                    continue
                self.is_walking = True
                batch = await self._next_batch(room, again, limiter)
                if not isinstance(batch, Batch):
                    if batch is not None:
                        self._deliver(batch)
                    return
                # No `await` before all of this is done, because the next step depends on it.
                self.is_walking, self.is_exhausted = not batch.idle, batch.exhausted
                self._take(batch)
        except Exception as error:
            self._deliver(error)

    async def _next_batch(
        self, room: int | None, again: Sequence[Node[Any]], limiter: anyio.CapacityLimiter
    ) -> Batch | BaseException | None:
        """Run the next step. Returns its batch or its exception, or None if the step was abandoned."""
        try:
            with anyio.CancelScope(shield=True) as self._step_scope:
                return await anyio.to_thread.run_sync(
                    self._step, room, again, abandon_on_cancel=True, limiter=limiter
                )
            return None
        finally:
            self._step_scope = None
            self._stepped()

    def _step(self, room: int | None, again: Sequence[Node[Any]]) -> Batch | BaseException:
        """Run a step, in a worker thread. An exception is returned instead of raised, because a raised
        `CancelledError` from the caller's code would look like a cancellation by the loop."""
        try:
            return self._discovery.step(room, again)
        except BaseException as error:
            return error

    async def _wait_wanted(self, elsewhere: Elsewhere) -> None:
        self._wanted = anyio.Event()
        with anyio.move_on_at(elsewhere.next_look):
            await self._wanted.wait()
