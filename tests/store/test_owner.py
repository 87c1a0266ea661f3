"""A process as an owner: one file, one lock, one heartbeat; who is alive, and who only looks so."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import signal
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from furu import FuruInProgressError, FuruStoreError, Status
from furu.node.base import artifact_of
from furu.settings import use_settings
from furu.store.artifact import survey
from furu.store.claim import claim
from furu.store.local import Process, acting_as
from furu.store.owner import boot_id
from furu.store.record import OwnerRecord, decode_attempt
from tests.store.processes import (
    HOLD,
    LEASE_SEC,
    Clock,
    Other,
    OtherProcess,
    Square,
    artifact,
    begin,
    compute,
    current_owner,
    fail,
    lease_clock,
    leave_attempt,
    names,
    owners,
    publish,
    put,
    result,
)


@pytest.fixture
def clock() -> Iterator[Clock]:
    """The clock that leases are measured by, at rest until the test moves it."""
    with lease_clock() as clock:
        yield clock


@pytest.fixture
def other() -> Iterator[OtherProcess]:
    """Another process of this machine."""
    with OtherProcess() as process:
        yield process


def touch(path: Path) -> None:
    """What the heartbeat of the owner's own process does."""
    info = os.stat(path)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns + 1))


# ---- one owner for a process ----


def test_process_has_one_owner_in_a_store_and_another_in_the_next(store: Path, tmp_path: Path) -> None:
    """However many nodes it computes, and in however many threads."""
    claimed = [begin(artifact(str(number))) for number in range(5)]
    assert [claimed[0].owner] * 5 == [attempt.owner for attempt in claimed]
    assert [claimed[0].owner.record.id] == owners(store)
    with use_settings(store=tmp_path / "second"):
        other = begin(artifact()).owner
    assert other.record.id != claimed[0].owner.record.id
    assert [other.record.id] == owners(tmp_path / "second")


