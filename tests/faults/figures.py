"""Counts of injected faults and findings in a whole test run. `nox -s faults` prints them."""

from __future__ import annotations

import collections

TWICE = "nodes computed twice"
TORN = "torn artifacts taken for DONE"
FIGURES: collections.Counter[str] = collections.Counter()


def count(what: str, number: int) -> None:
    """Add a number to a figure. Adding zero makes sure that the figure is printed."""
    FIGURES[what] += number
