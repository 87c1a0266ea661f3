"""A kill and an error at every filesystem call: afterwards a new process finishes, and nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import figures

# At length every fault is injected at every call; otherwise errors at every ninth, kills still at all.
LONG = os.environ.get("FURU_FAULTS") == "long"
ZYGOTE = Path(__file__).with_name("zygote.py")
ERRORS = ("EIO", "ENOSPC", "EROFS", "EDQUOT", "EMFILE")


def inject(*arguments: str) -> dict[str, object]:
    """Return what a zygote reports."""
    command = [sys.executable, str(ZYGOTE), *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 0 == answer.returncode, answer.stderr
    report: dict[str, object] = json.loads(answer.stdout)
    figures.count("kills" if arguments[0] == "kill" else "errors", int(str(report["injected"])))
    return report


def check(report: dict[str, object], least: int) -> None:
    assert [] == report["problems"]
    assert least <= int(str(report["injected"]))


@pytest.mark.timeout(120)
def test_kill_at_every_call_loses_nothing_that_was_done() -> None:
    """Some 80 kills; the next process finishes the graph and computes no DONE node again."""
    report = inject("kill")
    check(report, 70)
    assert float(str(report["longest_recovery_sec"])) < 10


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["once", "always"])
@pytest.mark.parametrize("error", ERRORS)
def test_error_at_a_call_names_its_path_and_the_next_run_finishes(error: str, how: str) -> None:
    """A record that cannot be written does not hide a node's own error."""
    check(inject("error", error, how, *([] if LONG else ["9"])), 70 if LONG else 8)