def test_threads_that_come_first_together_make_one_owner(store: Path) -> None:
    """The first claims of a process may be several at once."""
    together = threading.Barrier(8)
    found: list[Any] = []

    def first() -> None:
        together.wait(10)
        found.append(current_owner(store, LEASE_SEC))

    threads = [threading.Thread(target=first) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (8, 1) == (len(found), len(set(map(id, found))))
    assert 1 == len(owners(store))


def test_owners_file_says_who_it_is_and_is_locked(store: Path) -> None:
    """JSON for people; the lock is what counts."""
    owner = current_owner(store, LEASE_SEC)
    document = json.loads(Path(owner.path).read_bytes())
    assert owner.record == decode_attempt(Path(owner.path).read_bytes())
    assert (owner.record.id, os.getpid(), boot_id()) == (
        document["id"],
        document["pid"],
        document["boot_id"],
    )
    assert f"{store}/owners/{document['id']}" == owner.path
    with open(owner.path, "rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    assert 0o644 & ~_umask() == stat.S_IMODE(os.stat(owner.path).st_mode)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_opening_a_store_leaves_nothing_but_the_owner(store: Path) -> None:
    """No probe, no half-named file."""
    owner = current_owner(store, LEASE_SEC)
    assert ["owners"] == os.listdir(store)
    assert [owner.record.id] == owners(store)


def test_one_heartbeat_touches_every_owner_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six beats in a lease, however many nodes run; a failing one is not the end of it."""
    beats: dict[int, int] = {}
    enough = threading.Event()
    real = os.utime

    def utime(descriptor: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(descriptor, int):
            return real(descriptor, *args, **kwargs)
        beats[descriptor] = beats.get(descriptor, 0) + 1
        if all(beats.get(attempt.owner.file.number, 0) >= 3 for attempt in made):
            enough.set()
        if beats[descriptor] == 1:
            raise OSError(errno.ESTALE, "Stale file handle")
        return real(descriptor, *args, **kwargs)

    made: list[Any] = []
    monkeypatch.setattr(os, "utime", utime)
    with acting_as(Process()):
        for name in ("one", "one", "two"):
            with use_settings(store=tmp_path / name, lease_sec=0.06):
                made.append(begin(artifact(str(len(made)))))
        assert enough.wait(10)
        for attempt in made:
            publish(attempt)


def test_heartbeat_changes_the_mtime_that_others_see(store: Path) -> None:
    """The attempt's link and the owner's file are one inode."""
    attempt = begin(artifact())
    assert attempt.owner is not None
    os.utime(attempt.owner.path, (1, 1))
    os.utime(attempt.owner.file.number)
    assert os.stat(attempt.state_path).st_mtime > 1


@pytest.mark.parametrize("removed", ["owners", "everything"])
def test_process_goes_on_where_somebody_removed_its_owner(removed: str, store: Path) -> None:
    """rm -rf of the store, or of `owners`, costs a new owner and no error."""
    first = begin(artifact("first")).owner
    shutil.rmtree(store / "owners" if removed == "owners" else store)
    compute(artifact("second"))
    second = current_owner(store, LEASE_SEC)
    assert first is not second
    assert [second.record.id] == owners(store)


def test_process_goes_on_where_somebody_removed_one_file_of_its_own(store: Path) -> None:
    """As another process on another machine does after a long pause."""
    first = begin(artifact("first"))
    path = current_owner(store).path
    os.unlink(path)
    compute(artifact("second"))
    assert publish(first)
    assert not os.path.exists(path)


# ---- alive or dead, on this machine ----


def test_killed_owner_is_dead_at_once(store: Path) -> None:
    """SIGKILL frees the lock: no lease to wait for; the taker removes the dead owner's file."""
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


def test_stopped_owner_is_alive_however_long(store: Path, clock: Clock) -> None:
    """SIGSTOP keeps the lock, though the heart stands still for many leases."""
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


def test_copy_of_an_attempt_is_a_dead_owners(store: Path) -> None:
    """On this machine: a plain file that nobody locks, even while the one it was copied from lives."""
    place, copied = artifact(), artifact("copied")
    with Other(HOLD) as other:
        assert "claimed" == other.hear()
        os.makedirs(copied.files.directory)
        shutil.copy2(place.files.attempt(1), copied.files.attempt(1))
        assert Status.TODO is survey(copied).status
        assert 2 == begin(copied).number
        assert Status.IN_PROGRESS is survey(place).status
        assert 2 == len(owners(store))


def test_taker_spares_an_owners_file_that_is_not_the_dead_ones() -> None:
    """The same name, another inode: it is somebody else's by now."""
    place = artifact()
    path = leave_attempt(place)
    path.unlink()
    path.write_text("another")
    assert 2 == begin(place).number
    assert "another" == path.read_text()


def test_attempt_whose_end_cannot_be_written_is_dead_once_its_owner_is_idle(
    store: Path, other: OtherProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process lives on, and keeps the node from no other. What else it computes stays its own."""
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
    """A lease on my own clock, from when I first looked; not a moment less."""
    place = artifact()
    leave_attempt(place, boot_id="another boot")
    assert Status.IN_PROGRESS is survey(place).status
    clock.now += LEASE_SEC - 0.001
    assert Status.IN_PROGRESS is survey(place).status
    with pytest.raises(FuruInProgressError, match="elsewhere"):
        claim(place)
    clock.now += 0.001
    assert 2 == begin(place).number


def test_every_change_of_the_mtime_starts_the_lease_anew(clock: Clock) -> None:
    """Forwards or backwards: a *change* counts, since two machines' clocks are never compared."""
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
    """Neither dead at first sight, nor while it beats, nor alive for ever."""
    place = artifact()
    path = leave_attempt(place, boot_id="another boot")
    for beat in range(3):
        os.utime(path, ns=(mtime_ns + beat, mtime_ns + beat))
        assert Status.IN_PROGRESS is survey(place).status
        clock.now += LEASE_SEC - 1
    clock.now += 1
    assert Status.TODO is survey(place).status


def test_live_owner_of_this_machine_with_a_back_dated_file_is_alive(store: Path, clock: Clock) -> None:
    """Its lock counts, and no time at all."""
    place = artifact()
    with Other(HOLD) as other:
        assert "claimed" == other.hear()
        os.utime(store / "owners" / owners(store)[0], ns=(0, 0))
        for _ in range(2):
            assert Status.IN_PROGRESS is survey(place).status
            clock.now += 2 * LEASE_SEC


def test_claim_after_a_status_that_said_todo_takes_over(clock: Clock) -> None:
    """A run looks first and claims afterwards: who was dead then is dead now."""
    place = artifact()
    leave_attempt(place, boot_id="another boot")
    survey(place)
    clock.now += LEASE_SEC
    assert [Status.TODO] * 3 == [survey(place).status for _ in range(3)]
    assert 2 == begin(place).number


def test_publish_removes_what_a_dead_owner_of_another_machine_left(clock: Clock) -> None:
    """It was dead when it was taken over, and still is when the node is published."""
    place = artifact()
    leave_attempt(place, boot_id="another boot")
    put(f"{place.files.files(1, '0f')}/large", "x")
    survey(place)
    clock.now += LEASE_SEC
    compute(place)
    assert ["done"] == names(place)


def test_several_dead_owners_of_other_machines_do_not_hold_a_replacement_up_for_ever(clock: Clock) -> None:
    """At worst a lease each: those that were seen dead stay dead while the next is waited for."""
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
    """Dead is what it looked like; a change of its mtime says otherwise."""
    place = artifact()
    path = leave_attempt(place, boot_id="another boot")
    survey(place)
    clock.now += LEASE_SEC
    assert Status.TODO is survey(place).status
    touch(path)
    assert Status.IN_PROGRESS is survey(place).status


@pytest.mark.parametrize(("mine", "theirs"), [(30.0, 90.0), (90.0, 30.0)])
def test_longer_of_two_leases_counts(mine: float, theirs: float, clock: Clock) -> None:
    """An owner beats as its own settings say, which may be more slowly than mine."""
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
    """The same boot, another mount of the store: a lock there may not be seen here."""
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


def test_unknown_boot_ids_are_never_the_same_machine(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two machines that cannot tell their boot are not thereby one."""
    place = artifact()
    leave_attempt(place, boot_id="")
    monkeypatch.setattr("furu.store.local.boot_id", lambda: "")
    assert Status.IN_PROGRESS is survey(place).status
    clock.now += LEASE_SEC
    assert Status.TODO is survey(place).status


def test_heartbeat_of_a_live_process_keeps_another_machine_away(clock: Clock) -> None:
    """A process elsewhere that beats is alive after any number of leases."""
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


# ---- the end of a process, forks ----


def test_process_removes_its_owner_at_exit(store: Path) -> None:
    """By returning, by sys.exit, by an exception that nobody catches."""
    for ending, code in [("", 0), ("sys.exit(3)", 3), ("raise ValueError", 1)]:
        with Other(
            f"compute(artifact({ending!r}))\nsay(owners(artifact().settings.store))\n{ending}"
        ) as other:
            assert 1 == len(json.loads(other.hear().replace("'", '"')))
            assert code == other.finish()
        assert [] == owners(store)


def test_forked_worker_of_multiprocessing_removes_its_owner_at_its_end(store: Path) -> None:
    """Such a child ends by os._exit, past atexit; it ends in order all the same."""
    script = """
import multiprocessing
def work():
    compute(artifact())
child = multiprocessing.get_context("fork").Process(target=work)
child.start()
child.join()
say(child.exitcode, owners(artifact().settings.store))
"""
    with Other(script) as other:
        assert "0 []" == other.hear()
    assert artifact().is_done()


def test_fork_child_has_an_owner_of_its_own(store: Path) -> None:
    """It claims as itself, leaves the parent's owner and claims alone, and its end is its own."""
    script = """
import json
mine = begin(artifact("parent's"))
read, write = os.pipe()
child = os.fork()
if child == 0:
    theirs = begin(artifact("child's"))
    seen = survey(artifact("parent's")).status.value
    try:
        claim(artifact("parent's"))
        seen = "claimed"
    except FuruInProgressError:
        pass
    os.write(write, json.dumps([theirs.owner.record.id, theirs.owner.record.pid, seen]).encode())
    sys.exit(0)
os.waitpid(child, 0)
identifier, pid, seen = json.loads(os.read(read, 1000))
say(identifier != mine.owner.record.id, pid == child, seen)
say(survey(artifact("parent's")).status.value, survey(artifact("child's")).status.value)
say(owners(artifact().settings.store) == [mine.owner.record.id])
hear()
"""
    with Other(script) as other:
        assert "True True IN_PROGRESS" == other.hear()
        assert "IN_PROGRESS TODO" == other.hear()
        assert "True" == other.hear()
        assert Status.IN_PROGRESS is survey(artifact("parent's")).status


def test_parents_lock_dies_with_the_parent_though_the_child_lives() -> None:
    """The child holds no copy of the descriptor; its own claims stay alive."""
    script = """
begin(artifact("parent's"))
child = os.fork()
if child == 0:
    begin(artifact("child's"))
    say("ready", os.getpid())
    hear()
    os._exit(0)
os.waitpid(child, 0)
"""
    with Other(script) as other:
        assert other.hear().startswith("ready")
        other.kill()
        assert Status.TODO is survey(artifact("parent's")).status
        assert Status.IN_PROGRESS is survey(artifact("child's")).status
        assert 2 == begin(artifact("parent's")).number


def test_fork_child_computes_what_its_dead_parent_was_computing() -> None:
    """What the parent had in memory of its attempts is not the child's."""
    script = """
begin(artifact())
read, write = os.pipe()
child = os.fork()
if child == 0:
    os.close(write)
    os.read(read, 1)
    say(try_claim(artifact_name).number)
    hear()
    os._exit(0)
say("ready")
hear()
os._exit(9)
""".replace("artifact_name", "'one'")
    with Other(script) as other:
        assert "ready" == other.hear()
        other.tell()
        assert "2" == other.hear()


def test_fork_while_another_thread_claims_leaves_the_child_free_to_claim() -> None:
    """A lock that was held at the fork by a thread that the child does not have is not the child's."""
    script = """
import threading
locked, release = threading.Event(), threading.Event()
def hold():
    with this_process().lock:
        locked.set()
        release.wait(1)
threading.Thread(target=hold).start()
locked.wait()
child = os.fork()
if child == 0:
    compute(artifact())
    say("computed")
    os._exit(0)
hear()
release.set()
os.waitpid(child, 0)
"""
    with Other(script) as other:
        assert "computed" == other.hear()


def test_subprocess_that_outlives_its_parent_does_not_keep_the_parents_claims() -> None:
    """No descriptor of the store's is inherited by what a node starts."""
    script = """
import subprocess
attempt = begin(artifact())
attempt.log("line")
child = subprocess.Popen(["sleep", "30"], close_fds=False)
say(child.pid)
hear()
"""
    with Other(script) as other:
        pid = int(other.hear())
        try:
            other.kill()
            assert Status.TODO is survey(artifact()).status
        finally:
            os.kill(pid, signal.SIGKILL)


# ---- stores that cannot be used ----


@pytest.mark.parametrize("name", ["store", "store/owners"])
def test_store_that_is_a_file_is_one_clear_error(name: str, store: Path, tmp_path: Path) -> None:
    """It names the path and what to set, and the file is left as it was."""
    put(tmp_path / name, "precious")
    with pytest.raises(FuruStoreError) as caught:
        Square(of=2).get()
    assert store == caught.value.path
    assert str(store) in str(caught.value)
    assert "FURU_PATH" in str(caught.value)
    assert "precious" == (tmp_path / name).read_text()


def test_node_directory_that_is_a_file_is_one_clear_error() -> None:
    """At any level below the store."""
    place = artifact()
    put(place.files.directory, "precious")
    with pytest.raises(FuruStoreError, match=place.files.directory):
        claim(place)
    other = Square(of=2)
    put(Path(artifact_of(other).files.directory).parent, "precious")
    with pytest.raises(FuruStoreError):
        other.get()


def refuse(number: int) -> Any:
    def call(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK])
def test_filesystem_without_hard_links_is_found_out_at_the_first_claim(
    number: int, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One clear error that names the store; nothing of the attempt is left."""
    monkeypatch.setattr(os, "link", refuse(number))
    with pytest.raises(FuruStoreError, match="no hard links") as caught:
        claim(artifact())
    assert store == caught.value.path
    assert [] == owners(store)


def test_filesystem_that_copies_where_it_should_link_is_found_out(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link that is not the same file excludes nobody."""
    monkeypatch.setattr(os, "link", shutil.copyfile)
    with pytest.raises(FuruStoreError, match="no hard links"):
        claim(artifact())
    assert [] == owners(store)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL])
def test_filesystem_without_locks_is_found_out_at_the_first_claim(
    number: int, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One clear error that names the store."""
    monkeypatch.setattr(fcntl, "flock", refuse(number))
    with pytest.raises(FuruStoreError, match="file locks do not work") as caught:
        claim(artifact())
    assert store == caught.value.path
    assert [] == owners(store)


def test_filesystem_whose_locks_do_not_hold_is_found_out(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every lock succeeds, so none of them means anything."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    with pytest.raises(FuruStoreError, match="file locks do not work"):
        claim(artifact())
    assert [] == owners(store)


def test_store_that_could_not_be_opened_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the failure is remembered."""
    with monkeypatch.context() as patches:
        patches.setattr(fcntl, "flock", refuse(errno.ENOLCK))
        with pytest.raises(FuruStoreError):
            claim(artifact())
    compute(artifact())
    assert artifact().is_done()


@pytest.mark.parametrize("name", ["open", "write", "link"])
def test_full_disk_at_the_first_claim_is_one_clear_error(
    name: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names a path in the store, and leaves no descriptor open."""
    Path(store).mkdir()
    with monkeypatch.context() as patches:
        patches.setattr(os, name, refuse(errno.ENOSPC))
        with pytest.raises(FuruStoreError, match="No space left") as caught:
            claim(artifact())
    assert str(store) in str(caught.value.path)
    assert [] == owners(store)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EIO])
def test_lock_that_cannot_be_tried_is_a_store_error(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking at a node raises what furu raises, never a bare OSError."""
    place = artifact()
    leave_attempt(place)
    monkeypatch.setattr(fcntl, "flock", refuse(number))
    with pytest.raises(FuruStoreError, match=place.files.directory):
        survey(place)


@pytest.fixture
def shared_directory() -> Iterator[Path]:
    """A directory that every user can reach; pytest's own is root's alone."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory(prefix="furu-test-", dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)


AS_NOBODY = """
from tests.store.processes import Square
warm, cold = Square(of=2), Square(of=3)
os.umask(0o022)
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
say(warm.get(), warm.exists(), warm.status().value, warm.furu_dir.name)
say(cold.exists(), cold.status().value)
try:
    cold.get()
except FuruStoreError as error:
    say(type(error).__name__, error.path)
    say(str(error).replace(chr(10), "|"))
"""


@pytest.mark.parametrize("has_owners", [True, False])
def test_read_only_store_serves_what_is_there_and_says_so_of_what_is_not(
    has_owners: bool, shared_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warm nodes load as ever; a cold one is one error that names the store."""
    path = shared_directory / "store"
    monkeypatch.setenv("FURU_PATH", str(path))
    os.umask(os.umask(0o022))
    assert 4 == Square(of=2).get()
    for directory, _, files in os.walk(path):
        os.chmod(directory, 0o755)
        for name in files:
            os.chmod(f"{directory}/{name}", 0o644)
    if not has_owners:
        shutil.rmtree(path / "owners")
    with Other(AS_NOBODY) as other:
        assert "4 True DONE a1" == other.hear()
        assert "False TODO" == other.hear()
        assert f"FuruStoreError {path}" == other.hear()
        message = other.hear()
        assert f"the store {path} cannot be written" in message
        assert "FURU_PATH" in message


def test_store_below_what_another_user_may_not_enter_is_one_clear_error(
    shared_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even a status can be had; the error names the path."""
    path = shared_directory / "store"
    monkeypatch.setenv("FURU_PATH", str(path))
    compute(artifact())
    os.chmod(path, 0o700)
    script = """
place = artifact()
os.setuid(65534)
try:
    survey(place)
except FuruStoreError as error:
    say(str(error))
"""
    with Other(script) as other:
        message = other.hear()
    assert str(path) in message
    assert "Permission denied" in message
