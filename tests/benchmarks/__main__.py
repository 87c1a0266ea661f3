"""Print a table. Each row has a measured figure, the figure to reach, and whether it is reached."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.costs import count_calls, count_inodes, plan_bytes
from tests.benchmarks.graphs import SHAPES
from tests.benchmarks.measure import NotMeasured, What, import_sec, interleaved, measure, modules_of
from tests.benchmarks.peers import PEERS

# Slow engines get fewer nodes: the cost of a node hardly depends on the number of nodes.
_PEER_NODES = {"redun": 100, "pipefunc": 100, "stardag": 100}
_EXTRAS = {"dask", "distributed", "rich", "typer", "trio"}


@dataclass(frozen=True)
class Row:
    """One line of the table. A line without a figure to reach is for orientation only."""

    name: str
    figure: str
    to_reach: str = ""
    reached: bool | None = None

    def text(self) -> str:
        verdict = {True: "reached", False: "FALLS SHORT", None: ""}[self.reached]
        return f"{self.name:<66} {self.figure:>34}  {self.to_reach:>22}  {verdict}".rstrip()


@dataclass(frozen=True)
class Plan:
    """The sizes and the number of measurements, and the directories for the stores."""

    scale: int
    rounds: int
    places: dict[str, Path]

    def size(self, size: int) -> int:
        return max(size // self.scale, 100)

    @property
    def fast(self) -> Path:
        return next(iter(self.places.values()))


def at_most(name: str, value: float, limit: float, unit: str, detail: str = "") -> Row:
    figure = f"{value:.3g} {unit}{detail}" if abs(value) < 1000 else f"{value:,.0f} {unit}{detail}"
    return Row(name, figure, f"at most {limit:g} {unit}", value <= limit)


def cold(plan: Plan) -> Iterator[Row]:
    """All shapes at two sizes, in each place, compared with by hand, and as nodes of a script."""
    engines = ("furu", "furu script", "by hand", "bare anyio")
    for place, directory in plan.places.items():
        for size in (plan.size(1_000), plan.size(10_000)):
            for shape in SHAPES:
                whats = [
                    What("cold", {"engine": engine, "shape": shape, "size": size}, directory)
                    for engine in engines
                ]
                all_figures = interleaved(plan.rounds, whats)
                node_us = [figures["node_us"] for figures in all_figures]
                furu, script, hand = all_figures[:3]
                name = f"cold, {shape}, {size:,}, {place}"
                detail = f" ({node_us[0]:.0f}/{node_us[2]:.0f}/{node_us[3]:.0f} us)"
                yield at_most(name, furu["node_us"] / hand["node_us"], 0.7, "x", detail)
                detail = f" ({furu['cpu_us']:.0f}/{hand['cpu_us']:.0f} us)"
                yield Row("  processor time", f"{furu['cpu_us'] / hand['cpu_us']:.2f} x{detail}")
                ratio = script["node_us"] / furu["node_us"]
                yield at_most("  from a script, against from a module", ratio, 1.05, "x")


def linear(plan: Plan) -> Iterator[Row]:
    """The cost of a node in a graph ten times as large."""
    small, large = plan.size(10_000), plan.size(100_000)
    for shape in SHAPES:
        whats = [
            What("cold", {"engine": "furu", "shape": shape, "size": size}, plan.fast)
            for size in (small, large)
        ]
        (one,) = interleaved(plan.rounds, whats[:1])
        ten = measure(whats[1])
        ratio = ten["node_us"] / one["node_us"]
        detail = f" ({ten['node_us']:.0f} us, {ten['peak_mib']:.0f} MiB)"
        yield at_most(f"cold, {shape}, {large:,} against {small:,}, a node", ratio, 1.1, "x", detail)
    hand = measure(What("cold", {"engine": "by hand", "shape": "layered", "size": large}, plan.fast))
    yield Row(f"  by hand, layered, {large:,}", f"{hand['node_us']:.0f} us, {hand['peak_mib']:.0f} MiB")


def warm(plan: Plan) -> Iterator[Row]:
    """Runs of nodes that are DONE."""
    size = plan.size(10_000)
    (figures,) = interleaved(plan.rounds, [What("warm", {"size": size}, plan.fast)])
    yield at_most(f"warm, {size:,} roots DONE, a node, beyond its object", figures["node_us"], 12, "us")
    looked = measure(What("pruned", {"size": plan.size(1_000)}, plan.fast))["nodes"]
    yield at_most(f"nodes looked at below a DONE root of {plan.size(1_000):,}", looked - 1, 0, "nodes")


def calls(plan: Plan) -> Iterator[Row]:
    """The number of system calls for a node."""
    cold_calls, warm_calls, _ = count_calls(plan.fast, 100)
    yield at_most("system calls of a cold node beyond the user's files", cold_calls, 9, "calls")
    yield at_most("system calls of a warm node", warm_calls, 1, "calls")
    yield at_most("inodes of a node without files", count_inodes(plan.fast, 100), 1, "inodes")


def memory(plan: Plan) -> Iterator[Row]:
    """Bytes for each node of a live plan, without the caller's objects."""
    size = plan.size(10_000)
    yield at_most(f"memory a node of a live plan of {size:,}, layered", plan_bytes(size), 512, "bytes")


def lag(plan: Plan) -> Iterator[Row]:
    """How long other tasks of the event loop have to wait."""
    (busy,) = interleaved(plan.rounds, [What("lag", {"size": plan.size(10_000)}, plan.fast)])
    for name, limit in (("p99", 5), ("max", 20)):
        idle = f" (idle {busy[f'idle_{name}_ms']:.2g})"
        yield at_most(f"loop lag while small nodes run, {name}", busy[f"{name}_ms"], limit, "ms", idle)


