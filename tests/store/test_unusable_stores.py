"""Stores that cannot be used."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from furu import FuruStoreError
from furu.node.base import artifact_of
from furu.store.artifact import survey
from furu.store.claim import claim
from tests.store.processes import (
    Other,
    Square,
    artifact,
    compute,
    leave_attempt,
    owners,
    put,
    refuse,
)


@pytest.mark.parametrize("name", ["store", "store/owners"])
def test_store_that_is_a_file_is_one_clear_error(name: str, store: Path, tmp_path: Path) -> None:
    """The error names the path and the variable to set. The file is not changed."""
    put(tmp_path / name, "precious")
    with pytest.raises(FuruStoreError) as caught:
        Square(of=2).get()
    assert store == caught.value.path
    assert str(store) in str(caught.value)
    assert "FURU_PATH" in str(caught.value)
    assert "precious" == (tmp_path / name).read_text()


@pytest.mark.parametrize("levels", [1, 2])
def test_directory_below_the_store_that_is_a_file_is_one_clear_error(levels: int) -> None:
    """The file is in the place of a class's or a module's directory."""
    node = Square(of=2)
    put(Path(artifact_of(node).files.done).parents[levels - 1], "precious")
    with pytest.raises(FuruStoreError, match=str(Path(artifact_of(node).files.class_directory))):
        node.get()


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK])
def test_filesystem_without_hard_links_is_an_error_at_the_first_claim(
    number: int, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the store. No owner file remains."""
    monkeypatch.setattr(os, "link", refuse(number))
    with pytest.raises(FuruStoreError, match="no hard links") as caught:
        claim(artifact())
    assert store == caught.value.path
    assert [] == owners(store)


def test_filesystem_that_copies_instead_of_linking_is_an_error(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", shutil.copyfile)
    with pytest.raises(FuruStoreError, match="no hard links"):
        claim(artifact())
    assert [] == owners(store)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL])
def test_filesystem_without_locks_is_an_error_at_the_first_claim(
    number: int, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", refuse(number))
    with pytest.raises(FuruStoreError, match="file locks do not work") as caught:
        claim(artifact())
    assert store == caught.value.path
    assert [] == owners(store)


def test_filesystem_whose_locks_always_succeed_is_an_error(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    with pytest.raises(FuruStoreError, match="file locks do not work"):
        claim(artifact())
    assert [] == owners(store)


def test_store_that_could_not_be_opened_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
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
    """The error names a path in the store. No owner file remains."""
    Path(store).mkdir()
    with monkeypatch.context() as patches:
        patches.setattr(os, name, refuse(errno.ENOSPC))
        with pytest.raises(FuruStoreError, match="No space left") as caught:
            claim(artifact())
    assert str(store) in str(caught.value.path)
    assert [] == owners(store)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EIO])
def test_lock_that_cannot_be_tried_is_a_store_error(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is a `FuruStoreError`, not an `OSError`."""
    place = artifact()
    leave_attempt(place)
    monkeypatch.setattr(fcntl, "flock", refuse(number))
    with pytest.raises(FuruStoreError, match=place.files.done):
        survey(place)


@pytest.fixture
def shared_directory() -> Iterator[Path]:
    """A directory that every user can reach. Only root can reach the directories of pytest."""
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
def test_read_only_store_can_be_loaded_from_but_not_computed_in(
    has_owners: bool, shared_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Computing a missing node raises one error that names the store."""
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


def test_store_in_an_inaccessible_directory_is_one_clear_error(
    shared_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even reading a status raises the error."""
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
