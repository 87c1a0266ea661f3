"""A record of what the nodes of each test computed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.graphs import Computed, recording


@pytest.fixture(autouse=True)
def computed() -> Iterator[Computed]:
    """Record what the nodes of this test compute."""
    with recording() as record:
        yield record