def start(plan: Plan) -> Iterator[Row]:
    """How soon a ready node starts."""
    (gap,) = interleaved(plan.rounds, [What("start", {"layers": plan.size(100)}, plan.fast)])
    for name, limit in (("p50", 0.4), ("p99", 3)):
        yield at_most(f"from a dependency's end to a node's start, {name}", gap[f"{name}_ms"], limit, "ms")


def makespan(plan: Plan) -> Iterator[Row]:
    """How busy the workers are, as the time of a run compared with the least possible time."""
    for whole, on in ((True, "all"), (False, "three")):
        (figures,) = interleaved(plan.rounds, [What("makespan", {"whole": whole}, plan.fast)])
        name = f"10 layers of 16 x 50 ms, each on {on} before, against least possible"
        yield at_most(name, figures["ratio"], 1.02, "x")


def imports(plan: Plan) -> Iterator[Row]:
    """The time and the modules that `import furu` costs a script."""
    pairs = [
        (import_sec("import furu"), import_sec("import asyncio, json")) for _ in range(5 * plan.rounds)
    ]
    beyond = min(pair[0] for pair in pairs) - min(pair[1] for pair in pairs)
    yield at_most("import furu, beyond asyncio and json", beyond * 1e3, 45, "ms")
    extras = _EXTRAS & modules_of("import furu")
    yield at_most("extras imported by import furu", len(extras), 0, "modules")


def window(plan: Plan) -> Iterator[Row]:
    """Memory that remains for each root of a generator after the window has passed."""
    size = plan.size(1_000_000)
    figures = measure(What("window", {"size": size}, plan.fast))
    yield at_most(
        f"kept of a root behind the window, {size:,} roots",
        figures["kept_bytes"],
        64,
        "bytes",
        f" ({figures['node_us']:.0f} us, {figures['peak_mib']:.0f} MiB)",
    )


def planning(plan: Plan) -> Iterator[Row]:
    """Planning a large graph without computing a node."""
    size = plan.size(1_000_000)
    figures = measure(What("planning", {"size": size, "collect": True}, plan.fast))
    name = f"planning {size:,} nodes, layered"
    made = f" (objects {figures['made_sec']:.0f} s)"
    yield at_most(f"{name}: time", figures["plan_sec"], 20, "s", made)
    yield at_most(f"{name}: peak memory", figures["peak_mib"] / 1024, 0.6, "GiB")
    yield at_most(f"{name}: the loop blocked", figures["max_lag_ms"], 100, "ms")
    figures = measure(What("planning", {"size": size, "collect": False}, plan.fast))
    took = f" (in {figures['plan_sec']:.0f} s)"
    yield at_most("  the same with gc.disable()", figures["max_lag_ms"], 100, "ms", took)


def power(plan: Plan) -> Iterator[Row]:
    """Nodes that survive a power cut, on a disk: eight workers compared with one."""
    disk = list(plan.places.values())[-1]
    whats = [What("power", {"size": plan.size(1_000), "workers": workers}, disk) for workers in (8, 1)]
    many, one = interleaved(plan.rounds, whats)
    ratio = one["node_us"] / many["node_us"]
    detail = f" ({1e6 / many['node_us']:,.0f}/{1e6 / one['node_us']:,.0f} a second)"
    yield Row(
        "durability power, 8 workers, nodes a second", f"{ratio:.2f} x{detail}", "at least 5 x", ratio >= 5
    )


def peers(plan: Plan) -> Iterator[Row]:
    """The cost of a node in other engines, for orientation."""
    size = plan.size(1_000)
    for engine in ("by hand", "furu", *PEERS):
        nodes = min(size, _PEER_NODES.get(engine, size))
        what = What("cold", {"engine": engine, "shape": "layered", "size": nodes}, plan.fast)
        name = f"  {engine}, layered, {nodes:,}, stored"
        try:
            figures = measure(what)
        except NotMeasured as why:
            yield Row(name, f"not measured: {why}")
        else:
            yield Row(name, f"{figures['node_us']:,.0f} us, {figures['peak_mib']:.0f} MiB")


GROUPS: dict[str, Callable[[Plan], Iterator[Row]]] = {
    function.__name__: function
    for function in (
        cold, linear, warm, calls, memory, lag, start, makespan, power, imports, window, planning, peers,
    )
}  # fmt: skip


def find_places(disk: Path) -> dict[str, Path]:
    """Return a memory filesystem, if one is available, and a disk."""
    memory_fs = Path("/dev/shm")
    return {**({"tmpfs": memory_fs} if os.access(memory_fs, os.W_OK) else {}), "disk": disk}


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="ROWS", help=f"some of: {' '.join(GROUPS)}")
    parser.add_argument("--quick", action="store_true", help="a tenth of the nodes, one round")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved runs, of which the least counts")
    parser.add_argument("--disk", type=Path, default=Path(tempfile.gettempdir()), help="a place on a disk")
    options = parser.parse_args()
    unknown = set(options.groups) - set(GROUPS)
    if unknown:
        parser.error(f"no such rows: {' '.join(sorted(unknown))}; there are: {' '.join(GROUPS)}")
    plan = Plan(
        scale=10 if options.quick else 1,
        rounds=1 if options.quick else options.rounds,
        places=find_places(options.disk),
    )
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.system()}")
    print(Row("what", "figure", "to reach").text())
    started, rows = time.monotonic(), []
    for name in options.groups or GROUPS:
        for row in GROUPS[name](plan):
            rows.append(row)
            print(row.text(), flush=True)
    short = sum(row.reached is False for row in rows)
    judged = sum(row.reached is not None for row in rows)
    print(f"{judged - short} of {judged} reached, in {time.monotonic() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
