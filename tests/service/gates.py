"""Async nodes that a test holds for a while."""

from __future__ import annotations

import anyio

from tests.graphs import actions


class Gate:
    """Holds the async node called `name` until `opened` is set; sets `begun` when the node starts."""

    def __init__(self, name: str) -> None:
        self.begun, self.opened = anyio.Event(), anyio.Event()
        actions[name] = self._pass

    async def _pass(self) -> None:
        self.begun.set()
        await self.opened.wait()
