"""How long nodes took in earlier runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from furu import current_settings, run_local
from furu.observing.durations import fill_unknown, mean_duration_sec
from tests.graphs import flat, recording


@pytest.fixture(autouse=True)
def _recording() -> Iterator[None]:
    with recording():
        yield


def test_mean_duration_is_measured_from_published_nodes_of_the_class() -> None:
    """A class with the same name in another module is a different class."""
    settings = current_settings()
    assert mean_duration_sec(settings, "tests.graphs:Node") is None
    run_local(flat(3))
    assert mean_duration_sec(settings, "elsewhere:Node") is None
    mean_sec = mean_duration_sec(settings, "tests.graphs:Node")
    assert mean_sec is not None
    assert 0 < mean_sec < 5


def test_class_of_unknown_duration_gets_the_mean_of_the_known_durations() -> None:
    assert {"a": 1.0, "b": 3.0, "c": 2.0} == fill_unknown({"a": 1.0, "b": 3.0, "c": None})


def test_durations_are_not_guessed_if_none_is_known() -> None:
    assert fill_unknown({"a": None}) is None
    assert fill_unknown({}) is None
