"""What a publish syncs, so that an artifact survives a power cut."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from pathlib import Path

import pytest

from furu import FuruStoreError
from furu.store.artifact import Artifact
from furu.store.sync import DirectorySyncs
from tests.store.processes import (
    artifact,
    begin,
    compute,
    fail,
    publish,
    refuse,
    system_calls,
)


def test_process_durability_never_syncs(place: Artifact) -> None:
    attempt = begin(place)
    Path(attempt.files_directory(), "model.bin").write_bytes(b"weights")
    with system_calls() as calls:
        assert publish(attempt)
    assert "fsync" not in [name for name, _ in calls]


def test_power_durability_syncs_everything_before_the_link(store: Path) -> None:
    """The files, their directories, the directories above and the document are synced before the link.
    After the link, only its directory is synced."""
    place = artifact(durability="power")
    attempt = begin(place)
    directory = Path(attempt.files_directory())
    (directory / "part").mkdir()
    (directory / "model.bin").write_bytes(b"weights")
    (directory / "part" / "two.bin").write_bytes(b"more")
    (directory / "link").symlink_to("model.bin")
    with system_calls() as calls:
        assert publish(attempt)
    linked = calls.index(("link", place.files.done))
    before = [path.removesuffix("/") or "/" for name, path in calls[:linked] if name == "fsync"]
    expected = [str(directory / name) for name in ("", "model.bin", "part", "part/two.bin")]
    temporary = place.files.temporary(1, attempt.nonce)
    above = [place.files.directory, *map(str, Path(place.files.directory).parents)]
    assert {*expected, temporary, *above[: above.index(str(store.parent)) + 1]} <= set(before)
    assert {*expected, temporary, *above} >= set(before)  # up to the root of the filesystem
    assert before.index(str(directory / "part/two.bin")) < before.index(str(directory / "part"))
    assert calls.index(("write", temporary)) < calls.index(("fsync", temporary)) < linked
    assert [place.files.class_directory] == [path for name, path in calls[linked:] if name == "fsync"]


def test_directories_above_a_class_are_synced_once(place: Artifact) -> None:
    """The directories are synced again if the class's directory was removed and created again."""
    first, second, third = (artifact(name, durability="power") for name in ("first", "second", "third"))
    synced = []
    for node in (first, second, third):
        if node is third:
            shutil.rmtree(node.settings.store)
        with system_calls() as calls:
            compute(node)
        synced.append([path for name, path in calls if name == "fsync"])
    class_directory, store = first.files.class_directory, os.fspath(first.settings.store)
    assert [class_directory] == [path for path in synced[1] if "/owners/" not in path]
    assert {class_directory, os.path.dirname(class_directory), store} <= set(synced[0])
    assert {class_directory, os.path.dirname(class_directory), store} <= set(synced[2])


def test_threads_that_wait_for_a_sync_of_a_directory_share_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A running sync may have begun too early for the threads' names, so the threads share the next one."""
    directory = tmp_path / "store" / "module" / "Class"
    directory.mkdir(parents=True)
    waiting = threading.Semaphore(0)

    class Lock:
        def __init__(self) -> None:
            self._lock = threading.Lock()

        def __enter__(self) -> None:
            waiting.release()
            self._lock.acquire()

        def __exit__(self, *_: object) -> None:
            self._lock.release()

    syncs = DirectorySyncs(Lock)
    syncs.sync(str(directory), tmp_path / "store")
    runs, go_on = threading.Event(), threading.Event()
    synced: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(descriptor)
        runs.set()
        assert go_on.wait(10)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    threads = [
        threading.Thread(target=syncs.sync, args=(str(directory), tmp_path / "store")) for _ in range(5)
    ]
    threads[0].start()
    assert runs.wait(10)
    for thread in threads[1:]:
        thread.start()
    for _ in range(6):  # the first sync, the running one, and the four threads that wait
        assert waiting.acquire(timeout=10)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert 2 == len(synced)


def test_failed_sync_is_not_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next caller syncs again."""
    syncs = DirectorySyncs()
    with monkeypatch.context() as patches:
        patches.setattr(os, "fsync", refuse(errno.EIO))
        with pytest.raises(OSError, match="Input/output error"):
            syncs.sync(str(tmp_path), tmp_path)
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    syncs.sync(str(tmp_path), tmp_path)
    assert synced


def test_power_durability_survives_links_and_pipes_among_the_files() -> None:
    """Links and FIFOs have no content to sync, and opening a FIFO would block."""
    attempt = begin(artifact(durability="power"))
    os.mkfifo(f"{attempt.files_directory()}/pipe")
    os.symlink("/nowhere", f"{attempt.files_directory()}/link")
    with system_calls() as calls:
        assert publish(attempt)
    assert [] == [path for name, path in calls if name == "fsync" and path.endswith(("/pipe", "/link"))]


def test_sync_that_fails_before_the_link_publishes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    place = artifact(durability="power")
    attempt = begin(place)

    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patches:
        patches.setattr(os, "fsync", broken)
        with pytest.raises(FuruStoreError, match="Input/output error"):
            publish(attempt)
    assert not place.is_done()
    assert fail(attempt) is None


def test_publish_that_raises_has_not_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the directory cannot be synced after the link, `done` exists, so publishing does not raise."""
    place = artifact(durability="power")
    attempt = begin(place)
    real = os.fsync

    def broken(descriptor: int) -> None:
        if place.is_done():
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    raised = False
    with monkeypatch.context() as patches:
        patches.setattr(os, "fsync", broken)
        try:
            publish(attempt)
        except FuruStoreError:
            raised = True
    assert raised is not place.is_done()
