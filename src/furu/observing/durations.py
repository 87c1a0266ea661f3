"""How long nodes of a class took in earlier runs, from the artifacts in a store."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import furu.store.catalog as catalog
from furu.errors import FuruStoreError
from furu.settings import Settings

__all__ = ["ExpectedDurations", "fill_unknown", "mean_duration_sec"]

# How many artifacts of a class are read.
_READ = 30


def mean_duration_sec(settings: Settings, node_class: str) -> float | None:
    """Return the mean duration of some published nodes of a class (``module:Class``); None if there are
    none.

    Raises `FuruStoreError` if the store cannot be listed.
    """
    artifacts = itertools.islice(catalog.walk(settings, node_class=node_class), _READ)
    records = [catalog.read_small(artifact) for artifact in artifacts]
    known = [record.duration_sec for record in records if record is not None]
    return sum(known) / len(known) if known else None


def fill_unknown(durations_sec: Mapping[str, float | None]) -> dict[str, float] | None:
    """Give classes of unknown duration the mean of the others; None if no duration is known."""
    known = [duration_sec for duration_sec in durations_sec.values() if duration_sec is not None]
    if not known:
        return None
    usual_sec = sum(known) / len(known)
    return {name: usual_sec if sec is None else sec for name, sec in durations_sec.items()}


class ExpectedDurations:
    """How long nodes of a class will probably take: as long as in earlier runs, or else as the other
    classes that have been asked for. If nothing is known, all are expected to take equally long. Reads the
    store, once for each class."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: dict[str, float | None] = {}
        self._filled: dict[str, float] | None = None

    def __call__(self, node_class: str) -> float:
        """Return a number of seconds."""
        if node_class not in self._known:
            try:
                self._known[node_class] = mean_duration_sec(self._settings, node_class)
            except FuruStoreError:  # the run itself raises it
                self._known[node_class] = None
            self._filled = fill_unknown(self._known)
        return self._filled[node_class] if self._filled is not None else 1.0
