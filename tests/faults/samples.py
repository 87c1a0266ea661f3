"""The samples of a soak: descriptors, threads, tasks, children, objects and memory."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import ctypes
import gc
import os
import statistics
import sys
import threading
import time
import types
from pathlib import Path

from furu import (
    Furu,
)

# How long threads that a cancelled run left behind may continue.
LATE_SEC = 5.0


# The allowed growth from the median of the second quarter to the median of the last quarter.
MORE_DESCRIPTORS = 6


MORE_THREADS = 4


MORE_TASKS = 0


MORE_CHILDREN = 0


# For the objects of one type and the entries of one container: one per hundred runs.
MORE_OBJECTS_PER_RUN = 0.01


MORE_OBJECTS = 20


# The allowed slope of memory in the last half. A leaked node, with its hash and fields, takes 1 KiB.
MORE_BYTES_PER_RUN = 2048

# ---- measurements ----


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) - 1


def _children() -> int:
    children: set[str] = set()
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):
            children |= set(Path(f"/proc/self/task/{task}/children").read_text().split())
    return len(children)


def _resident() -> int:
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def _objects() -> dict[str, int]:
    """Count objects of furu's types, nodes, and types of objects that failures and runs may leak."""
    gc.collect()
    counts: collections.Counter[str] = collections.Counter()
    others = (types.FrameType, types.TracebackType, types.CoroutineType, threading.Thread, asyncio.Task)
    for found in gc.get_objects():
        kind = type(found)
        if issubclass(kind, Furu):
            counts["nodes"] += 1
        elif kind.__module__.startswith("furu."):
            counts[f"{kind.__module__}.{kind.__qualname__}"] += 1
        elif issubclass(kind, (*others, BaseException)):
            counts[kind.__qualname__] += 1
    counts["all objects"] = len(gc.get_objects())
    return dict(counts)


_SIZED = (dict, set, list, collections.deque, collections.OrderedDict)


def _containers() -> dict[str, int]:
    """Return the sizes of the containers in the globals of furu's modules, and in objects below them."""
    sizes: dict[str, int] = {}
    seen: set[int] = set()

    def look(name: str, value: object, depth: int) -> None:
        if id(value) in seen:
            return
        if hasattr(value, "cache_info"):
            info = value.cache_info()
            if info.maxsize is None:
                sizes[name] = info.currsize
        elif isinstance(value, _SIZED) or type(value).__name__.startswith("Weak"):
            with contextlib.suppress(TypeError):
                sizes[name] = len(value)  # type: ignore[arg-type]
        elif depth and type(value).__module__.startswith("furu.") and not isinstance(value, Furu | type):
            seen.add(id(value))
            slots = [slot for cls in type(value).__mro__ for slot in getattr(cls, "__slots__", ())]
            inside = {**getattr(value, "__dict__", {})}
            inside |= {slot: getattr(value, slot, None) for slot in slots if isinstance(slot, str)}
            for key, one in inside.items():
                look(f"{name}.{key}", one, depth - 1)

    for module in [module for name, module in sys.modules.items() if name.split(".")[0] == "furu"]:
        for key, value in list(vars(module).items()):
            if (
                not key.startswith("__")
                and getattr(value, "__module__", module.__name__) == module.__name__
            ):
                look(f"{module.__name__}.{key}", value, 3)
    return sizes


class Samples:
    """The figures of a soak, one row for each sample."""

    def __init__(self) -> None:
        self.rows: list[dict[str, int]] = []

    def take(self, run: int, tasks: int) -> None:
        """Take a sample after late threads of cancelled runs have ended."""
        until, before = time.monotonic() + LATE_SEC, self.rows[-1]["python threads"] if self.rows else 0
        while time.monotonic() < until and threading.active_count() > before:
            time.sleep(0.1)
        row = {
            "run": run,
            "descriptors": _descriptors(),
            "threads": len(os.listdir("/proc/self/task")),
            "python threads": threading.active_count(),
            "tasks": tasks,
            "children": _children(),
            "resident": _resident(),
        }
        row |= {f"objects: {name}": number for name, number in _objects().items()}
        row |= {f"in {name}": number for name, number in _containers().items()}
        self.rows.append(row)
        print(
            f"run {row['run']:>6,}  descriptors {row['descriptors']:>4}  threads {row['threads']:>4}  "
            f"tasks {row['tasks']:>3}  children {row['children']:>3}  "
            f"resident {row['resident'] / 2**20:7.1f} MiB  objects {row['objects: all objects']:>9,}",
            flush=True,
        )

    def growth(self, name: str) -> float:
        """Return the median of the last quarter minus the median of the second quarter."""
        values = [row.get(name, 0) for row in self.rows]
        quarter = max(len(values) // 4, 1)
        return statistics.median(values[-quarter:]) - statistics.median(
            values[quarter : 2 * quarter] or values
        )

    def slope(self, name: str) -> float:
        """Return the growth per run in the last half: the median of the slopes of all pairs of rows."""
        half = self.rows[len(self.rows) // 2 :]
        slopes = [
            (later[name] - earlier[name]) / (later["run"] - earlier["run"])
            for number, earlier in enumerate(half)
            for later in half[number + 1 :]
            if later["run"] > earlier["run"]
        ]
        return statistics.median(slopes) if slopes else 0.0

    def grown(self, runs: int) -> dict[str, str]:
        """Return the figures that grew by more than the allowed amount."""
        allowed = {
            "descriptors": MORE_DESCRIPTORS,
            "threads": MORE_THREADS,
            "python threads": MORE_THREADS,
            "tasks": MORE_TASKS,
            "children": MORE_CHILDREN,
        }
        found: dict[str, str] = {}
        for name in sorted({name for row in self.rows for name in row} - {"run", "resident"}):
            most = allowed.get(name, MORE_OBJECTS + MORE_OBJECTS_PER_RUN * runs)
            if name == "objects: all objects":
                most = 10 * most
            if (more := self.growth(name)) > most:
                found[name] = f"{more:+,.0f}, allowed {most:,.0f}"
        slope = self.slope("resident")
        if slope > MORE_BYTES_PER_RUN:
            found["resident"] = f"{slope:+,.0f} bytes a run, allowed {MORE_BYTES_PER_RUN:,}"
        return found
