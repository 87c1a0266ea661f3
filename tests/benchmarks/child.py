"""One measurement in a process of its own: `python -m tests.benchmarks.child NAME JSON`.

A fresh process each: no other's heap, threads or imports. Prints one line of JSON.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread

from furu import Furu, run_local, run_local_async, use_settings
from tests.benchmarks.by_hand import WORKERS, bare_anyio, by_hand
from tests.benchmarks.graphs import SHAPES, Edges, layered, sinks
from tests.benchmarks.nodes import Small, began, ended, make_plain, make_sleeping, make_small
from tests.benchmarks.peers import PEERS

_PROBE_SEC = 0.001


def furu_cold(edges: Edges, store: str) -> None:
    """Objects, identity and run."""
    run_local(roots_of(edges), max_workers=WORKERS)


ENGINES: dict[str, Callable[[Edges, str], None]] = {
    "furu": furu_cold,
    "by hand": by_hand,
    "bare anyio": bare_anyio,
    **PEERS,
}


def roots_of(edges: Edges) -> list[Small]:
    nodes = make_small(edges)
    return [nodes[number] for number in sinks(edges)]


def cold(store: str, engine: str, shape: str, size: int) -> dict[str, float]:
    """Compute a graph of which nothing is there."""
    edges = SHAPES[shape](size)
    run = ENGINES[engine]
    started = time.perf_counter()
    run(edges, store)
    return {"node_us": (time.perf_counter() - started) / size * 1e6}


def warm(store: str, size: int) -> dict[str, float]:
    """Ask for nodes that are all roots and all DONE, beyond what making plain objects costs."""
    edges: Edges = [()] * size
    run_local(make_small(edges))
    started = time.perf_counter()
    make_plain(edges)
    plain_sec = time.perf_counter() - started
    gc.collect()
    started = time.perf_counter()
    report = run_local(make_small(edges))
    seconds = time.perf_counter() - started
    assert report.reused == size, report
    return {"node_us": (seconds - plain_sec) / size * 1e6}


def pruned(store: str, size: int) -> dict[str, float]:
    """Ask for a graph whose root is DONE; how many nodes the run says something of."""
    edges = SHAPES["chain"](size)
    root = roots_of(edges)[0]
    run_local([root])
    report = run_local([root])
    return {"nodes": report.reused + report.computed}


def lag(store: str, size: int) -> dict[str, float]:
    """How late a task on the loop is woken, while small nodes run and while nothing does."""
    edges = layered(size)

    async def both() -> dict[str, float]:
        idle = await _lag_while(anyio.sleep, 1.0)
        busy = await _lag_while(run_local_async, roots_of(edges))
        return {
            "p99_ms": _percentile(busy, 99) * 1e3,
            "max_ms": max(busy) * 1e3,
            "idle_p99_ms": _percentile(idle, 99) * 1e3,
            "idle_max_ms": max(idle) * 1e3,
        }

    return anyio.run(both)


async def _lag_while(function: Callable[..., Any], *args: Any) -> list[float]:
    lags: list[float] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_probe, lags)
        await anyio.sleep(0.01)
        await function(*args)
        tasks.cancel_scope.cancel()
    return lags


async def _probe(lags: list[float]) -> None:
    while True:
        before = time.perf_counter()
        await anyio.sleep(_PROBE_SEC)
        lags.append(time.perf_counter() - before - _PROBE_SEC)


def start(store: str, layers: int) -> dict[str, float]:
    """From the end of a node's last dependency to its own beginning, nodes of 10 ms, threads to spare."""
    edges = layered(4 * layers, width=4)
    nodes = make_sleeping(edges, 0.01)
    run_local([nodes[number] for number in sinks(edges)], max_workers=WORKERS)
    gaps = [began[n] - max(ended[number] for number in below) for n, below in enumerate(edges) if below]
    return {"p50_ms": statistics.median(gaps) * 1e3, "p99_ms": _percentile(gaps, 99) * 1e3}


