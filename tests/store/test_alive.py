"""Deciding whether the owner of an attempt is alive."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from furu import FuruInProgressError, Status
from furu.store.artifact import survey
from furu.store.claim import claim
from furu.store.record import OwnerRecord, decode_attempt
from tests.store.mtimes import touch
from tests.store.processes import (
    HOLD,
    LEASE_SEC,
    Clock,
    Other,
    OtherProcess,
    artifact,
    begin,
    compute,
    current_owner,
    fail,
    leave_attempt,
    names,
    owners,
    publish,
    put,
    refuse,
    result,
)

# ---- alive or dead, on this machine ----


def test_killed_owner_is_dead_at_once(store: Path) -> None:
    """SIGKILL releases the lock. The process that takes the node over removes the dead owner's file."""
    place = artifact()
    with Other(HOLD) as other:
        assert "claimed" == other.hear()
        assert Status.IN_PROGRESS is survey(place).status
        dead = owners(store)
        other.kill()
        assert Status.TODO is survey(place).status
        attempt = begin(place)
    assert 2 == attempt.number
    assert [attempt.owner.record.id] == owners(store)
    assert dead != owners(store)


def test_stopped_owner_stays_alive(store: Path, clock: Clock) -> None:
    """A stopped process keeps its lock, although it does not beat for many leases."""
    place = artifact()
    with Other(HOLD) as other:
        assert "claimed" == other.hear()
        os.kill(other.process.pid, signal.SIGSTOP)
        os.waitpid(other.process.pid, os.WUNTRACED)
        for _ in range(3):
            clock.now += 10 * LEASE_SEC
            assert Status.IN_PROGRESS is survey(place).status
            with pytest.raises(FuruInProgressError, match=f"pid {other.process.pid}"):
                claim(place)
    assert ["try-1"] == names(place)


def test_copy_of_an_attempt_has_a_dead_owner(store: Path) -> None:
    """A copy is a separate file without a lock, even while the owner of the original is alive."""
    place, copied = artifact(), artifact("copied")
    with Other(HOLD) as other:
        assert "claimed" == other.hear()
        os.makedirs(copied.files.directory)
        shutil.copy2(place.files.attempt(1), copied.files.attempt(1))
        assert Status.TODO is survey(copied).status
        assert 2 == begin(copied).number
        assert Status.IN_PROGRESS is survey(place).status
        assert 2 == len(owners(store))


def test_taker_keeps_an_owner_file_with_another_inode() -> None:
    """The name of the dead owner's file belongs to another file now."""
    place = artifact()
    path = leave_attempt(place)
    path.unlink()
    path.write_text("another")
    assert 2 == begin(place).number
    assert "another" == path.read_text()


