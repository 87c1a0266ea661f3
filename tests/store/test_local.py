"""What a process remembers about its stores: owners in use, and attempts from claim to release."""

from __future__ import annotations

import errno
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from furu import Furu, FuruInProgressError, FuruStoreError, Status, current_settings, use_settings
from furu.node.base import artifact_of
from furu.store import owner as owner_module
from furu.store.artifact import Artifact, survey
from furu.store.catalog import find
from furu.store.claim import claim, when_released
from furu.store.local import Process, acting_as
from furu.store.removal import remove
from tests.store.processes import (
    LEASE_SEC,
    OtherProcess,
    Square,
    artifact,
    begin,
    compute,
    current_owner,
    fail,
    failing,
    instead,
    lease_clock,
    leave_attempt,
    names,
    once_before,
    owners,
    publish,
    remove_by_hand,
    result,
)


@pytest.fixture
def process() -> Iterator[Process]:
    """A `Process` without owners and attempts, which represents this process during the test."""
    process = Process(beats=False)
    with acting_as(process):
        yield process
    process.end()


# ---- owners ----


def test_few_owners_without_attempts_are_kept(process: Process, tmp_path: Path) -> None:
    """A hundred stores that are used one after another need only a few descriptors."""
    for number in range(100):
        with use_settings(store=tmp_path / f"store{number}"):
            compute(artifact())
    assert len(process.owners) <= 4
    assert [1] * len(process.owners) == [len(owners(owner.place)) for owner in process.owners]
    assert [] == owners(tmp_path / "store0")


def test_owners_in_use_are_never_ended(process: Process, tmp_path: Path) -> None:
    held = []
    for number in range(20):
        with use_settings(store=tmp_path / f"store{number}"):
            held.append(begin(artifact()))
    assert 20 == len(process.owners)
    with OtherProcess() as other:
        assert {Status.IN_PROGRESS} == {other.status(attempt.artifact) for attempt in held}
    for attempt in held:
        assert publish(attempt)
    assert len(process.owners) <= 4


def test_heartbeat_ends_idle_owners_and_then_itself() -> None:
    """A store that is not in use has no descriptor, lock or thread."""
    process = Process(idle_sec=0.01)
    with acting_as(process), use_settings(lease_sec=0.06):
        compute(artifact())
        hearts = [thread for thread in threading.enumerate() if thread.name == "furu-heartbeat"]
        hearts[-1].join(10)
        assert [] == process.owners
        compute(artifact("second"))
    process.end()


