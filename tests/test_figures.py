"""Figures that the documentation repeats agree with the table of measurements in `performance.md`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PERFORMANCE = (ROOT / "docs/explanation/performance.md").read_text()


def row(start: str) -> str:
    """Return the figure in the row of the first table that begins with `start`."""
    found = re.search(rf"^\| {re.escape(start)} \| (.*?) \|$", PERFORMANCE.partition("\n## ")[0], re.M)
    assert found, start
    return found[1]


def measured(kind: str, pattern: str) -> list[float]:
    """Return the numbers that `pattern` finds in the rows for 10,000 cold nodes in the measurements."""
    rows = re.findall(rf"^\| cold, \w+, 10,000, {kind} \| (.*?) \|", PERFORMANCE, re.M)
    assert 4 == len(rows)
    return [float(re.search(pattern, text)[1]) for text in rows]  # type: ignore[index]


def span(numbers: list[float], digits: int) -> str:
    return f"{min(numbers):.{digits}f} to {max(numbers):.{digits}f}"


@pytest.mark.parametrize(
    ("kind", "times", "ratios"),
    [
        (
            "tmpfs",
            "a small node, computed and stored, in memory",
            "the same work written by hand = 1, in memory",
        ),
        ("disk", "the same on a disk (ext4)", "the same on a disk"),
    ],
)
def test_first_table_summarizes_the_measurements(kind: str, times: str, ratios: str) -> None:
    """The first table shows the cost of a node in milliseconds, and relative to code written by hand."""
    times_ms = [us / 1000 for us in measured(kind, r"\((\d+)/")]
    assert f"{span(times_ms, 1)} ms" == row(times)
    assert span(measured(kind, r"^([\d.]+) x"), 2) == row(ratios)


def test_readme_and_changelog_repeat_the_cost_of_a_node() -> None:
    fastest = row("a small node, computed and stored, in memory").partition(" ")[0]
    slowest = row("the same on a disk (ext4)").split(" ")[2]
    for name in ["README.md", "docs/changelog.md"]:
        assert f"{fastest} to {slowest} ms each" in " ".join((ROOT / name).read_text().split()), name


def test_system_calls_are_the_same_on_every_page() -> None:
    calls = row("system calls of a node that is computed")
    assert f"| system calls of a cold node beyond the user's files | {calls} calls |" in PERFORMANCE
    assert f"system calls a cold node: {calls}," in (ROOT / "docs/explanation/scale.md").read_text()
