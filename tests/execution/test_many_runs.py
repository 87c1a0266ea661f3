"""A state machine over runs in one process: they start, fail, retry, are cancelled and share nodes.

In every order of these steps, at most one run at a time computes a node, every run finishes, and no limiter
loses a token.
"""

from __future__ import annotations

import concurrent.futures
import tempfile
import threading
from collections import Counter, deque
from contextlib import ExitStack, suppress
from typing import Any
from unittest import mock

import anyio.from_thread
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from furu import Furu, FuruComputeError, Retry, RunReport, run_local_async, use_settings
from furu.execution.workers import ThreadWorkers

LAYERS, WIDTH = 3, 4
OPEN = ThreadWorkers.open


class Bench:
    """Blocks every node in `_create` until the test decides whether the node succeeds or fails."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._verdicts: dict[str, deque[str]] = {}
        self._free = False
        self.computing: Counter[str] = Counter()
        self.overlaps: list[str] = []

    def say(self, name: str, verdict: str) -> None:
        with self._changed:
            self._verdicts.setdefault(name, deque()).append(verdict)
            self._changed.notify_all()

    def free(self) -> None:
        """From now on, let every node without a verdict succeed."""
        with self._changed:
            self._free = True
            self._changed.notify_all()

    def compute(self, name: str) -> None:
        with self._changed:
            self.computing[name] += 1
            if self.computing[name] > 1:
                self.overlaps.append(name)
            verdicts = self._verdicts.setdefault(name, deque())
            assert self._changed.wait_for(lambda: verdicts or self._free, timeout=15)
            verdict = verdicts.popleft() if verdicts else "fine"
            self.computing[name] -= 1
        if verdict != "fine":
            raise {"flaky": ConnectionError, "bad": ValueError}[verdict](name)


bench = Bench()


class Shared(Furu[int]):
    _retry = Retry(attempts=2, on=ConnectionError, delay_sec=0)
    name: str
    below: tuple[Furu[int], ...] = ()

    def _create(self) -> int:
        bench.compute(self.name)
        return sum(node.get() for node in self.below)


class SharedAsync(Shared):
    async def _create(self) -> int:  # type: ignore[override]
        await anyio.to_thread.run_sync(bench.compute, self.name)
        return sum([await node.aget() for node in self.below])


def make_graph() -> list[list[Shared]]:
    """Make layers of nodes, each of which depends on two nodes of the layer below. Every third is async."""
    layers: list[list[Shared]] = []
    for depth in range(LAYERS):
        layer = []
        for number in range(WIDTH):
            cls = SharedAsync if (depth + number) % 3 == 0 else Shared
            below = (layers[-1][number], layers[-1][(number + 1) % WIDTH]) if layers else ()
            layer.append(cls(name=f"{depth}.{number}", below=below))
        layers.append(layer)
    return layers


NAMES = st.sampled_from([f"{depth}.{number}" for depth in range(LAYERS) for number in range(WIDTH)])


class ManyRuns(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self._runs: list[concurrent.futures.Future[RunReport]] = []
        self._crews: list[Any] = []

    @initialize(backend=st.sampled_from(["asyncio", "trio"]))
    def begin(self, backend: str) -> None:
        global bench
        bench = Bench()
        self._store = self._stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        self._stack.enter_context(mock.patch.object(ThreadWorkers, "open", self._open))
        self._portal = self._stack.enter_context(anyio.from_thread.start_blocking_portal(backend))
        self._layers = make_graph()

    def _open(self, *args: Any, **options: Any) -> Any:
        self._crews.append(OPEN(ThreadWorkers(), *args, **options))
        return self._crews[-1]

    @rule(
        depth=st.integers(0, LAYERS - 1),
        numbers=st.lists(st.integers(0, WIDTH - 1), min_size=1, max_size=3),
        window=st.sampled_from(["bfs", "dfs", 2]),
        max_workers=st.integers(1, 3),
        on_failure=st.sampled_from(["stop", "continue"]),
    )
    def start(
        self, depth: int, numbers: list[int], window: str | int, max_workers: int, on_failure: Any
    ) -> None:
        async def run() -> RunReport:
            with use_settings(store=self._store):
                return await run_local_async(
                    [self._layers[depth][number] for number in numbers],
                    window_size=window,
                    max_workers=max_workers,
                    on_failure=on_failure,
                    poll_interval_sec=0.02,
                )

        self._runs.append(self._portal.start_task_soon(run))

    @rule(name=NAMES, verdict=st.sampled_from(["fine", "fine", "fine", "flaky", "bad"]))
    def end_a_node(self, name: str, verdict: str) -> None:
        bench.say(name, verdict)

    @rule(which=st.integers(0, 9))
    def cancel(self, which: int) -> None:
        if self._runs:
            self._runs[which % len(self._runs)].cancel()

    def teardown(self) -> None:
        bench.free()
        try:
            for run in self._runs:
                # Runs that were cancelled or failed have finished too.
                with suppress(FuruComputeError, concurrent.futures.CancelledError):
                    report = run.result(timeout=15)
                    assert 0 == report.failed == report.skipped
            self._check_the_store_is_left_usable()
        finally:
            self._stack.close()
        assert [] == bench.overlaps
        assert {0} >= set(bench.computing.values())
        assert {0} >= {crew._limiter.borrowed_tokens for crew in self._crews}

    def _check_the_store_is_left_usable(self) -> None:
        if not self._runs:
            return

        async def run() -> RunReport:
            with use_settings(store=self._store):
                return await run_local_async(self._layers[-1], on_failure="continue")

        for _ in range(40):  # unused verdicts may remain, so some nodes may still fail
            try:
                self._portal.start_task_soon(run).result(timeout=15)
            except FuruComputeError:
                continue
            return
        raise AssertionError("the graph was never finished")


ManyRuns.TestCase.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
test_runs_that_share_nodes_all_end_and_compute_each_node_once_at_a_time = ManyRuns.TestCase
