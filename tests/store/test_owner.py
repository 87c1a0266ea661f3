"""Owners: each process has one file, one lock and one heartbeat for all of its nodes in a store."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from furu.settings import use_settings
from furu.store.local import Process, acting_as
from furu.store.owner import boot_id
from furu.store.record import decode_attempt
from tests.store.processes import (
    LEASE_SEC,
    artifact,
    begin,
    compute,
    current_owner,
    owners,
    publish,
)


def test_process_has_one_owner_in_each_store(store: Path, tmp_path: Path) -> None:
    """All nodes that the process computes share this owner."""
    claimed = [begin(artifact(str(number))) for number in range(5)]
    assert [claimed[0].owner] * 5 == [attempt.owner for attempt in claimed]
    assert [claimed[0].owner.record.id] == owners(store)
    with use_settings(store=tmp_path / "second"):
        other = begin(artifact()).owner
    assert other.record.id != claimed[0].owner.record.id
    assert [other.record.id] == owners(tmp_path / "second")


def test_simultaneous_first_claims_of_threads_create_one_owner(store: Path) -> None:
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


def test_owner_file_is_json_and_locked(store: Path) -> None:
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


def test_opening_a_store_creates_only_the_owner(store: Path) -> None:
    owner = current_owner(store, LEASE_SEC)
    assert ["owners"] == os.listdir(store)
    assert [owner.record.id] == owners(store)


def test_one_heartbeat_touches_every_owner_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are six beats per lease for any number of nodes. A failed beat does not stop the heartbeat."""
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
    """The attempt's link and the owner's file have the same inode."""
    attempt = begin(artifact())
    assert attempt.owner is not None
    os.utime(attempt.owner.path, (1, 1))
    os.utime(attempt.owner.file.number)
    assert os.stat(attempt.state_path).st_mtime > 1


@pytest.mark.parametrize("removed", ["owners", "everything"])
def test_process_makes_a_new_owner_if_the_old_one_was_removed(removed: str, store: Path) -> None:
    """A user may remove the whole store, or only `owners`."""
    first = begin(artifact("first")).owner
    shutil.rmtree(store / "owners" if removed == "owners" else store)
    compute(artifact("second"))
    second = current_owner(store, LEASE_SEC)
    assert first is not second
    assert [second.record.id] == owners(store)


def test_process_makes_a_new_owner_if_its_file_was_removed(store: Path) -> None:
    """Another machine removes the file if this process was paused for too long."""
    first = begin(artifact("first"))
    path = current_owner(store).path
    os.unlink(path)
    compute(artifact("second"))
    assert publish(first)
    assert not os.path.exists(path)