def test_heartbeat_that_cannot_start_leaves_no_owner_and_is_tried_again(
    place: Artifact, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread can be started. If other machines may check heartbeats, the claim raises an error and
    leaves no owner. On a local filesystem no other machine can, so nodes are computed without them."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    process = Process()
    with acting_as(process):
        with monkeypatch.context() as patches:
            patches.setattr(threading.Thread, "start", refuse)
            compute(artifact("local"))
            process.end()
            patches.setattr("furu.store.local.locks_are_all_here", lambda directory: False)
            with pytest.raises(FuruStoreError, match="can't start new thread"):
                claim(place)
        assert ([], []) == (process.owners, owners(store))
        compute(place)
        assert 1 == len(process.owners)
    process.end()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> queue.SimpleQueue[float | None]:
    """A queue of timeouts: one for each wait of a heartbeat thread that starts during the test."""
    pauses: queue.SimpleQueue[float | None] = queue.SimpleQueue()
    real, earlier = threading.Event.wait, threading.enumerate()

    def wait(self: threading.Event, timeout: float | None = None) -> bool:
        thread = threading.current_thread()
        if thread.name == "furu-heartbeat" and thread not in earlier:
            pauses.put(timeout)
        return real(self, timeout)

    monkeypatch.setattr(threading.Event, "wait", wait)
    return pauses


def test_heart_beats_six_times_in_a_lease(pauses: queue.SimpleQueue[float | None]) -> None:
    """Another machine has to miss five beats before it takes a live owner for dead."""
    process = Process()
    with acting_as(process), use_settings(lease_sec=6.0):
        attempt = begin(artifact())
        assert 1.0 == pauses.get(timeout=5)
        assert publish(attempt)
    process.end()


def test_new_owner_with_a_shorter_lease_beats_soon(
    tmp_path: Path, pauses: queue.SimpleQueue[float | None]
) -> None:
    """The heartbeat does not wait for as long as the longer lease of an earlier owner allows."""
    process = Process()
    with acting_as(process):
        with use_settings(store=tmp_path / "slow", lease_sec=3600.0):
            slow = begin(artifact())
        assert (pauses.get(timeout=5) or 0.0) > 4
        with use_settings(store=tmp_path / "quick", lease_sec=0.06):
            quick = begin(artifact())
        assert 0.01 == pytest.approx(pauses.get(timeout=3))
        assert publish(slow)
        assert publish(quick)
    process.end()


def test_heartbeat_checks_an_idle_owner_soon(
    place: Artifact, pauses: queue.SimpleQueue[float | None]
) -> None:
    """The heartbeat waits only briefly, even if the owner's lease is long."""
    process = Process()
    with acting_as(process):
        with process.lock:  # so that the heartbeat starts after the attempt has ended
            compute(place)
        assert (pauses.get(timeout=5) or 0.0) < place.settings.lease_sec / 6
    process.end()


def test_owner_with_as_many_links_as_the_filesystem_allows_is_replaced(process: Process) -> None:
    """ext4 allows 65,000 links to a file. The next attempt is a link to a new owner."""
    first = begin(artifact("first"))

    def full(original: Callable[..., None], source: str, target: str) -> None:
        if first.owner is not None and source == first.owner.path:
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        original(source, target)

    with instead("link", full):
        second = begin(artifact("second"))
    assert first.owner is not second.owner
    assert [Status.IN_PROGRESS] * 2 == [survey(one.artifact).status for one in (first, second)]
    assert publish(first)
    assert publish(second)


def test_class_whose_directory_is_on_another_disk_has_an_owner_there(
    process: Process, place: Artifact, store: Path
) -> None:
    """Hard links do not work across disks. Other processes see that the node is being computed."""

    def across(original: Callable[..., None], source: str, target: str) -> None:
        if source.startswith(f"{store}/owners/") and ("try-" in target or target == place.files.done):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        original(source, target)

    with instead("link", across):
        attempt = begin(place)
        assert attempt.owner is not None
        assert Path(place.files.class_directory) == attempt.owner.place
        with OtherProcess() as other:
            assert Status.IN_PROGRESS is other.status(place)
        assert publish(attempt)
        compute(artifact("second"))


def test_copy_of_a_virtual_machine_waits_for_two_beats_before_it_takes_over(
    place: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy has the boot id and the device numbers of the original. If both machines can reach a
    filesystem, each may be unable to see the other's locks."""
    path = leave_attempt(place)
    assert Status.TODO is survey(place).status
    monkeypatch.setattr(owner_module, "locks_are_all_here", lambda directory: False)
    with lease_clock() as clock:
        for _ in range(3):
            assert Status.IN_PROGRESS is survey(place).status
            clock.now += LEASE_SEC / 6
            os.utime(path)
        assert Status.IN_PROGRESS is survey(place).status
        clock.now += LEASE_SEC / 3
        assert Status.TODO is survey(place).status


def test_filesystem_of_a_temporary_directory_is_local(tmp_path: Path) -> None:
    """On a local filesystem a killed owner's node is taken over at once."""
    assert owner_module.locks_are_all_here(str(tmp_path))


def test_number_of_a_closed_lock_is_left_to_the_file_that_reuses_it(
    process: Process, place: Artifact, caplog: pytest.LogCaptureFixture
) -> None:
    """A node may close all descriptors. Then another file gets the number of the lock's descriptor."""
    attempt = begin(place)
    owner = attempt.owner
    assert owner is not None
    number = owner.file.number
    os.close(number)
    foreign = os.open(os.devnull, os.O_RDONLY)
    assert number == foreign
    assert not owner.has_its_file
    assert publish(attempt)
    process.end()
    os.fstat(foreign)
    os.close(foreign)


# ---- attempts ----


def test_node_is_in_progress_from_its_link_on(place: Artifact) -> None:
    """Other threads never see a node as TODO while it is being claimed."""
    seen: list[Status] = []

    def look() -> None:
        thread = threading.Thread(target=lambda: seen.append(survey(place).status))
        thread.start()
        thread.join()

    begin(artifact("another"))
    with once_before("lstat", place.hash, look):
        begin(place)
    assert [Status.IN_PROGRESS] == seen


def test_unregistered_waiter_is_not_called(place: Artifact) -> None:
    """The other waiters are called, even if one of them raises."""
    attempt = begin(place)
    called: list[str] = []

    def broken() -> None:
        called.append("broken")
        raise ValueError("a waiter's own")

    take_back = when_released(place, lambda: called.append("taken back"))
    when_released(place, broken)
    when_released(place, lambda: called.append("kept"))
    assert take_back is not None
    take_back()
    logging.disable(logging.CRITICAL)
    try:
        assert publish(attempt)
    finally:
        logging.disable(logging.NOTSET)
    assert ["broken", "kept"] == called
    assert when_released(place, lambda: None) is None


def test_waiter_is_registered_under_the_lock_that_a_release_takes(process: Process) -> None:
    """Otherwise a waiter that registers during a release could wait forever."""
    was_free: list[bool] = []

    def look() -> None:
        free = process.lock.acquire(blocking=False)
        was_free.append(free)
        if free:
            process.lock.release()

    class Name(str):
        """A name that tests the lock from another thread each time the name is hashed."""

        __slots__ = ()

        def __hash__(self) -> int:
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
            return super().__hash__()

    attempt = begin(artifact())
    called: list[str] = []
    assert process.when_released(Name(attempt.node), lambda: called.append("released"))
    assert {False} == set(was_free)
    assert publish(attempt)
    assert ["released"] == called


def test_log_of_an_attempt_that_has_ended_writes_no_file(place: Artifact) -> None:
    """A thread that outlives the attempt may still log."""
    attempt = begin(place)
    fail(attempt)
    attempt.log("late")
    assert ["try-1"] == names(place)


def test_listed_attempt_that_cannot_be_opened_is_an_error(place: Artifact) -> None:
    """The survey does not loop forever."""
    os.makedirs(place.files.directory)
    stale = instead("listdir", lambda original, path: [*original(path), "try-7"])
    with stale, pytest.raises(FuruStoreError, match="try-7 is listed and cannot be opened"):
        survey(place)


def test_removal_whose_rename_fails_leaves_the_artifact_and_the_node_free() -> None:
    """The artifact stays published, and can be removed later."""
    node = Square(of=3)
    assert 9 == node.get()
    entry = find(current_settings(), node.furu_hash)
    with failing("rename", errno.EACCES), pytest.raises(FuruStoreError, match="Permission denied"):
        remove(entry)
    assert Status.DONE is node.status()
    assert 9 == node.get()
    with OtherProcess() as other:
        assert Status.DONE is other.status(artifact_of(node))
    assert remove(entry)
    assert Status.TODO is node.status()


def test_artifact_is_loaded_while_it_is_removed(place: Artifact) -> None:
    """The node is DONE until its document is renamed."""
    node = Square(of=3)
    node.get()
    entry = find(current_settings(), node.furu_hash)
    loaded: list[int] = []
    with once_before("rename", node.furu_hash, lambda: loaded.append(node.get())):
        assert remove(entry)
    assert [9] == loaded


def test_failed_sync_after_the_link_does_not_unpublish(
    place: Artifact, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Other processes may have read the artifact. The log says that it may not survive a power cut."""
    place = artifact(durability="power")
    attempt = begin(place)
    real = os.fsync

    def broken(descriptor: int) -> None:
        if place.is_done():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    with monkeypatch.context() as patches:
        patches.setattr(os, "fsync", broken)
        assert publish(attempt, "kept")
    assert "kept" == result(place)
    assert "may not survive a power cut" in caplog.text


def test_files_that_the_node_removed_are_not_in_its_artifact(place: Artifact) -> None:
    """A JSON value is published without the files. A value that is loaded from files is not published."""
    attempt = begin(place)
    os.rmdir(attempt.files_directory())
    assert publish(attempt)
    assert ["done"] == names(place)
    second = begin(artifact("second"))
    os.rmdir(second.files_directory())
    with pytest.raises(FuruStoreError, match="were removed"):
        second.publish("load", b"null", {})
    assert fail(second) is None


def test_attempt_that_lost_its_name_writes_no_record(place: Artifact) -> None:
    """The node was removed, and another attempt has the same name now."""
    with OtherProcess() as other:
        late = other.begin(place)
        remove_by_hand(place)
        attempt = begin(place)
        assert late.is_lost
        assert other.fail(late) is None
        assert not late.is_lost
        assert Status.IN_PROGRESS is survey(place).status
        with pytest.raises(FuruInProgressError), other.running():
            claim(place)
    assert publish(attempt)


class Nested(Furu[int]):
    """Gets another node that it does not declare."""

    def _create(self) -> int:
        return Square(of=2).get() + 1


def test_memory_of_a_process_is_empty_when_its_nodes_are_done(process: Process) -> None:
    """The nodes were computed, loaded, or have failed."""
    assert 5 == Nested().get() == Nested().get()
    fail(begin(artifact("failed")))
    current_owner(current_settings().store)
    assert [None] * 3 == [
        process.attempt_at(node.files.done)
        for node in (artifact_of(Nested()), artifact_of(Square(of=2)), artifact("failed"))
    ]
    assert {0} == {owner.attempts for owner in process.owners}


def test_files_that_cannot_be_checked_are_not_left_out_of_the_artifact(place: Artifact) -> None:
    """After an I/O error nothing is published, and the attempt can end."""
    attempt = begin(place)
    directory = attempt.files_directory()
    with failing("stat", errno.EIO, os.path.basename(directory)), pytest.raises(FuruStoreError):
        publish(attempt)
    assert not place.is_done()
    assert fail(attempt) is None
