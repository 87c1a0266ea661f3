"""Digests of large files that are kept in a store: which entries are used, and which count as missing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from furu import File, current_settings, use_settings
from furu.store.digests import Stamp, keep_digest, known_digest, remove_stale_digests, stamp_of

DIGEST = "0123456789abcdef" * 2


@pytest.fixture
def data(tmp_path: Path, store: Path) -> Path:
    """A file. The store exists."""
    store.mkdir()
    path = tmp_path / "data"
    path.write_text("a")
    return path


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that an hour has passed since the last write to any file."""
    now = time.time_ns
    monkeypatch.setattr("time.time_ns", lambda: now() + 3600 * 10**9)


def stamp(path: Path) -> Stamp:
    return stamp_of(os.stat(path))


def keep(path: Path, digest: str = DIGEST) -> Path:
    """Record a digest, and return the path of its entry."""
    keep_digest(current_settings(), path, stamp(path), digest)
    info = os.stat(path)
    return current_settings().store / "files" / f"{info.st_dev:x}-{info.st_ino:x}"


def known(path: Path) -> str | None:
    return known_digest(current_settings(), stamp(path))


def test_kept_digest_is_found_by_the_stamp_of_the_file(data: Path) -> None:
    assert known(data) is None
    entry = keep(data)
    assert known(data) == DIGEST
    assert [entry] == list(entry.parent.iterdir())


def write_with_old_times(path: Path) -> None:
    """Overwrite a file with content of the same size, and set its old mtime."""
    before = os.stat(path)
    path.write_text("b")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "change", [write_with_old_times, Path.touch, lambda path: path.write_text("longer")]
)
def test_digest_of_a_changed_file_is_not_used(data: Path, change: Callable[[Path], object]) -> None:
    """The ctime shows a change even if the size and the mtime are the same. A new digest replaces the old
    one."""
    entry, before = keep(data), stamp(data)
    while stamp(data) == before:  # until the next tick of the filesystem's clock
        change(data)
    assert known(data) is None
    keep(data, DIGEST[::-1])
    assert known(data) == DIGEST[::-1]
    assert [entry] == list(entry.parent.iterdir())


def swap(entry: Path) -> None:
    """Replace a digit of the digest by another one."""
    entry.write_text(entry.read_text().replace(DIGEST, DIGEST[::-1]))


def link(entry: Path) -> None:
    moved = entry.rename(entry.parent.parent / "moved")
    entry.symlink_to(moved)


def link_directory(entry: Path) -> None:
    moved = entry.parent.rename(entry.parent.parent / "moved")
    entry.parent.symlink_to(moved)


def pipe(entry: Path) -> None:
    entry.unlink()
    os.mkfifo(entry)


@pytest.mark.parametrize(
    "damage",
    [
        swap,
        link,
        link_directory,
        pipe,
        Path.unlink,
        lambda entry: entry.write_bytes(b""),
        lambda entry: entry.write_bytes(entry.read_bytes()[:-9]),
        lambda entry: entry.write_bytes(b"[" * 100_000),
        lambda entry: (entry.unlink(), entry.mkdir()),
    ],
    ids=["swapped", "link", "linked directory", "pipe", "gone", "empty", "torn", "huge", "dir"],
)
def test_damaged_or_foreign_entry_is_a_miss(data: Path, damage: Callable[[Path], object]) -> None:
    damage(keep(data))
    assert known(data) is None
    keep(data)  # does not raise


def test_store_that_every_user_may_write_to_is_not_used(data: Path, store: Path) -> None:
    """Otherwise any user could give a file the identity of another one."""
    store.chmod(0o777)
    keep(data)
    assert not (store / "files").exists()
    with use_settings(allow_shared=True):
        keep(data)
        assert known(data) == DIGEST
    assert known(data) is None


def test_nothing_is_written_to_a_store_that_does_not_exist(tmp_path: Path, store: Path) -> None:
    path = tmp_path / "data"
    path.touch()
    keep(path)
    assert not store.exists()


def test_many_writers_of_one_entry_leave_one_whole_entry(data: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        entries = set(pool.map(lambda _: keep(data), range(50)))
    assert known(data) == DIGEST
    (entry,) = entries
    assert [entry] == list(entry.parent.iterdir())


def test_stale_entries_are_removed(data: Path, tmp_path: Path) -> None:
    """Entries of files that are gone or have changed, damaged entries, and what killed writers left."""
    current = keep(data)
    gone = tmp_path / "gone"
    gone.touch()
    keep(gone)
    gone.unlink()
    (current.parent / "tmp-12").write_text("{")
    assert 2 == remove_stale_digests(current_settings())
    assert [current] == list(current.parent.iterdir())


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize(("size", "kept"), [(2**20, True), (2**20 - 1, False)])
def test_file_node_uses_the_digest_of_a_large_file(data: Path, store: Path, size: int, kept: bool) -> None:
    """Small files are hashed as fast as an entry is read."""
    data.write_bytes(b"x" * size)
    real = File(path=data).content
    assert kept == (store / "files").exists()
    if kept:
        assert known(data) == real
    other = data.rename(
        data.with_name("other")
    )  # another path, so the memory of this process has no digest
    keep(other)
    assert (DIGEST if kept else real) == File(path=other).content


@pytest.mark.usefixtures("later")
def test_touched_large_file_with_the_same_content_is_the_same_node(data: Path) -> None:
    data.write_bytes(b"x" * 2**20)
    node = File(path=data)
    os.utime(data, (1, 1))
    assert node == File(path=data)
    assert data == node.get()


def test_digest_of_a_file_that_was_just_written_is_not_kept(data: Path, store: Path) -> None:
    """Another write could leave the same times."""
    data.write_bytes(b"x" * 2**20)
    File(path=data)
    assert not (store / "files").exists()