def test_attempt_whose_end_cannot_be_written_is_dead_once_its_owner_is_idle(
    store: Path, other: OtherProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process continues to run without blocking the node, and still holds its other nodes."""
    place, running = artifact(), begin(artifact("running"))
    attempt = begin(place)
    owner = attempt.owner
    assert owner is not None
    with monkeypatch.context() as patches:
        patches.setattr(os, "replace", refuse(errno.ENOSPC))
        assert fail(attempt) is not None
    assert Status.TODO is survey(place).status
    assert Status.IN_PROGRESS is other.status(running.artifact)
    assert os.path.exists(owner.path)
    assert current_owner(store) is not owner
    assert publish(running)
    assert not os.path.exists(owner.path)
    assert Status.TODO is other.status(place)
    assert 2 == other.begin(place).number


# ---- alive or dead, on another machine ----


def test_owner_of_another_machine_is_dead_after_a_full_lease_without_a_change(clock: Clock) -> None:
    """The lease is measured with this process's own clock, from its first look at the owner's file."""
    place = artifact()
    leave_attempt(place, boot_id="another boot")
    assert Status.IN_PROGRESS is survey(place).status
    clock.now += LEASE_SEC - 0.001
    assert Status.IN_PROGRESS is survey(place).status
    with pytest.raises(FuruInProgressError, match="elsewhere"):
        claim(place)
    clock.now += 0.001
    assert 2 == begin(place).number


def test_every_change_of_the_mtime_restarts_the_lease(clock: Clock) -> None:
    """The mtime may change forwards or backwards, because clocks of two machines are never compared."""
    place = artifact()
    path = leave_attempt(place, boot_id="another boot")
    for mtime in (10**9, 5 * 10**18, 3, 2, 1):
        os.utime(path, ns=(mtime, mtime))
        assert Status.IN_PROGRESS is survey(place).status
        clock.now += LEASE_SEC - 1
        assert Status.IN_PROGRESS is survey(place).status
    clock.now += 1
    assert Status.TODO is survey(place).status


HOUR_NS = 3600 * 10**9


@pytest.mark.parametrize(
    "mtime_ns",
    [0, 2**62, time.time_ns() - HOUR_NS, time.time_ns() + HOUR_NS],
    ids=["long ago", "in the future", "an hour behind", "an hour ahead"],
)
def test_wrong_clock_of_the_other_machine_does_not_matter(mtime_ns: int, clock: Clock) -> None:
    """The owner counts as alive from the first look, and as dead one lease after its last beat."""
    place = artifact()
    path = leave_attempt(place, boot_id="another boot")
    for beat in range(3):
        os.utime(path, ns=(mtime_ns + beat, mtime_ns + beat))
        assert Status.IN_PROGRESS is survey(place).status
        clock.now += LEASE_SEC - 1
    clock.now += 1
    assert Status.TODO is survey(place).status


def test_live_owner_of_this_machine_with_a_back_dated_file_is_alive(store: Path, clock: Clock) -> None:
    """On this machine only the owner's lock counts."""
    place = artifact()
    with Other(HOLD) as other:
        assert "claimed" == other.hear()
        os.utime(store / "owners" / owners(store)[0], ns=(0, 0))
        for _ in range(2):
            assert Status.IN_PROGRESS is survey(place).status
            clock.now += 2 * LEASE_SEC


def test_claim_after_status_todo_takes_the_node_over(clock: Clock) -> None:
    """A run reads the status first and claims the node later."""
    place = artifact()
    leave_attempt(place, boot_id="another boot")
    survey(place)
    clock.now += LEASE_SEC
    assert [Status.TODO] * 3 == [survey(place).status for _ in range(3)]
    assert 2 == begin(place).number


def test_publish_removes_files_of_a_dead_owner_of_another_machine(clock: Clock) -> None:
    place = artifact()
    leave_attempt(place, boot_id="another boot")
    put(f"{place.files.files(1, '0f')}/large", "x")
    survey(place)
    clock.now += LEASE_SEC
    compute(place)
    assert ["done"] == names(place)


def test_several_dead_owners_of_other_machines_do_not_block_a_replacement(clock: Clock) -> None:
    """An owner that was found dead stays dead while the claimer waits for the lease of the next owner."""
    place = artifact()
    compute(place, "old")
    for number in (2, 3):
        leave_attempt(place, number, boot_id="another boot")
    for _ in range(4):
        with contextlib.suppress(FuruInProgressError):
            attempt = claim(place, lambda: result(place) == "old")
            break
        clock.now += LEASE_SEC
    else:
        pytest.fail("never replaced")
    assert attempt is not None
    assert 4 == attempt.number


def test_owner_that_comes_back_after_its_lease_is_alive_again(clock: Clock) -> None:
    """A change of the mtime of its file shows that the owner is alive."""
    place = artifact()
    path = leave_attempt(place, boot_id="another boot")
    survey(place)
    clock.now += LEASE_SEC
    assert Status.TODO is survey(place).status
    touch(path)
    assert Status.IN_PROGRESS is survey(place).status


@pytest.mark.parametrize(("mine", "theirs"), [(30.0, 90.0), (90.0, 30.0)])
def test_longer_of_two_leases_counts(mine: float, theirs: float, clock: Clock) -> None:
    """An owner beats at the interval of its own lease, which may differ from the observer's lease."""
    place = artifact(lease_sec=mine)
    leave_attempt(artifact(lease_sec=theirs), boot_id="another boot")
    survey(place)
    clock.now += 89
    assert Status.IN_PROGRESS is survey(place).status
    clock.now += 1
    assert Status.TODO is survey(place).status


def test_unlocked_owner_on_another_device_is_judged_by_its_lease(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The boot id is the same, but the lock may not be visible through another device."""
    place = artifact()
    path = leave_attempt(place)
    record = decode_attempt(path.read_bytes())
    assert isinstance(record, OwnerRecord)
    document = json.loads(path.read_bytes())
    document["device"] += 1
    path.write_text(json.dumps(document))
    assert Status.IN_PROGRESS is survey(place).status
    clock.now += LEASE_SEC
    assert Status.TODO is survey(place).status


def test_two_unknown_boot_ids_do_not_count_as_the_same_machine(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = artifact()
    leave_attempt(place, boot_id="")
    monkeypatch.setattr("furu.store.local.boot_id", lambda: "")
    assert Status.IN_PROGRESS is survey(place).status
    clock.now += LEASE_SEC
    assert Status.TODO is survey(place).status


def test_heartbeat_of_a_live_process_keeps_another_machine_away(clock: Clock) -> None:
    """The owner stays alive for any number of leases."""
    place = artifact()
    script = """
import itertools
become("another boot")
attempt = begin(artifact())
say(attempt.owner.path)
for beat in itertools.count(1):
    hear()
    os.utime(attempt.owner.file.number, (0, beat))
    say("beaten")
"""
    with Other(script) as other:
        other.hear()
        for _ in range(3):
            assert Status.IN_PROGRESS is survey(place).status
            clock.now += LEASE_SEC
            assert "beaten" == other.ask("beat")
            assert Status.IN_PROGRESS is survey(place).status
        clock.now += LEASE_SEC
        assert Status.TODO is survey(place).status
