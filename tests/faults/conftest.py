"""Prints the figures at the end of a long run."""

from __future__ import annotations

import os

import pytest

from tests.faults.figures import FIGURES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the numbers of injected faults and of findings."""
    if FIGURES and os.environ.get("FURU_FAULTS") == "long":
        terminalreporter.section("faults")
        for what, number in FIGURES.items():
            terminalreporter.write_line(f"{number:>8,}  {what}")
