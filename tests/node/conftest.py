"""Fixtures for the tests of nodes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.graphs import Computed, recording


@pytest.fixture(autouse=True)
def record() -> Iterator[Computed]:
    """The record of the nodes that the test computes."""
    with recording() as computed:
        yield computed
