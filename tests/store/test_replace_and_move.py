"""Replaced, moved and removed artifacts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from furu import Furu, FuruInProgressError, Status
from furu.node.base import artifact_of
from furu.settings import use_settings
from furu.store.artifact import Artifact, survey
from furu.store.claim import claim
from tests.store.processes import (
    Square,
    artifact,
    begin,
    compute,
    fail,
    names,
    publish,
    put,
    rejecting,
    remove_by_hand,
    result,
)

# ---- replacing what `_validate` rejected ----


def test_rejected_artifact_is_replaced(place: Artifact) -> None:
    """The new attempt has the next number. The old files are kept until the new artifact is published."""
    old = begin(place)
    old.files_directory()
    publish(old, 1)
    attempt = begin(place, rejecting(place, 1))
    assert 2 == attempt.number
    assert ["a1", "rejected-2", "try-1", "try-2"] == names(place)
    assert Status.IN_PROGRESS is survey(place).status
    assert publish(attempt, 2)
    assert ["done"] == names(place)
    assert 2 == result(place)
    assert claim(place, rejecting(place, 1)) is None


def test_accepted_done_stays() -> None:
    place = artifact()
    compute(place, "new")
    assert claim(place, rejecting(place)) is None
    assert claim(place) is None
    assert (["done"], "new") == (names(place), result(place))


def test_rejected_done_is_replaced_again_and_again() -> None:
    """Attempt numbers increase, and no old files remain."""
    place = artifact()
    compute(place, "old")
    for number in range(2, 6):
        attempt = begin(place, rejecting(place))
        assert number == attempt.number
        put(f"{attempt.files_directory()}/file", "x")
        assert publish(attempt, "old")
        assert [f"a{number}", "done"] == names(place)


def test_rejected_done_can_be_replaced_after_a_replacement_that_failed() -> None:
    """One process rejects an artifact, fails to replace it, replaces it, and rejects the new artifact."""
    place = artifact()
    compute(place, "old")
    fail(begin(place, rejecting(place)))
    assert Status.FAILED is survey(place).status
    attempt = begin(place, rejecting(place))
    assert 3 == attempt.number
    assert publish(attempt, "old")
    attempt = begin(place, rejecting(place))
    assert publish(attempt, "new")
    assert "new" == result(place)


def test_validation_that_raises_leaves_the_artifact_and_the_node_free() -> None:
    """The caller gets the exception of `_validate`."""
    place = artifact()
    compute(place, "old")

    def judge() -> bool:
        raise LookupError("the judge's own")

    with pytest.raises(LookupError):
        claim(place, judge)
    assert (["done"], "old") == (names(place), result(place))
    assert publish(begin(place, rejecting(place)), "new")


class Fickle(Furu[int]):
    name: str
    good = True

    def _validate(self) -> bool:
        return type(self).good

    def _create(self) -> int:
        type(self).good = True
        return 7


def test_rejected_node_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """`exists` and `status` count the rejected artifact as missing, and `get` computes the node again."""
    node = Fickle(name="x")
    assert 7 == node.get()
    monkeypatch.setattr(Fickle, "good", False)
    assert (False, Status.TODO) == (node.exists(), node.status())
    assert 7 == node.get()
    assert (True, Status.DONE) == (node.exists(), node.status())
    assert ["done"] == names(artifact_of(node))


# ---- moved and removed ----


def test_moved_store_works(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Square(of=3)
    node.get()
    os.rename(store, tmp_path / "moved")
    monkeypatch.setenv("FURU_PATH", str(tmp_path / "moved"))
    assert (True, 9) == (node.exists(), node.get())


def test_store_reached_by_two_paths_is_one(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second path is a symbolic link to the store."""
    store.mkdir()
    (tmp_path / "link").symlink_to(store)
    attempt = begin(artifact())
    with use_settings(store=tmp_path / "link"):
        assert Status.IN_PROGRESS is survey(artifact()).status
        with pytest.raises(FuruInProgressError):
            claim(artifact())
    assert publish(attempt)
    with use_settings(store=tmp_path / "link"):
        assert artifact().is_done()


def test_removed_node_is_todo() -> None:
    """A user removes the node's files between two calls of `get`."""
    node = Square(of=3)
    node.get()
    remove_by_hand(artifact_of(node))
    assert (Status.TODO, False) == (node.status(), node.exists())
    assert 9 == node.get()
