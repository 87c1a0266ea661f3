"""Durability against power cuts."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from furu import FuruStoreError
from furu.store.artifact import Artifact
from tests.store.processes import (
    artifact,
    begin,
    fail,
    publish,
    system_calls,
)


def test_process_durability_never_syncs(place: Artifact) -> None:
    attempt = begin(place)
    Path(attempt.files_directory(), "model.bin").write_bytes(b"weights")
    with system_calls() as calls:
        assert publish(attempt)
    assert "fsync" not in [name for name, _ in calls]


def test_power_durability_syncs_everything_before_the_link(store: Path) -> None:
    """Files, their directories, the document; then the link; then the names above it."""
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
    before = [path for name, path in calls[:linked] if name == "fsync"]
    expected = {str(directory / name) for name in ("", "model.bin", "part", "part/two.bin")}
    temporary = place.files.temporary(1, attempt.nonce)
    directories = {place.files.directory, place.files.class_directory}
    assert expected | directories | {temporary} == {path.removesuffix("/") for path in before}
    assert before.index(str(directory / "part/two.bin")) < before.index(str(directory / "part"))
    assert calls.index(("write", temporary)) < calls.index(("fsync", temporary)) < linked
    after = [path for name, path in calls[linked:] if name == "fsync"]
    above = [*map(str, Path(place.files.done).parents)]
    assert above[: len(after)] == after
    assert above.index(str(store.parent)) < len(after)  # furu may have made the store


def test_power_durability_survives_links_and_pipes_among_the_files() -> None:
    """They have no content to sync, and opening a FIFO would block."""
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
