"""Kills and errors at every filesystem call: a new process finishes the graph, and nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import figures

# The short form injects faults at some of the calls only.
LONG = os.environ.get("FURU_FAULTS") == "long"
ZYGOTE = Path(__file__).with_name("zygote.py")
ERRORS = ("EIO", "ENOSPC", "EROFS", "EDQUOT", "EMFILE") if LONG else ("EIO", "ENOSPC", "EROFS")


def inject(*arguments: str) -> dict[str, object]:
    """Run a zygote, and return its report."""
    command = [sys.executable, str(ZYGOTE), *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 0 == answer.returncode, answer.stderr
    report: dict[str, object] = json.loads(answer.stdout)
    figures.count("kills" if "kill" in arguments else "errors", int(str(report["injected"])))
    return report


def check(report: dict[str, object], least: int) -> None:
    assert [] == report["problems"]
    assert least <= int(str(report["injected"]))


@pytest.mark.timeout(120)
def test_kill_at_any_call_loses_no_node_that_was_done() -> None:
    """After each of about 200 kills, the next process finishes the graph without recomputing DONE nodes."""
    report = inject("kill", *([] if LONG else ["3"]))
    check(report, 200 if LONG else 60)
    assert float(str(report["longest_recovery_sec"])) < 10


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["once", "always"])
@pytest.mark.parametrize("error", ERRORS)
def test_error_at_any_call_names_a_path_and_the_next_run_finishes(error: str, how: str) -> None:
    """If a record cannot be written, the node's own error is still reported."""
    check(inject("error", error, how, *([] if LONG else ["23"])), 200 if LONG else 8)


@pytest.mark.timeout(120)
def test_kill_while_nodes_are_computed_again_loses_no_value() -> None:
    """Every value can be read after the kill, and the nodes can be computed again."""
    check(inject("again", "kill", *([] if LONG else ["15"])), 350 if LONG else 20)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["once", "always"])
def test_error_while_nodes_are_computed_again_loses_no_value(how: str) -> None:
    check(inject("again", "error", "ENOSPC", how, *([] if LONG else ["31"])), 350 if LONG else 10)
