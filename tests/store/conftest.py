"""Fixtures for the tests of the store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from furu.store.artifact import Artifact
from tests.store.processes import (
    ANOTHER_MACHINE,
    Clock,
    OtherProcess,
    artifact,
    lease_clock,
)


@pytest.fixture
def place() -> Artifact:
    """A node that has not been computed."""
    return artifact()


@pytest.fixture
def other() -> Iterator[OtherProcess]:
    """Another process of this machine."""
    with OtherProcess() as process:
        yield process


@pytest.fixture
def third() -> Iterator[OtherProcess]:
    """A third process of this machine."""
    with OtherProcess() as process:
        yield process


@pytest.fixture
def stranger() -> Iterator[OtherProcess]:
    """A process of another machine."""
    with OtherProcess(ANOTHER_MACHINE) as process:
        yield process


@pytest.fixture
def clock() -> Iterator[Clock]:
    """The clock that measures leases. It does not move until the test advances it."""
    with lease_clock() as clock:
        yield clock
