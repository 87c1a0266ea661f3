"""Real processes on one store: races, killed and paused owners, forks, and an interrupted run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import figures

LONG = os.environ.get("FURU_FAULTS") == "long"
CROWD = Path(__file__).with_name("crowd.py")
AT_ONCE_SEC = 5.0


@pytest.fixture(autouse=True)
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the path of the log of all computations."""
    monkeypatch.setenv("FURU_LOG", str(tmp_path / "log"))


def crowd(*arguments: object) -> dict[str, object]:
    """Run crowd.py, and return its report on the processes."""
    command = [sys.executable, str(CROWD), *map(str, arguments)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 0 == answer.returncode, answer.stderr
    report: dict[str, object] = json.loads(answer.stdout)
    twice = report.get("twice", [])
    assert isinstance(twice, list)
    figures.count(figures.TWICE, len(twice))
    return report | {"stderr": answer.stderr}


@pytest.mark.timeout(300)
def test_eight_processes_compute_each_node_once() -> None:
    """Every process runs all nodes, in its own order."""
    nodes = 1000 if LONG else 150
    report = crowd("race", 8, nodes)
    figures.count("nodes raced for by eight processes", nodes)
    assert [0] * 8 == report["codes"], report
    assert (nodes, []) == (report["nodes"], report["twice"])


@pytest.mark.timeout(120)
def test_one_of_fifty_processes_takes_over_at_once_from_a_killed_owner() -> None:
    """No process waits for a lease, because the kernel shows that the owner is dead."""
    report = crowd("waiters", 50)
    assert [0] * 50 == report["codes"], report
    assert 2 == report["computed"]
    assert float(str(report["sec"])) < AT_ONCE_SEC * 4  # this is the time until all fifty finish


@pytest.mark.timeout(60)
def test_stopped_owner_on_this_machine_is_never_taken_over() -> None:
    """The owner is stopped for several leases. Then it continues and publishes."""
    report = crowd("paused", "same")
    assert ([0], 0, 1, True) == tuple(report[key] for key in ("codes", "taken", "computed", "stays")), (
        report
    )


@pytest.mark.timeout(60)
def test_stopped_owner_on_another_machine_is_taken_over_once_and_loads_the_winners_result() -> None:
    """Four processes wait for the node. When the owner wakes up, one of them has published."""
    report = crowd("paused", "another")
    assert [0] * 5 == report["codes"], report
    assert (2, True) == (report["computed"], report["stays"])


@pytest.mark.timeout(60)
def test_child_that_outlives_its_killed_parent_does_not_hold_the_node() -> None:
    """Only the parent held the lock, so the node is taken over at once."""
    report = crowd("forked")
    assert ([0], 2, True) == (report["codes"], report["computed"], report["child_lives"]), report
    assert float(str(report["sec"])) < AT_ONCE_SEC


@pytest.mark.timeout(60)
def test_run_beside_an_interrupted_run_finishes_everything() -> None:
    """Nodes of the interrupted run are published or taken over, and no node is computed twice."""
    report = crowd("interrupted", 60)
    assert ([3, 0], 60, []) == (report["codes"], report["done"], report["twice"]), report
