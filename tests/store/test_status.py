"""The status of a node, its files after each step, and the cost of a node in system calls."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import furu
from furu import Status
from furu._common.origin import Origin
from furu.node.base import artifact_of
from furu.provenance.fingerprint import Provenance
from furu.settings import use_settings
from furu.store.artifact import Artifact, survey
from furu.store.attempt import running_attempt
from tests.store.processes import (
    Square,
    artifact,
    begin,
    current_owner,
    fail,
    files,
    instead,
    leave_attempt,
    names,
    owners,
    publish,
    remove_by_hand,
    system_calls,
)

# ---- a node's status, and the files after each step ----


def test_status_is_derived_from_names() -> None:
    """The node passes through every status."""
    place = artifact()
    assert Status.TODO is survey(place).status  # no name
    os.makedirs(place.files.directory)
    assert Status.TODO is survey(place).status  # an empty directory
    attempt = begin(place)
    assert Status.IN_PROGRESS is survey(place).status
    fail(attempt)
    assert Status.FAILED is survey(place).status
    attempt = begin(place)
    assert Status.IN_PROGRESS is survey(place).status
    attempt.end("cancelled", KeyboardInterrupt(), {})
    assert Status.TODO is survey(place).status
    leave_attempt(place, 3)
    assert Status.TODO is survey(place).status  # its owner is dead
    attempt = begin(place)
    assert (Status.IN_PROGRESS, 4) == (survey(place).status, survey(place).attempt)
    assert publish(attempt)
    assert Status.DONE is survey(place).status


def test_highest_attempt_alone_determines_the_status() -> None:
    """Attempts are compared by number: 10 is higher than 9."""
    place = artifact()
    for number in (1, 9):
        leave_attempt(place, number)
    fail(begin(place))
    assert (Status.FAILED, 10, 10) == (
        survey(place).status,
        survey(place).attempt,
        survey(place).highest,
    )
    leave_attempt(place, 11)
    assert Status.TODO is survey(place).status


def test_node_that_is_removed_during_a_survey_is_todo(place: Artifact) -> None:
    for _ in range(2):
        fail(begin(place))

    def list_and_remove(original: Callable[..., list[str]], path: str) -> list[str]:
        names = original(path)
        remove_by_hand(place)
        return names

    with instead("listdir", list_and_remove):
        assert Status.TODO is survey(place).status


def test_each_step_leaves_exactly_these_files(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim adds `try-1`, and files add `a1`. A publish adds a temporary file, links it to `done`, and
    removes the temporary name and `try-1`."""
    place = artifact()
    current_owner(store)
    os.makedirs(place.files.class_directory)
    seen: list[tuple[str, list[str], list[str]]] = []
    for name in ("link", "unlink"):
        real = getattr(os, name)

        def recorded(path: str, *args: Any, real: Any = real, name: str = name, **options: Any) -> None:
            before = names(place)
            real(path, *args, **options)
            seen.append((name, before, names(place)))

        monkeypatch.setattr(os, name, recorded)
    attempt = begin(place)
    assert [("link", [], ["try-1"])] == seen
    assert os.path.samefile(current_owner(store).path, attempt.state_path)
    attempt.files_directory()
    assert ["a1", "try-1"] == names(place)
    seen.clear()
    assert publish(attempt)
    assert [
        ("link", ["a1", "tmp-1", "try-1"], ["a1", "done", "tmp-1", "try-1"]),
        ("unlink", ["a1", "done", "tmp-1", "try-1"], ["a1", "done", "try-1"]),
        ("unlink", ["a1", "done", "try-1"], ["a1", "done"]),
    ] == seen
    assert [current_owner(store).record.id] == owners(store)


def test_done_holds_the_result_the_config_and_the_timings() -> None:
    place = artifact()
    attempt = begin(place)
    provenance = Provenance(Origin("train", "/project/train.py", is_script=True), "12ab", "34cd", "3.13.0")
    assert attempt.publish("json", b"[1, 2]", {"lr": 0.1}, provenance)
    document = json.loads(Path(place.files.done).read_bytes())
    assert document.pop("started_at") == attempt.started_at
    assert document.pop("duration_sec") >= 0
    assert {
        "record": "done",
        "format": 1,
        "node_class": place.node_class,
        "hash": place.hash,
        "attempt": 1,
        "codec": "json",
        "config": {"lr": 0.1},
        "result": [1, 2],
        "source": "/project/train.py",
        "from_script": True,
        "code": "12ab",
        "commit": "34cd",
        "python": "3.13.0",
        "furu": furu.__version__,
    } == document


def test_files_directory_is_made_on_first_use() -> None:
    place = artifact()
    attempt = begin(place)
    assert ["try-1"] == names(place)
    assert attempt.files_directory() == attempt.files_directory()
    assert ["a1", "try-1"] == names(place)


def test_publish_keeps_the_files_of_its_attempt(place: Artifact) -> None:
    attempt = begin(place)
    Path(attempt.files_directory(), "model.bin").write_bytes(b"weights")
    attempt.log("trained")
    assert attempt.publish("load", b"null", {})
    assert ["a1", "done"] == names(place)
    assert ["furu.log", "model.bin"] == sorted(os.listdir(files(place)))


def test_running_attempt_is_known_from_its_claim_to_its_end() -> None:
    place = artifact()
    assert running_attempt(place) is None
    attempt = begin(place)
    assert attempt is running_attempt(artifact())
    fail(attempt)
    assert running_attempt(place) is None
    attempt = begin(place)
    assert publish(attempt)
    assert running_attempt(place) is None


# ---- the cost in system calls ----


def test_cold_node_costs_ten_system_calls(store: Path) -> None:
    """Counts all calls of a `get` in a class whose directory exists. Another thread makes most of them for
    the main thread."""
    with use_settings(store=store):
        Square(of=1).get()
        node = Square(of=2)
        with system_calls() as calls:
            assert 4 == node.get()
    ways = ["lstat", "link", "lstat"]
    writes = ["open", "write", "close", "lstat", "link", "unlink", "unlink"]
    assert ways + writes == [name for name, _ in calls]


def test_status_of_a_warm_node_costs_one_stat() -> None:
    node = Square(of=2)
    node.get()
    with system_calls() as calls:
        assert Status.DONE is node.status()
        assert node.exists()
    assert [("lstat", artifact_of(node).files.done)] * 2 == calls


def test_reading_a_warm_node_writes_nothing() -> None:
    """Loading opens and reads `done` once."""
    node = Square(of=2)
    node.get()
    with system_calls() as calls:
        node.get()
    assert ["lstat", "open", "fstat", "read", "close"] == [name for name, _ in calls]


def test_first_claim_lists_no_directory() -> None:
    begin(artifact("another"))
    place = artifact()
    with system_calls() as calls:
        fail(begin(place))
    assert ["link", "lstat"] == [name for name, _ in calls][:2]
    assert "listdir" not in [name for name, _ in calls]
    with system_calls() as calls:
        begin(place)
    assert "listdir" in [name for name, _ in calls]
