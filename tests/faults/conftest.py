"""Prints the figures of a long run."""

from __future__ import annotations

import os

import pytest

from tests.faults.figures import FIGURES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was injected, and what was found."""
    if FIGURES and os.environ.get("FURU_FAULTS") == "long":
        terminalreporter.section("faults")
        for what, number in FIGURES.items():
            terminalreporter.write_line(f"{number:>8,}  {what}")
