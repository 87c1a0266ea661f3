"""A program that cancels work at every step of the event loop, and prints as JSON what was left behind.

    python -m tests.faults.cancellations WORK KINDS BACKEND HOW [EVERY]

WORK names some of `aget`, `run`, `stream` and `follow`, separated by commas, or `all`. KINDS names some of
`interrupt_nodes.KINDS`, or `all`. BACKEND is `asyncio` or `trio`. HOW is `scope` (a cancel scope), `native`
(`Task.cancel()`, on asyncio) or `twice` (`native`, and again three steps later). With EVERY, only each
EVERY-th step is cancelled. Each trial uses a new node and a new loop. After each trial, no task and no
thread token may be left, a second process must not see the node IN_PROGRESS, and a later `get()` must
return its value in time.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import trio

from furu import Furu, FuruComputeError, run_local_async, stream_local
from furu.service import RunCancelledError, Runs
from tests.faults.interrupt_nodes import make
from tests.faults.interrupts import EXAMPLES, MISSES, Findings, kinds_of
from tests.faults.observer import Observer

# How long tasks may take to end after the cancelled call has returned.
SETTLE_SEC = 2.0
# A trial that takes longer hangs.
TRIAL_SEC = 20.0
AGAIN_AFTER = 3


class Steps:
    """Counts the steps of an event loop after `begin`, and calls `act` at the n-th step."""

    def __init__(self, number: int, again_after: int | None) -> None:
        self._wanted = {number} if again_after is None else {number, number + again_after}
        self._seen = 0
        self._act: Callable[[], object] | None = None
        self.hits = 0

    def begin(self, act: Callable[[], object]) -> None:
        """Start counting."""
        self._act = act

    def end(self) -> None:
        """Stop counting."""
        self._act = None

    def step(self) -> None:
        """Count one callback, or one step of a task."""
        if self._act is None:
            return
        self._seen += 1
        if self._seen in self._wanted:
            self.hits += 1
            self._act()


class CountingLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop that counts the callbacks that it runs."""

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self._steps = steps

    def _counted(self, callback: Callable[..., object]) -> Callable[..., object]:
        def call(*args: Any) -> None:
            self._steps.step()
            callback(*args)

        return call

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        return super().call_soon(self._counted(callback), *args, context=context)

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        return super().call_soon_threadsafe(self._counted(callback), *args, context=context)


class Instrument(trio.abc.Instrument):
    """Counts the steps of trio's tasks."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._steps.step()


# ---- the work that is cancelled ----


async def aget(node: Furu[Any]) -> None:
    await node.aget()


async def run(node: Furu[Any]) -> None:
    await run_local_async([node], poll_interval_sec=0.01)


async def stream(node: Furu[Any]) -> None:
    async with stream_local([node], poll_interval_sec=0.01) as events:
        async for _ in events:
            pass


async def follow(node: Furu[Any]) -> None:
    async with Runs(grace_sec=5.0, cancel_sec=5.0) as runs, runs.follow([node]) as followed:
        with contextlib.suppress(RunCancelledError):
            await followed.wait()


WORK: dict[str, Callable[[Furu[Any]], Awaitable[None]]] = {
    work.__name__: work for work in (aget, run, stream, follow)
}


def tasks() -> int:
    """Return the number of tasks of this event loop."""
    with contextlib.suppress(RuntimeError):
        return trio.lowlevel.current_statistics().tasks_living
    return len(asyncio.all_tasks())


async def cancelled_in_scope(work: Callable[[], Awaitable[None]], steps: Steps) -> None:
    with anyio.CancelScope() as scope:
        steps.begin(scope.cancel)
        try:
            await work()
        finally:
            steps.end()


async def cancelled_natively(work: Callable[[], Awaitable[None]], steps: Steps) -> None:
    task = asyncio.ensure_future(work())
    steps.begin(task.cancel)
    try:
        await asyncio.wait([task])
    finally:
        steps.end()
    with contextlib.suppress(asyncio.CancelledError):
        task.result()


async def trial(findings: Findings, work: str, how: str, node: Furu[Any], steps: Steps) -> None:
    """Do the work with a cancellation at one step, and then count the tasks and tokens that are left."""
    # The first use of a thread may start tasks on the loop, so use one before tasks are counted.
    await anyio.to_thread.run_sync(int)
    before, cancelled = tasks(), cancelled_in_scope if how == "scope" else cancelled_natively
    try:
        with anyio.fail_after(TRIAL_SEC):
            await cancelled(lambda: WORK[work](node), steps)
    except TimeoutError:
        findings.note("hangs", f"{work} of {node} did not end within {TRIAL_SEC:g} s of its cancellation")
    except FuruComputeError as error:
        if findings.kind != "failing":
            findings.note("other errors", repr(error))
    except Exception as error:
        findings.note("other errors", repr(error))
    until = time.monotonic() + SETTLE_SEC
    limiter = anyio.to_thread.current_default_thread_limiter()
    while (tasks() > before or limiter.borrowed_tokens) and time.monotonic() < until:
        await anyio.sleep(0.005)
    if tasks() > before:
        findings.note("tasks left", f"{tasks() - before} after {node}")
    if limiter.borrowed_tokens:
        findings.note("tokens left", f"{limiter.borrowed_tokens} after {node}")


def cancel_everywhere(findings: Findings, work: str, backend: str, how: str, every: int) -> None:
    """Cancel at each step in turn, until the work ends before that step."""
    misses = 0
    for number in itertools.count(1, every):
        steps = Steps(number, AGAIN_AFTER if how == "twice" else None)
        number_of_trial = findings.next_trial()
        node = make(findings.kind, number_of_trial)
        options: dict[str, Any] = {"instruments": [Instrument(steps)]}
        if backend == "asyncio":
            options = {"loop_factory": lambda steps=steps: CountingLoop(steps)}
        anyio.run(trial, findings, work, how, node, steps, backend=backend, backend_options=options)
        misses = 0 if steps.hits else misses + 1
        if steps.hits:
            findings.counts["interrupted"] += 1
            findings.check(number_of_trial, f"{work} on {backend}, step {number}")
        if misses >= MISSES or findings.is_hopeless:
            return


def main() -> None:
    """Run the trials that the arguments select, and print the findings."""
    works, kinds, backend, how, *numbers = sys.argv[1:]
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="furu-cancel-", ignore_cleanup_errors=True) as directory:
        os.environ["FURU_PATH"] = directory
        with Observer() as observer:
            findings = Findings(observer)
            for work, kind in itertools.product(
                WORK if works == "all" else works.split(","), kinds_of(kinds)
            ):
                findings.kind = kind
                if not findings.is_hopeless:
                    cancel_everywhere(findings, work, backend, how, int(numbers[0]) if numbers else 1)
    examples = {name: some[:EXAMPLES] for name, some in findings.examples.items()}
    print(json.dumps({"counts": findings.counts, "examples": examples}), flush=True)
    os._exit(0)  # do not wait for threads that hang after a fault


if __name__ == "__main__":
    main()
