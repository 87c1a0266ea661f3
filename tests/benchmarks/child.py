"""One measurement in a separate process: `python -m tests.benchmarks.child NAME JSON`.

Each measurement has a fresh heap and its own threads and imports. Prints one line of JSON.
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


class OfScript(Small):
    """A node whose class is defined in the module `__main__`, as in a script."""


def furu_cold(edges: Edges, store: str) -> None:
    """Make the nodes and run them. This includes hashing their identity."""
    run_local(roots_of(edges), max_workers=WORKERS)


def furu_script_cold(edges: Edges, store: str) -> None:
    """Like `furu_cold`, with a class of a script."""
    run_local(roots_of(edges, OfScript), max_workers=WORKERS)


ENGINES: dict[str, Callable[[Edges, str], None]] = {
    "furu": furu_cold,
    "furu script": furu_script_cold,
    "by hand": by_hand,
    "bare anyio": bare_anyio,
    **PEERS,
}


def roots_of(edges: Edges, node_class: type[Small] = Small) -> list[Small]:
    nodes = make_small(edges, node_class)
    return [nodes[number] for number in sinks(edges)]


def cold(store: str, engine: str, shape: str, size: int) -> dict[str, float]:
    """Compute a graph in an empty store. The processor time is that of all threads, user and system."""
    edges = SHAPES[shape](size)
    run = ENGINES[engine]
    started, cpu = time.perf_counter(), time.process_time()
    run(edges, store)
    seconds, cpu_sec = time.perf_counter() - started, time.process_time() - cpu
    return {"node_us": seconds / size * 1e6, "cpu_us": cpu_sec / size * 1e6}


def power(store: str, size: int, workers: int) -> dict[str, float]:
    """Compute independent nodes that survive a power cut."""
    nodes = make_small([()] * size)
    with use_settings(durability="power"):
        run_local([nodes[0]])  # creates the class's directory
        started = time.perf_counter()
        run_local(nodes[1:], max_workers=workers)
    return {"node_us": (time.perf_counter() - started) / (size - 1) * 1e6}


def warm(store: str, size: int) -> dict[str, float]:
    """Run nodes that are all roots and all DONE. The cost of making plain objects is subtracted."""
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
    """Run a graph whose root is DONE, and return how many nodes the run reports."""
    edges = SHAPES["chain"](size)
    root = roots_of(edges)[0]
    run_local([root])
    report = run_local([root])
    return {"nodes": report.reused + report.computed}


def lag(store: str, size: int) -> dict[str, float]:
    """Measure how late a task on the loop wakes, while small nodes run and while the loop is idle."""
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
    """Measure the time from the end of a node's last dependency to the node's start, with free threads."""
    edges = layered(4 * layers, width=4)
    nodes = make_sleeping(edges, 0.01)
    run_local([nodes[number] for number in sinks(edges)], max_workers=WORKERS)
    gaps = [began[n] - max(ended[number] for number in below) for n, below in enumerate(edges) if below]
    return {"p50_ms": statistics.median(gaps) * 1e3, "p99_ms": _percentile(gaps, 99) * 1e3}


def makespan(store: str, whole: bool) -> dict[str, float]:
    """Run 10 layers of 16 nodes that sleep 50 ms, on 8 workers, and return the time divided by the least
    possible time. Each node depends on three nodes of the layer before, or on all of them."""
    edges = layered(160, width=16)
    if whole:
        edges = [tuple(range(n // 16 * 16 - 16, n // 16 * 16)) if n >= 16 else () for n in range(160)]
    nodes = make_sleeping(edges, 0.05)
    started = time.perf_counter()
    run_local([nodes[number] for number in sinks(edges)], max_workers=8)
    return {"ratio": (time.perf_counter() - started) / max(10 * 0.05, 160 * 0.05 / 8)}


def window(store: str, size: int) -> dict[str, float]:
    """Run roots from a generator in a window of 1,000, and return the bytes that remain for each root."""
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
    """Plan a layered graph without computing it, and measure the lag of the loop. Python's garbage
    collector is enabled if `collect` is true.

    All nodes depend on a first node, which blocks. The generator of roots continues when all nodes below
    its only root, and so the whole graph, have been found.
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
    """Blocks until `released` is set."""

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
    except FileNotFoundError:  # on macOS only the peak is available, which never shrinks
        return int(_peak_mib() * 2**20)


def _peak_mib() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # getrusage includes the parent's memory at the fork
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


MEASUREMENTS: dict[str, Callable[..., dict[str, float]]] = {
    function.__name__: function
    for function in (cold, warm, pruned, power, lag, start, makespan, window, planning)
}


def main() -> None:
    """Do one measurement, and print its figures."""
    name, arguments = sys.argv[1], json.loads(sys.argv[2])
    anyio.run(anyio.sleep, 0)  # import the modules of a loop, so that no engine pays for them
    with use_settings(store=arguments["store"]):
        figures = MEASUREMENTS[name](**arguments)
    print(json.dumps({"peak_mib": _peak_mib(), **figures}))


if __name__ == "__main__":
    main()
