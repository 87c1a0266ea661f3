"""A program that does many runs of every kind with many stores in one process, and reports what grew.

    python -m tests.faults.soak [RUNS] [SEED] [WITHOUT ...]

WITHOUT leaves out kinds of work: names of `WORK`, or of node classes in `soak_nodes`. Exits with 1 if the
process has more descriptors, threads, tasks, children or objects at the end than in the second quarter, if
memory grows, or if a value, a status or an error was wrong.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import faulthandler
import functools
import logging
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import trio

from furu import (
    Furu,
    FuruCancelledError,
    Status,
    current_settings,
    run_local,
    run_local_async,
    stream_local,
    use_settings,
)
from furu.execution.workers import ProcessWorkers
from furu.service import RunCancelledError, Runs
from tests.faults.observer import Observer
from tests.faults.samples import LATE_SEC, Samples
from tests.faults.soak_nodes import FAILING, FORKING, STEADY, Flaky, draw, may_fail, roots_of, value_of

Nodes = list[Furu[int]]


STORES = 500


SAMPLES = 40


# The number of stores in use at once. Older stores are not used again, and every second one is removed.
LIVE_STORES = 12


# The number of runs that share an event loop, so that tasks that outlive their run are noticed.
LOOP_RUNS = 10


# A run that takes longer hangs. The stacks of all threads are printed, and the process exits.
HANG_SEC = 90


class Soak:
    """The stores, the counts and the problems of a soak."""

    def __init__(self, runs: int, seed: int, without: set[str], directory: str, observer: Observer) -> None:
        self.runs = runs
        self.chance = random.Random(seed)
        self.counts: collections.Counter[str] = collections.Counter()
        self.problems: collections.Counter[str] = collections.Counter()
        self.examples: dict[str, str] = {}
        self.most_tasks = 0
        self.done = 0
        self._directory = Path(directory)
        self._observer = observer
        self._live: collections.deque[Path] = collections.deque()
        self._made = 0
        self._now, self._began = "the first run", time.monotonic()
        self.steady = tuple(kind for kind in STEADY if kind.__name__ not in without)
        self.forking = tuple(kind for kind in FORKING if kind.__name__ not in without)
        self.failing = tuple(kind for kind in FAILING if kind.__name__ not in without)
        self.flaky = () if "Flaky" in without else (Flaky,)

    def watch(self, name: str, nodes: Nodes) -> None:
        """Start the time limit of a run."""
        self._now = f"run {self.done}: {name} of {nodes}"
        self._began = time.monotonic()

    def end_if_it_hangs(self) -> None:
        """Run in a thread. When a run hangs, print its name and the stacks of all threads, and exit."""
        while time.monotonic() - self._began < HANG_SEC:
            time.sleep(1)
        print(f"HANGS    {self._now}", flush=True)
        faulthandler.dump_traceback(all_threads=True)
        shutil.rmtree(self._directory, ignore_errors=True)
        os._exit(1)

    def problem(self, kind: str, example: object) -> None:
        """Count a problem, and keep the first example."""
        self.problems[kind] += 1
        self.examples.setdefault(kind, f"run {self.done}: {example}"[:2000])

    def store(self) -> Path:
        """Return a store. New stores are added evenly over the runs."""
        if not self._live or self._made < STORES * (self.done + 1) / self.runs:
            self._live.append(self._directory / f"store-{self._made}")
            self._made += 1
            if len(self._live) > LIVE_STORES:
                old = self._live.popleft()
                if self._made % 2:
                    shutil.rmtree(old, ignore_errors=True)
        return self.chance.choice(self._live)

    def nodes(self, *extra: type[Furu[int]]) -> Nodes:
        """Return a random graph of steady nodes, sometimes forking nodes, and the given kinds."""
        kinds = [*self.steady, *extra]
        if self.forking and self.chance.random() < 0.15:
            kinds.append(self.chance.choice(self.forking))
        return draw(self.chance, self.done, tuple(kinds))

    def options(self) -> dict[str, Any]:
        """Return random options of a run."""
        chosen: dict[str, Any] = {
            "max_workers": self.chance.choice([1, 2, 4]),
            "window_size": self.chance.choice(["bfs", "dfs", 2]),
            "on_failure": self.chance.choice(["stop", "continue"]),
            "poll_interval_sec": 0.02,
        }
        if self.chance.random() < 0.4:
            chosen["grace_sec"] = self.chance.choice([0.0, 0.02, 0.5])
        return chosen

    def check(self, store: Path, nodes: Nodes) -> None:
        """Check the values of DONE nodes, and that another process sees no node in progress."""
        with use_settings(store=store):
            for node in nodes:
                if node.status() is Status.DONE:
                    value = node.get()
                    if value != value_of(node):
                        self.problem("wrong value", f"{node} is {value}, not {value_of(node)}")
                    self.counts["values checked"] += 1
        if self.chance.random() < 0.25:
            self._check_from_outside(store, nodes)

    def _check_from_outside(self, store: Path, nodes: Nodes) -> None:
        until = time.monotonic() + LATE_SEC
        while True:
            statuses = self._observer.statuses([(str(store), node) for node in nodes])
            stuck = [node for node, status in zip(nodes, statuses, strict=True) if status == "IN_PROGRESS"]
            if not stuck or time.monotonic() > until:
                break
            time.sleep(0.05)
        self.counts["statuses seen by another process"] += len(nodes)
        if stuck:
            self.problem("IN_PROGRESS for another process", f"{stuck} in {store}")

    def failed(self, error: BaseException, nodes: Nodes, *, interactive: bool = False) -> None:
        """Count a failure. It is a problem if no node of the graph may fail."""
        self.counts["runs that failed"] += 1
        if not may_fail(nodes, interactive=interactive):
            self.problem("unexpected error", f"{error!r} from {error.__cause__!r}")


# ---- work without an event loop ----


def thread_run(soak: Soak, nodes: Nodes) -> None:
    """Run a graph twice. The second run has nothing to do."""
    options = soak.options()
    run_local(roots_of(nodes), **options)
    report = run_local(roots_of(nodes), **options)
    if report.computed:
        soak.problem("computed again", report)


def generated_run(soak: Soak, nodes: Nodes) -> None:
    """Run roots from a generator, which may raise an error."""
    raises = soak.chance.random() < 0.3

    def generate() -> Iterator[Furu[int]]:
        yield from roots_of(nodes)
        if raises:
            raise LookupError("no more")

    try:
        run_local(generate(), **{**soak.options(), "window_size": soak.chance.choice(["dfs", 2, 3])})
    except LookupError:
        if not raises:
            raise


def runs_in_threads(soak: Soak, nodes: Nodes) -> None:
    """Run the same roots three times at once."""
    errors: list[BaseException] = []
    settings = current_settings()

    def go(options: dict[str, Any]) -> None:
        try:
            with use_settings(settings):
                run_local(roots_of(nodes), **options)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=go, args=(soak.options(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def process_run(soak: Soak, nodes: Nodes) -> None:
    """Run nodes in child processes."""
    run_local(roots_of(nodes), **{**soak.options(), "workers": ProcessWorkers(), "max_workers": 2})


def interactive(soak: Soak, nodes: Nodes) -> None:
    """Get each root in interactive code."""
    for root in roots_of(nodes):
        root.get()


# ---- work on an event loop of asyncio or trio ----


async def async_run(soak: Soak, nodes: Nodes) -> None:
    await run_local_async(roots_of(nodes), **soak.options())


async def cancelled_run(soak: Soak, nodes: Nodes) -> None:
    """Cancel a run by the deadline of a scope."""
    with anyio.move_on_after(soak.chance.uniform(0.0, 0.03)) as scope:
        await run_local_async(roots_of(nodes), **soak.options())
    soak.counts["runs cancelled"] += scope.cancelled_caught


async def cancelled_natively(soak: Soak, nodes: Nodes) -> None:
    """Cancel the task of a run or of an `aget()`. On trio, cancel a scope."""
    root = roots_of(nodes)[0]
    work: Callable[[], Any] = (
        root.aget
        if soak.chance.random() < 0.5
        else functools.partial(run_local_async, roots_of(nodes), **soak.options())
    )
    if _backend() == "trio":
        with anyio.move_on_after(soak.chance.uniform(0.0, 0.02)):
            await work()
        return
    task = asyncio.ensure_future(work())
    await asyncio.sleep(soak.chance.uniform(0.0, 0.02))
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        soak.counts["tasks cancelled"] += 1


async def left_stream(soak: Soak, nodes: Nodes) -> None:
    """Leave a stream after some events, or read it to its end."""
    leave_after = soak.chance.choice([0, 1, 3, 10**9])
    async with stream_local(
        roots_of(nodes), buffer_events=soak.chance.choice([1, 100]), **soak.options()
    ) as events:
        number = 0
        async for _ in events:
            number += 1
            if number > leave_after:
                soak.counts["streams left"] += 1
                break


async def interactive_async(soak: Soak, nodes: Nodes) -> None:
    """Get all roots at once with `aget()`."""
    async with anyio.create_task_group() as tasks:
        for root in roots_of(nodes):
            tasks.start_soon(root.aget)


async def service(soak: Soak, nodes: Nodes) -> None:
    """Follow a run twice. One of the followers leaves early."""
    async with Runs(max_running=2, grace_sec=1.0, cancel_sec=0.05) as runs:

        async def follow(sec: float) -> None:
            with anyio.move_on_after(sec), contextlib.suppress(RunCancelledError):
                async with runs.follow(roots_of(nodes)) as run:
                    await run.wait()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow, soak.chance.uniform(0.0, 0.02))
            tasks.start_soon(follow, soak.chance.choice([0.03, 30.0]))


WORK: dict[str, Callable[[Soak, Nodes], Any]] = {
    work.__name__: work
    for work in (
        thread_run,
        generated_run,
        runs_in_threads,
        process_run,
        interactive,
        async_run,
        cancelled_run,
        cancelled_natively,
        left_stream,
        interactive_async,
        service,
    )
}


SYNC = ("thread_run", "generated_run", "runs_in_threads", "process_run", "interactive")


# The weights of kinds of work, 1 by default. Processes are slow.
SHARES = {"process_run": 0.1}


INTERACTIVE = ("interactive", "interactive_async", "cancelled_natively")


def _backend() -> str:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return "trio"
    return "asyncio"


def _draw_work(soak: Soak, names: list[str]) -> tuple[str, Nodes]:
    name = soak.chance.choices(names, [SHARES.get(name, 1.0) for name in names])[0]
    extra: tuple[type[Furu[int]], ...] = ()
    if soak.chance.random() < 0.3:
        extra += soak.flaky
    if soak.failing and soak.chance.random() < 0.3:
        extra += (soak.chance.choice(soak.failing),)
    if name == "process_run":
        extra = tuple(kind for kind in extra if kind.__name__ != "ForkPool")
    return name, soak.nodes(*extra)


def _outcome(soak: Soak, name: str, nodes: Nodes, error: BaseException | None) -> None:
    soak.counts[name] += 1
    if error is None:
        return
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, BaseExceptionGroup):
        error = next((one for one in error.exceptions if not isinstance(one, FuruCancelledError)), error)
    soak.failed(error, nodes, interactive=name in INTERACTIVE)


def sync_batch(soak: Soak, names: list[str]) -> None:
    """Do some runs without an event loop of this program."""
    for _ in range(LOOP_RUNS):
        name, nodes = _draw_work(soak, names)
        soak.watch(name, nodes)
        store, error = soak.store(), None
        try:
            with use_settings(store=store):
                WORK[name](soak, nodes)
        except Exception as raised:
            error = raised.with_traceback(None)
        _outcome(soak, name, nodes, error)
        soak.check(store, nodes)
        soak.done += 1


async def async_batch(soak: Soak, names: list[str]) -> None:
    """Do some runs on one event loop. After each run, check that no other tasks are left."""
    await anyio.lowlevel.checkpoint()
    before = _tasks()
    for _ in range(LOOP_RUNS):
        name, nodes = _draw_work(soak, names)
        soak.watch(name, nodes)
        store, error = soak.store(), None
        try:
            with use_settings(store=store):
                await WORK[name](soak, nodes)
        except Exception as raised:
            error = raised.with_traceback(None)
        _outcome(soak, name, nodes, error)
        del error
        until = time.monotonic() + LATE_SEC
        while (more := _tasks() - before) > 0 and time.monotonic() < until:
            await anyio.sleep(0.01)
        if more > soak.most_tasks:
            soak.most_tasks = more
            soak.problem("tasks left", f"{more} after {name} on {_backend()}")
        soak.check(store, nodes)  # this blocks the loop, which has no other tasks
        soak.done += 1


def _tasks() -> int:
    if _backend() == "asyncio":
        return len(asyncio.all_tasks())
    return trio.lowlevel.current_statistics().tasks_living


# ---- the report ----


def report(soak: Soak, samples: Samples, took: float) -> bool:
    """Print the counts, the growth and the problems. Return whether all is well."""
    print(f"\n{soak.done:,} runs in {took:.0f} s")
    for name, number in sorted(soak.counts.items()):
        print(f"{number:>9,}  {name}")
    print("\nfrom the second quarter to the last, by medians:")
    for name in ("descriptors", "threads", "python threads", "tasks", "children"):
        print(f"{samples.growth(name):>+9,.0f}  {name}")
    print(f"{samples.slope('resident'):>+9,.0f}  bytes of memory a run, over the last half")
    grown = samples.grown(soak.runs)
    for name, text in grown.items():
        print(f"GREW     {name}: {text}")
    for kind, number in soak.problems.items():
        print(f"PROBLEM  {number:,} times {kind}; first: {soak.examples[kind]}")
    well = not grown and not soak.problems
    print("all is well" if well else "NOT well")
    return well


def main() -> None:
    """Run the soak, and print the report."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    without = set(sys.argv[3:])
    logging.disable(logging.CRITICAL)
    names = [name for name in WORK if name not in without]
    sync_names = [name for name in names if name in SYNC]
    async_names = [name for name in names if name not in SYNC]
    samples, started = Samples(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="furu-soak-", ignore_cleanup_errors=True) as directory:
        os.environ["FURU_PATH"] = f"{directory}/never"
        os.environ["FURU_SOAK_MARKERS"] = f"{directory}/markers"
        os.mkdir(f"{directory}/markers")
        with Observer() as observer:
            soak = Soak(runs, seed, without, directory, observer)
            threading.Thread(target=soak.end_if_it_hangs, daemon=True, name="soak-watch").start()
            next_sample = 0.0
            while soak.done < runs:
                if sync_names:
                    sync_batch(soak, sync_names)
                for backend in ("asyncio", "trio"):
                    if async_names:
                        anyio.run(async_batch, soak, async_names, backend=backend)
                if soak.done >= next_sample:
                    samples.take(soak.done, soak.most_tasks)
                    soak.most_tasks = 0
                    next_sample += runs / SAMPLES
            if os.path.exists(f"{directory}/never"):
                soak.problem("another store was used", os.listdir(f"{directory}/never"))
        well = report(soak, samples, time.monotonic() - started)
    sys.stdout.flush()
    os._exit(not well)  # do not wait for threads that a fault has left behind


if __name__ == "__main__":
    main()
