"""How long the nodes of a class took in earlier runs, according to the artifacts in a store."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import furu.store.catalog as catalog
from furu.errors import FuruStoreError
from furu.settings import Settings

__all__ = ["ExpectedDurations", "fill_unknown", "mean_duration_sec"]

# At most this many artifacts of a class are read.
_READ = 30


def mean_duration_sec(settings: Settings, node_class: str) -> float | None:
    """Return the mean duration of some published nodes of a class (``module:Class``), or None if no
    duration is recorded.

    Raises `FuruStoreError` if the store cannot be listed.
    """
    artifacts = itertools.islice(catalog.walk(settings, node_class=node_class), _READ)
    records = [catalog.read_small(artifact) for artifact in artifacts]
    known = [record.duration_sec for record in records if record is not None]
    return sum(known) / len(known) if known else None


def fill_unknown(durations_sec: Mapping[str, float | None]) -> dict[str, float] | None:
    """Replace unknown durations by the mean of the known ones. Returns None if all are unknown."""
    known = [duration_sec for duration_sec in durations_sec.values() if duration_sec is not None]
    if not known:
        return None
    usual_sec = sum(known) / len(known)
    return {name: usual_sec if sec is None else sec for name, sec in durations_sec.items()}


class ExpectedDurations:
    """Estimates how long a node of a class takes: the mean duration of the class in earlier runs. If no
    duration of the class is recorded, the estimate is the mean of the other classes asked for so far, or
    one second. Reads the store once for each class."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: dict[str, float | None] = {}
        self._filled: dict[str, float] | None = None

    def __call__(self, node_class: str) -> float:
        """Return the expected duration of a node of the class, in seconds."""
        if node_class not in self._known:
            try:
                self._known[node_class] = mean_duration_sec(self._settings, node_class)
            except FuruStoreError:  # the run itself raises this error
                self._known[node_class] = None
            self._filled = fill_unknown(self._known)
        return self._filled[node_class] if self._filled is not None else 1.0