def makespan(store: str, whole: bool) -> dict[str, float]:
    """10 layers of 16 nodes that sleep 50 ms, each on three of the layer before or on the whole of it, on
    8 workers: as a ratio to the least time possible."""
    edges = layered(160, width=16)
    if whole:
        edges = [tuple(range(n // 16 * 16 - 16, n // 16 * 16)) if n >= 16 else () for n in range(160)]
    nodes = make_sleeping(edges, 0.05)
    started = time.perf_counter()
    run_local([nodes[number] for number in sinks(edges)], max_workers=8)
    return {"ratio": (time.perf_counter() - started) / max(10 * 0.05, 160 * 0.05 / 8)}


def window(store: str, size: int) -> dict[str, float]:
    """Roots from a generator through a window of 1,000; what stays behind of each."""
    sizes: list[int] = []

    def roots() -> Iterator[Furu[int]]:
        for number in range(size):
            if number % (size // 10) == 0:
                sizes.append(_resident_bytes())
            yield Small(number=number)
        sizes.append(_resident_bytes())

    started = time.perf_counter()
    report = run_local(roots(), window_size=1000)
    seconds = time.perf_counter() - started
    assert report.computed == size, report
    kept = (sizes[-1] - sizes[1]) / (size * 0.9)
    return {"node_us": seconds / size * 1e6, "kept_bytes": kept}


def planning(store: str, size: int, collect: bool) -> dict[str, float]:
    """Plan a layered graph on a loop that is watched, with or without Python's cyclic collector; compute
    nothing.

    A first node below all others holds everything up. The generator of roots is read on when all below
    the first root, which is all, has been found.
    """
    edges: Edges = [(0,) if not below else tuple(n + 1 for n in below) for below in layered(size - 2)]
    edges = [(), *edges]
    edges.append(tuple(sinks(edges)))
    started = time.perf_counter()
    nodes: list[Any] = [Held(number=-1)]
    for below in edges[1:]:
        nodes.append(Small(number=len(nodes), below=tuple([nodes[n] for n in below])))
    made_sec, made_bytes = time.perf_counter() - started, _resident_bytes()
    root = nodes.pop()
    del nodes, edges
    if not collect:
        gc.disable()
    figures = {"made_sec": made_sec}

    def roots(done: Callable[[], object]) -> Iterator[Furu[int]]:
        yield root
        done()

    async def plan() -> None:
        lags: list[float] = []
        started = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_probe, lags)

            def planned() -> None:
                figures["plan_sec"] = time.perf_counter() - started
                figures["max_lag_ms"] = max(lags) * 1e3
                figures["node_bytes"] = (_resident_bytes() - made_bytes) / size
                figures["peak_mib"] = _peak_mib()
                tasks_cancel()

            tasks_cancel = _cancel_from_thread(tasks.cancel_scope)
            await run_local_async(roots(planned), window_size=2)

    anyio.run(plan)
    return figures


def _cancel_from_thread(scope: anyio.CancelScope) -> Callable[[], object]:
    def cancel() -> None:
        Held.released = True
        anyio.from_thread.run_sync(scope.cancel)

    return cancel


class Held(Small):
    """Computes until it is stopped."""

    released = False

    def _create(self) -> int:
        while not Held.released:
            time.sleep(0.01)
        return 0


def _percentile(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) * percent // 100, len(values) - 1)]


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:  # not on macOS; the peak is, which only grows
        return int(_peak_mib() * 2**20)


def _peak_mib() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says includes the parent's at the fork
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


MEASUREMENTS: dict[str, Callable[..., dict[str, float]]] = {
    function.__name__: function for function in (cold, warm, pruned, lag, start, makespan, window, planning)
}


def main() -> None:
    """Do one measurement."""
    name, arguments = sys.argv[1], json.loads(sys.argv[2])
    anyio.run(anyio.sleep, 0)  # imports what a loop needs; no engine's imports count
    with use_settings(store=arguments["store"]):
        figures = MEASUREMENTS[name](**arguments)
    print(json.dumps({"peak_mib": _peak_mib(), **figures}))


if __name__ == "__main__":
    main()
