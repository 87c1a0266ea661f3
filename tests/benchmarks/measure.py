"""Runs measurements in child processes, interleaved. Each has a new store, which is removed afterwards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TIMEOUT_SEC = 600
_REPOSITORY = Path(__file__).parents[2]

Figures = dict[str, float]


@dataclass(frozen=True)
class What:
    """A measurement of child.py with its arguments, and the directory for its store."""

    name: str
    arguments: dict[str, Any]
    place: Path


class NotMeasured(Exception):
    """A measurement failed. The message says why in a few words."""


def measure(what: What) -> Figures:
    """Measure once. Raises `NotMeasured` if the measurement fails."""
    store = tempfile.mkdtemp(prefix="furu-bench-", dir=what.place)
    command = [sys.executable, "-m", "tests.benchmarks.child", what.name]
    try:
        done = subprocess.run(
            [*command, json.dumps({"store": store, **what.arguments})],
            cwd=_REPOSITORY,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SEC,
        )
    except subprocess.TimeoutExpired:
        raise NotMeasured(f"took over {_TIMEOUT_SEC} s") from None
    finally:
        shutil.rmtree(store)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise NotMeasured(last[0][:60] if last else f"exit {done.returncode}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def interleaved(rounds: int, whats: Sequence[What]) -> list[Figures]:
    """Measure each once per round, and return the minimum of each figure: disturbances only add to it."""
    best: list[Figures] = [{} for _ in whats]
    for _ in range(rounds):
        for least, what in zip(best, whats, strict=True):
            for name, figure in measure(what).items():
                least[name] = min(figure, least.get(name, figure))
    return best


def import_sec(code: str) -> float:
    """Return the seconds that a fresh interpreter takes to run a line of imports. The modules have been
    compiled before, as those of an installed package."""
    timed = f"import time; s = time.perf_counter()\n{code}\nprint(time.perf_counter() - s)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as compiled:
        environment["PYTHONPYCACHEPREFIX"] = compiled
        command = [sys.executable, "-c", timed]
        runs = [subprocess.run(command, env=environment, capture_output=True, check=True) for _ in range(2)]
    return float(runs[1].stdout)


def modules_of(code: str) -> set[str]:
    """Return the top-level modules that are loaded after a line of imports."""
    listed = f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", listed], capture_output=True, check=True, text=True)
    return set(done.stdout.split())
