"""Event loops, asyncio's or trio's: whether one runs here, and doing off it what would block it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

# Threads for what touches the disk, per event loop.
_DISK_THREADS = 8
_disk_limiter: RunVar[anyio.CapacityLimiter] = RunVar("furu_disk_limiter")
# Threads for nodes that `aget()` computes: as many as anyio has by default. What they wait for needs none.
_LONG_THREADS = 40
_long_limiter: RunVar[anyio.CapacityLimiter] = RunVar("furu_long_limiter")


async def in_thread(function: Callable[[*Ts], R], *args: *Ts) -> R:
    """Do what touches the disk off the event loop, under a limiter that the host's own threads cannot
    use up: a host thread may be waiting for this very node."""
    try:
        limiter = _disk_limiter.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_DISK_THREADS)
        _disk_limiter.set(limiter)
    return await anyio.to_thread.run_sync(function, *args, limiter=limiter)


async def in_own_thread(function: Callable[[*Ts], R], *args: *Ts) -> R:
    """Do what may take long, or wait for a node, in a thread that no disk operation waits for."""
    try:
        limiter = _long_limiter.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_LONG_THREADS)
        _long_limiter.set(limiter)
    return await anyio.to_thread.run_sync(function, *args, limiter=limiter)


async def shielded(function: Callable[[*Ts], R], *args: *Ts) -> R:
    """`in_thread` to its end, cancelled or not: a claim that nobody remembers would hold the node up
    for as long as this process lives."""
    with anyio.CancelScope(shield=True):
        return await in_thread(function, *args)
    raise AssertionError("nothing cancels this scope, so it swallows nothing")


def loop_is_running() -> bool:
    """Whether this thread runs an event loop right now, asyncio's or trio's."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        trio = sys.modules.get("trio")
        return trio is not None and trio.lowlevel.in_trio_run()
    return True
