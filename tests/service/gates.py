"""A gate that blocks an async node until the test opens it."""

from __future__ import annotations

import anyio

from tests.graphs import actions


class Gate:
    """Blocks the async node called `name` until `opened` is set. Sets `begun` when the node starts."""

    def __init__(self, name: str) -> None:
        self.begun, self.opened = anyio.Event(), anyio.Event()
        actions[name] = self._pass

    async def _pass(self) -> None:
        self.begun.set()
        await self.opened.wait()
