"""Waking an event loop from a thread, once for any number of calls until it has woken."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
import threading
from collections.abc import Callable
from typing import Any


class Waker:
    """Made on a loop; `wake()` from any thread, or a signal handler, has `function` called there soon.

    The function runs in the context in which the waker was made, whatever thread wakes it. Calls before the
    function runs are one call. After the loop has closed nothing is called.
    """

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._context = contextvars.copy_context()
        self._call_soon = _call_soon_on_this_loop()
        self._pending = False
        self._lock = threading.RLock()  # a signal handler may interrupt its holder

    def wake(self) -> None:
        """Have the function called on the loop, unless that is on its way."""
        with self._lock:
            if self._pending:
                return
            self._pending = True
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._call_soon(self._run)

    def _run(self) -> None:
        # Cleared first: news that comes from here on is either seen by the function or calls it again.
        with self._lock:
            self._pending = False
        self._context.run(self._function)


def _call_soon_on_this_loop() -> Callable[[Callable[[], None]], Any]:
    try:
        return asyncio.get_running_loop().call_soon_threadsafe
    except RuntimeError:
        trio = sys.modules["trio"]  # the one other loop that anyio runs on
        call_soon: Callable[[Callable[[], None]], Any] = trio.lowlevel.current_trio_token().run_sync_soon
        return call_soon
