"""`get()` that is interrupted anywhere, in a process that goes on: nothing is stuck, here or for others."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from . import figures
from .interrupt_nodes import KINDS
from .observer import ROOT

LONG = os.environ.get("FURU_FAULTS") == "long"
# Each place, or each seventh of them.
EVERY = 1 if LONG else 7
SIGNALS = 5000 if LONG else 300
LIMIT_SEC = 1200 if LONG else 60

pytestmark = pytest.mark.timeout(LIMIT_SEC + 10)


def interrupts(how: str, kind: str, *numbers: int) -> dict[str, int]:
    """Return what was injected, and that nothing was left behind."""
    command = [sys.executable, "-m", "tests.faults.interrupts", how, kind, *map(str, numbers)]
    answer = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=LIMIT_SEC
    )
    assert 0 == answer.returncode, answer.stderr
    report = json.loads(answer.stdout)
    counts: dict[str, int] = report["counts"]
    figures.count(f"interrupts of get() ({how})", counts["interrupted"])
    for what in ("hangs", "in progress", "wrong", "locks left taken"):
        figures.count(f"{what} after an interrupt", counts[what])
    found = {what: counts[what] for what in ("hangs", "in progress", "wrong", "locks left taken")}
    assert not any(found.values()), json.dumps(report, indent=1)
    figures.count("interrupts that the loop or a task group turned into another error", counts.get("other errors", 0))
    return counts


@pytest.mark.parametrize("kind", KINDS)
def test_interrupt_at_any_line_leaves_nothing_behind(kind: str) -> None:
    assert interrupts("lines", kind, EVERY)["interrupted"] > 10


@pytest.mark.parametrize("kind", KINDS)
def test_interrupt_as_a_function_begins_leaves_nothing_behind(kind: str) -> None:
    assert interrupts("calls", kind, EVERY)["interrupted"] > 3


@pytest.mark.parametrize("kind", KINDS)
def test_interrupt_as_a_function_returns_leaves_nothing_behind(kind: str) -> None:
    assert interrupts("returns", kind, EVERY)["interrupted"] > 3


@pytest.mark.parametrize("kind", KINDS)
def test_signals_at_random_times_leave_nothing_behind(kind: str) -> None:
    assert interrupts("signals", kind, SIGNALS)["interrupted"] > 10


@pytest.mark.parametrize("kind", KINDS)
def test_recursion_limit_at_any_depth_leaves_nothing_behind(kind: str) -> None:
    assert interrupts("depth", kind, 1)["interrupted"] > 3


@pytest.mark.skipif(importlib.util.find_spec("_testcapi") is None, reason="this CPython has no _testcapi")
@pytest.mark.parametrize("kind", ["sync", "pickled", "failing"])
def test_failed_allocation_anywhere_leaves_nothing_behind(kind: str) -> None:
    assert interrupts("memory", kind, EVERY)["interrupted"] > 3


@pytest.mark.skipif(not LONG, reason="only counted: a second interrupt may come while the first is handled")
@pytest.mark.parametrize("kind", KINDS)
def test_second_interrupt_is_counted(kind: str) -> None:
    """An interrupt of the cleanup itself: what that leaves is printed with the figures."""
    command = [sys.executable, "-m", "tests.faults.interrupts", "twice", kind, "3"]
    answer = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=LIMIT_SEC
    )
    assert 0 == answer.returncode, answer.stderr
    counts = json.loads(answer.stdout)["counts"]
    figures.count("interrupts of get() that came twice", counts.get("interrupted twice", 0))
    figures.count("(not promised) stuck after two interrupts", counts["hangs"] + counts["in progress"])
