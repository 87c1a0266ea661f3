"""Work is interrupted or cancelled at any place, and the process continues: no node is stuck, neither here
nor in other processes."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from tests.faults import figures
from tests.faults.observer import ROOT

LONG = os.environ.get("FURU_FAULTS") == "long"
# Interrupt at each place, or at every seventh.
EVERY = 1 if LONG else 7
SIGNALS = 3000 if LONG else 60
LIMIT_SEC = 1500 if LONG else 90
FAULTS = ("hangs", "in progress", "wrong", "locks left taken", "tasks left", "tokens left")

pytestmark = pytest.mark.timeout(LIMIT_SEC + 10)


def program(name: str, *arguments: object) -> dict[str, int]:
    """Run a program of this directory, check that it left nothing behind, and return its counts."""
    command = [sys.executable, "-m", f"tests.faults.{name}", *map(str, arguments)]
    answer = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=LIMIT_SEC
    )
    assert 0 == answer.returncode, answer.stderr
    report = json.loads(answer.stdout)
    counts: dict[str, int] = report["counts"]
    for what in FAULTS:
        figures.count(f"{what} after an interrupt or a cancellation", counts.get(what, 0))
    assert not any(counts.get(what) for what in FAULTS), json.dumps(report, indent=1)
    return counts


def interrupts(how: str, kinds: str, *numbers: int) -> int:
    """Interrupt `get()`, and return the number of interrupts."""
    counts = program("interrupts", how, kinds, *numbers)
    figures.count(f"interrupts of get(): {how}", counts["interrupted"])
    figures.count("interrupts that came out of a loop as another error", counts.get("other errors", 0))
    return counts["interrupted"]


def test_interrupt_at_any_line_leaves_nothing_behind() -> None:
    assert interrupts("lines", "all", EVERY) > 100


def test_interrupt_as_any_function_begins_leaves_nothing_behind() -> None:
    assert interrupts("calls", "all", EVERY) > 30


def test_interrupt_as_any_function_returns_leaves_nothing_behind() -> None:
    assert interrupts("returns", "all", EVERY) > 30


def test_signals_at_random_times_leave_nothing_behind() -> None:
    assert interrupts("signals", "all", SIGNALS) > 30


def test_recursion_limit_at_any_depth_leaves_nothing_behind() -> None:
    assert interrupts("depth", "all", 1) > 30


@pytest.mark.skipif(importlib.util.find_spec("_testcapi") is None, reason="this CPython has no _testcapi")
def test_failed_allocation_anywhere_leaves_nothing_behind() -> None:
    assert interrupts("memory", "sync,pickled,failing", EVERY) > 30


@pytest.mark.parametrize(
    ("backend", "how"), [("asyncio", "scope"), ("asyncio", "native"), ("trio", "scope")]
)
def test_cancellation_at_any_step_of_the_loop_leaves_nothing_behind(backend: str, how: str) -> None:
    """`aget()`, runs, streams and followers of a service's runs are cancelled."""
    everything = "sync,async,declared,failing"
    short = [("aget", "async", 1), ("run,stream,follow", "declared", 6)]
    for work, kinds, every in [("all", everything, 1)] if LONG else short:
        counts = program("cancellations", work, kinds, backend, how, every)
        figures.count(f"cancellations: {how} on {backend}", counts["interrupted"])
        assert counts["interrupted"] > 10
        assert not counts.get("other errors"), counts


@pytest.mark.skipif(not LONG, reason="only counted: a second interrupt may come while the first is handled")
def test_second_interrupt_is_counted() -> None:
    """The second interrupt hits the cleanup after the first. The figures show what that leaves behind."""
    command = [sys.executable, "-m", "tests.faults.interrupts", "twice", "all", "3"]
    answer = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=LIMIT_SEC
    )
    assert 0 == answer.returncode, answer.stderr
    counts = json.loads(answer.stdout)["counts"]
    figures.count("interrupts of get() that came twice", counts.get("interrupted twice", 0))
    figures.count("(not promised) stuck after two interrupts", counts["hangs"] + counts["in progress"])
