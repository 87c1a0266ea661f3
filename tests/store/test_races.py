"""Claims, releases and removals while another owner acts between their steps."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from furu import FuruInProgressError, FuruStoreError, Status, current_settings
from furu.node.base import artifact_of
from furu.store.artifact import Artifact, survey
from furu.store.attempt import Attempt
from furu.store.catalog import find
from furu.store.claim import claim
from furu.store.leftovers import KEPT_RECORDS
from furu.store.removal import remove
from tests.store.processes import (
    LEASE_SEC,
    OtherProcess,
    Square,
    artifact,
    begin,
    begin_or_none,
    compute,
    fail,
    files,
    instead,
    lease_clock,
    leave_attempt,
    names,
    once_before,
    owners,
    publish,
    put,
    remove_by_hand,
    result,
)


def test_claim_with_a_low_number_gives_way_to_later_attempts(place: Artifact, other: OtherProcess) -> None:
    """The number of the claim is free again because old records were removed. The claim must take a higher
    number, because the highest attempt determines the status of the node."""
    fail(begin(place))

    def fail_often() -> None:
        for _ in range(KEPT_RECORDS + 2):
            other.fail(other.begin(place))
        assert "try-2" not in names(place)

    with once_before("link", "/try-2", fail_often):
        attempt = begin(place)
    assert Status.IN_PROGRESS is survey(place).status
    assert Status.IN_PROGRESS is other.status(place)
    assert attempt.number == survey(place).attempt
    fail(attempt)
    assert other.publish(
        other.begin(place)
    )  # the first link, which the claim gave up, does not block others


def test_overtaken_claim_keeps_the_published_files(
    place: Artifact, stranger: OtherProcess, other: OtherProcess
) -> None:
    """Another process publishes right before the paused process would remove leftover files."""

    def take_over() -> None:
        with other.running(), lease_clock() as clock:
            survey(place)
            clock.now += LEASE_SEC
            winner = begin(place)
            put(f"{winner.files_directory()}/file", "theirs")
            assert publish(winner, "theirs")

    os.makedirs(place.files.directory)  # so that the claimer searches it for leftover files
    paused = stranger.begin(place)
    with stranger.running(), once_before("listdir", f"{place.hash}.d", take_over):
        paused.files_directory()
    assert not stranger.publish(paused, "late")
    assert "theirs" == result(place)
    with open(f"{files(place)}/file", encoding="utf-8") as file:
        assert "theirs" == file.read()


def test_owner_that_publishes_during_a_takeover_wins(place: Artifact, stranger: OtherProcess) -> None:
    """The owner publishes after the new claimer has checked `done` and before it checks other attempts."""
    paused = stranger.begin(place)
    published: list[bool] = []

    def come_back(original: Callable[..., int], path: str, flags: int, *mode: int) -> int:
        if path.endswith(".try-1") and flags & os.O_EXCL and not published:
            published.append(stranger.publish(paused, "theirs"))
        return original(path, flags, *mode)

    with lease_clock() as clock:
        survey(place)
        clock.now += LEASE_SEC
        with instead("open", come_back):
            assert begin_or_none(place) is None
    assert [True] == published
    assert "theirs" == result(place)


def test_owner_of_a_node_that_is_taken_over_is_removed(
    place: Artifact, other: OtherProcess, store: Path
) -> None:
    mine = begin(artifact("mine"))
    assert mine.owner is not None
    other.begin(place)
    other.die()
    assert publish(begin(place))
    assert [mine.owner.record.id] == owners(store)


def test_attempts_whose_owners_seem_dead_keep_their_names(place: Artifact) -> None:
    """The owners may be paused on another machine, and may publish later."""
    numbers = range(1, KEPT_RECORDS + 4)
    os.makedirs(place.settings.store, exist_ok=True)
    for number in numbers:
        leave_attempt(place, number)
    attempt = begin(place)
    assert {f"try-{number}" for number in (*numbers, attempt.number)} == set(names(place))


def test_claimers_that_give_way_pause_longer_each_time(
    place: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first few tries have no pause, because one or two clashes are common."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)

    def refuse(original: Callable[..., Any], source: str, target: str) -> None:
        if not target.endswith(".try-1"):
            return original(source, target)
        raise FileNotFoundError(target)

    with instead("link", refuse), pytest.raises(FuruStoreError, match="keeps changing"):
        claim(place)
    assert len(pauses) > 10
    assert sorted(pauses) == pauses
    assert pauses[0] < pauses[-1] <= 1


def test_attempt_whose_name_is_anothers_does_not_publish(place: Artifact, other: OtherProcess) -> None:
    """The node was removed by hand, and another process computes it again."""
    late = begin(place)
    remove_by_hand(place)
    later = other.begin(place)
    assert not publish(late, "late")
    assert Status.IN_PROGRESS is other.status(place)
    assert other.publish(later, "later")
    assert "later" == result(place)


class Checked(Square):
    """Valid if its value is 9."""

    def _validate(self) -> bool:
        return self.get() == 9


def test_good_artifact_that_replaced_a_rejected_one_is_loaded(other: OtherProcess) -> None:
    """Another process publishes the good artifact after this process has rejected the old one."""
    node = Checked(of=2)
    place = artifact_of(node)
    compute(place, 5)

    def replace() -> None:
        assert other.publish(other.begin(place, lambda: True), 9)

    assert Status.TODO is node.status()
    with once_before("link", ".try-1", replace):
        assert 9 == node.get()
    assert 9 == result(place)


def test_release_keeps_a_name_of_another_attempt(place: Artifact, other: OtherProcess) -> None:
    """Both attempts have the same number, and therefore the same name."""
    late = begin(place)
    remove_by_hand(place)
    later = other.begin(place)
    assert late.state_path == later.state_path
    late.close()
    assert Status.IN_PROGRESS is survey(place).status
    assert begin_or_none(place) is None
    assert other.publish(later)


def test_removal_keeps_an_attempt_that_begins_as_soon_as_the_node_is_free(other: OtherProcess) -> None:
    """The new attempt begins as soon as the removal frees the name `try-1`."""
    node = Square(of=3)
    node.get()
    begun: list[Attempt] = []

    def begin_at_once(original: Callable[..., None], path: str, **options: Any) -> None:
        original(path, **options)
        if path == artifact_of(node).files.attempt(1) and not node.exists() and not begun:
            other.fail(other.begin(artifact_of(node)))
            begun.append(other.begin(artifact_of(node)))  # has the number of the removal's own claim

    with instead("unlink", begin_at_once):
        assert remove(find(current_settings(), node.furu_hash))
    assert Status.IN_PROGRESS is node.status()
    with pytest.raises(FuruInProgressError):
        claim(artifact_of(node))
    assert other.publish(begun[0], 9)
    assert 9 == node.get()


def test_removed_node_is_claimed_by_one_at_every_step(place: Artifact, other: OtherProcess) -> None:
    """The removal holds the node until the node's last name is gone, so no other claim succeeds."""
    attempt = begin(place)
    attempt.files_directory()
    assert publish(attempt)
    claims: list[Attempt | None] = []

    def rename_and_claim(original: Callable[..., None], source: str, target: str) -> None:
        original(source, target)
        claims.append(other.begin_or_none(place))

    with instead("rename", rename_and_claim):
        assert remove(place)
    assert [None, None] == claims
    assert [] == names(place)


def test_removal_takes_what_a_paused_owner_publishes_meanwhile(
    place: Artifact, stranger: OtherProcess
) -> None:
    """The owner publishes right before the removal renames the directory with the owner's files."""
    fail(begin(place))
    paused = stranger.begin(place)
    with stranger.running():
        put(f"{paused.files_directory()}/file", "theirs")
    published: list[bool] = []

    def publish_first(original: Callable[..., None], source: str, target: str) -> None:
        if source == place.files.directory:
            published.append(stranger.publish(paused, "theirs"))
        original(source, target)

    with lease_clock() as clock:
        survey(place)
        clock.now += LEASE_SEC
        with instead("rename", publish_first):
            assert remove(place)
    assert [True] == published
    assert [] == names(place)
