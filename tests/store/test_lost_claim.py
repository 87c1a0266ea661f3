"""Owners that have lost their claims to another process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from furu import Status
from furu.store.artifact import Artifact, survey
from furu.store.attempt import Attempt
from furu.store.claim import claim
from tests.store.processes import (
    LEASE_SEC,
    Other,
    OtherProcess,
    artifact,
    begin,
    begin_or_none,
    compute,
    files,
    lease_clock,
    names,
    once_before,
    publish,
    put,
    rejecting,
    result,
)

# A process of another machine, which takes this process for dead.
TAKER = """
clock = Clock()
become("another boot", clock)
place = artifact()
say(survey(place).status.value)
clock.now += 1000
attempt = begin(place)
put(attempt.files_directory() + "/file", "theirs")
say(attempt.number)
if hear() == "publish":
    say(publish(attempt, "theirs"))
hear()
"""


def test_owner_that_lost_its_claim_leaves_no_files_behind() -> None:
    """Later no process could know that the files are useless."""
    place = artifact()
    mine = begin(place)
    with Other(TAKER) as other:
        assert ["IN_PROGRESS", "2"] == [other.hear(), other.hear()]
        assert "True" == other.ask("publish")
        put(f"{mine.files_directory()}/large", "mine")
        assert not publish(mine, "mine")
    assert ["a2", "done"] == names(place)
    assert "theirs" == Path(files(place), "file").read_text() == result(place)


def taken_over(place: Artifact) -> Attempt:
    """Take a node over from an owner of another machine, whose lease passes without a heartbeat."""
    with lease_clock() as clock:
        survey(place)
        clock.now += LEASE_SEC
        return begin(place)


def test_owner_that_lost_its_claim_does_not_publish(place: Artifact, stranger: OtherProcess) -> None:
    """An owner that was paused for longer than its lease finds the winner's result."""
    paused = stranger.begin(place)
    winner = taken_over(place)
    assert publish(winner, 2)
    assert not stranger.publish(paused, 1)
    assert 2 == result(place)
    assert not [name for name in names(place) if name.startswith("tmp-")]
    with stranger.running():
        assert claim(place) is None


def test_owner_that_lost_its_claim_may_still_publish_first(place: Artifact, stranger: OtherProcess) -> None:
    """If the old owner publishes first, the new owner drops its own result."""
    paused = stranger.begin(place)
    with stranger.running():
        Path(paused.files_directory(), "model.bin").write_bytes(b"weights")
    taker = taken_over(place)
    assert stranger.publish(paused, 1)
    assert not publish(taker, 2)
    assert 1 == result(place)
    assert Path(files(place), "model.bin").read_bytes() == b"weights"


def replace_as_taker(place: Artifact, taker: OtherProcess) -> None:
    """Take a node over from an owner of another machine, whose lease has passed, and publish a value."""
    with taker.running(), lease_clock() as clock:
        survey(place)
        assert (
            begin_or_none(place, rejecting(place)) is None
        )  # the lease begins at this first look at the owner
        clock.now += LEASE_SEC
        assert publish(begin(place, rejecting(place)), "new")


def test_owner_that_lost_its_claim_while_it_published_loses_without_an_error(
    place: Artifact, stranger: OtherProcess, other: OtherProcess
) -> None:
    """The owner is taken for dead between writing its document and linking it."""
    paused = stranger.begin(place)
    with once_before("link", place.hash, lambda: replace_as_taker(place, other)):
        assert not stranger.publish(paused, "late")
    assert "new" == result(place)
    assert {"done", "try-1"} >= set(names(place))


@pytest.mark.parametrize(("name", "ending"), [("rename", "/rejected-2"), ("lstat", "/rejected-2")])
def test_replacer_that_is_taken_for_dead_leaves_the_takers_result(
    place: Artifact, stranger: OtherProcess, other: OtherProcess, name: str, ending: str
) -> None:
    """The replacer is paused right before or right after it renames the rejected artifact."""
    compute(place, "old")
    with once_before(name, ending, lambda: replace_as_taker(place, other)):
        assert stranger.begin_or_none(place, rejecting(place)) is None
    assert "new" == result(place)
    assert [] == [one for one in names(place) if one.startswith("rejected-")]


def test_failure_of_an_owner_that_lost_its_claim_changes_nothing(
    place: Artifact, stranger: OtherProcess
) -> None:
    """The old owner fails while the new owner computes, or after the new owner has published."""
    late, later = stranger.begin(place), stranger.begin(artifact("another"))
    with lease_clock() as clock:
        survey(place)
        clock.now += LEASE_SEC
        winner = begin(place)
        survey(later.artifact)
        clock.now += LEASE_SEC
        other_winner = begin(later.artifact)
    stranger.fail(late)
    assert Status.IN_PROGRESS is survey(place).status
    assert publish(winner)
    assert publish(other_winner)
    stranger.fail(later)
    assert Status.DONE is survey(place).status
    assert Status.DONE is survey(later.artifact).status


def test_publish_keeps_files_of_a_live_owner(place: Artifact, stranger: OtherProcess) -> None:
    """An owner that was paused for longer than its lease may still be writing."""
    paused = stranger.begin(place)
    with stranger.running():
        Path(paused.files_directory(), "model.bin").write_bytes(b"weights")
    with lease_clock() as clock:
        survey(place)
        clock.now += LEASE_SEC
        winner = begin(place)
        stranger.beat()
        assert publish(winner)
    assert Path(files(place, 1), "model.bin").exists()
    assert os.path.exists(paused.state_path)
