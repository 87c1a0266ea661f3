"""What was injected and what was found, counted over the whole run; `nox -s faults` prints it."""

from __future__ import annotations

import collections

TWICE = "nodes computed twice"
TORN = "torn artifacts taken for DONE"
FIGURES: collections.Counter[str] = collections.Counter()


def count(what: str, number: int) -> None:
    """Add to a figure; zero makes it one that is printed."""
    FIGURES[what] += number
