"""`File`: an input whose identity is its content."""

from __future__ import annotations

import copy
import dataclasses
import os
import pickle
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from furu import (
    File,
    Furu,
    FuruComputeError,
    FuruError,
    FuruIdentityError,
    Status,
    catalog,
    current_settings,
    run_local,
)


class Words(Furu[int]):
    source: File

    def _create(self) -> int:
        return len(self.source.get().read_text().split())


class Number(Words):
    def _create(self) -> int:
        return int(self.source.get().read_text())


class Hidden(Furu[int]):
    source: File = dataclasses.field(repr=False)

    def _create(self) -> int:
        return 1


def test_file_is_identified_by_its_content_and_not_by_its_path(tmp_path: Path) -> None:
    """A renamed file is the same input. A changed file is a different input."""
    one, same, other = tmp_path / "one", tmp_path / "same", tmp_path / "other"
    one.write_text("a b")
    same.write_text("a b")
    other.write_text("a c")
    assert File(path=one) == File(path=str(same))
    assert File(path=one) != File(path=other)
    assert [one, same] == [File(path=one).get(), File(path=str(same)).get()]
    assert isinstance(File(path=str(one)).path, Path)
    assert one.name in repr(File(path=one))


def test_changed_file_makes_its_dependents_stale(tmp_path: Path) -> None:
    """If the change is undone, the dependents are DONE again."""
    path = tmp_path / "words"
    path.write_text("a b")
    assert 2 == Words(source=File(path=path)).get()
    path.write_text("a b c")
    assert Status.TODO is Words(source=File(path=path)).status()
    assert 3 == Words(source=File(path=path)).get()
    path.write_text("a b")
    assert Status.DONE is Words(source=File(path=path)).status()


def test_files_of_the_same_size_and_time_differ_by_their_content(tmp_path: Path) -> None:
    """Two writes may happen within one tick of the filesystem's clock."""
    path = tmp_path / "words"
    hashes = set()
    for text in ("aa", "bb", "cc"):
        path.write_text(text)
        hashes.add(File(path=path).furu_hash)
    assert 3 == len(hashes)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that an hour has passed since the last write to any file."""
    now = time.time_ns
    monkeypatch.setattr("time.time_ns", lambda: now() + 3600 * 10**9)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The files that are opened during the test."""
    files: list[Any] = []
    original = open
    monkeypatch.setattr(
        "builtins.open", lambda file, *rest, **more: (files.append(file), original(file, *rest, **more))[1]
    )
    return files


@pytest.mark.usefixtures("later")
def test_old_file_is_read_once_for_many_nodes(tmp_path: Path, opened: list[Any]) -> None:
    """A sweep may use one large file in thousands of nodes."""
    path = tmp_path / "large"
    path.write_bytes(b"x" * 1000)
    opened.clear()
    nodes = {File(path=path) for _ in range(10)}
    assert 1 == len(nodes)
    assert [path] * 10 == [File(path=path).get() for _ in range(10)]
    assert [path] == opened


def test_file_that_changed_since_its_node_was_made_is_an_error(tmp_path: Path) -> None:
    """Otherwise its dependents would be computed for content that is not in their hash."""
    path = tmp_path / "words"
    path.write_text("a b")
    node = File(path=path)
    path.write_text("a b c")
    with pytest.raises(FuruError, match="has changed since its node was made"):
        node.get()
    path.unlink()
    with pytest.raises(FuruError, match="is gone"):
        node.get()


@pytest.mark.parametrize(
    "kind", ["missing", "directory", "nul", "below a file", "pipe", "socket", "device"]
)
def test_file_that_cannot_be_read_is_an_error_at_construction(kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    paths = {"missing": "nothing", "directory": "", "nul": "a\0b", "below a file": "file/below"}
    paths |= {"pipe": "pipe", "socket": "socket", "device": "/dev/null"}
    with pytest.raises(FuruIdentityError, match=r"^File\(path=.*cannot be read") as caught:
        File(path=tmp_path / paths[kind])
    assert "File.path" == caught.value.field_path


def test_file_is_done_and_stores_nothing(tmp_path: Path, store: Path) -> None:
    path = tmp_path / "words"
    path.write_text("a b")
    node = File(path=path)
    assert (True, Status.DONE, path) == (node.exists(), node.status(), node.get())
    assert not store.exists()
    run_local([Words(source=node), node])
    assert [__name__] == [one.name for one in store.iterdir() if one.name != "owners"]


@pytest.mark.anyio
async def test_file_can_be_loaded_by_aget(tmp_path: Path) -> None:
    path = tmp_path / "words"
    path.write_text("a b")
    node = await anyio.to_thread.run_sync(lambda: File(path=path))
    assert path == await node.aget()
    assert 2 == await Words(source=node).aget()


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda node: pickle.loads(pickle.dumps(node))]
)
def test_copy_of_a_file_node_is_not_read_again(copied: Any, tmp_path: Path) -> None:
    path = tmp_path / "words"
    path.write_text("a b")
    node = File(path=path)
    assert path == copied(node).get()
    path.write_text("other content")
    assert node.furu_hash == copied(node).furu_hash
    with pytest.raises(FuruError, match="has changed"):
        copied(node).get()


def test_replaced_path_is_another_file(tmp_path: Path) -> None:
    """`dataclasses.replace` reads the file at the new path."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("1")
    other.write_text("2")
    assert File(path=other) == dataclasses.replace(File(path=one), path=other)


# ---- what counts as a change ----


def write_in_place(path: Path, text: str, mtime: int = 10**9) -> None:
    """Overwrite a file in place and set an old mtime, as `rsync --inplace --times` does."""
    with open(path, "r+" if path.exists() else "w") as file:
        file.write(text)
    os.utime(path, (mtime, mtime))


@pytest.mark.usefixtures("later")
def test_file_that_is_overwritten_with_its_old_time_is_another_input(tmp_path: Path) -> None:
    """The inode, the size and the mtime are the same. Only the ctime differs."""
    path = tmp_path / "data"
    write_in_place(path, "AAAA")
    one = File(path=path)
    assert path == one.get()
    write_in_place(path, "BBBB")
    other = File(path=path)
    assert one.furu_hash != other.furu_hash
    assert path == other.get()
    with pytest.raises(FuruError, match="has changed since its node was made"):
        one.get()


@pytest.mark.usefixtures("later")
def test_file_that_changed_through_another_name_is_another_input(tmp_path: Path) -> None:
    """The other name is a hard link, or the target of a symbolic link."""
    path, link, hard = tmp_path / "data", tmp_path / "link", tmp_path / "hard"
    write_in_place(path, "AAAA")
    link.symlink_to(path)
    hard.hardlink_to(path)
    before = File(path=link)
    assert before == File(path=hard)
    write_in_place(hard, "BBBB")
    assert before != File(path=link)


def touch(path: Path) -> None:
    os.utime(path, (1, 1))


def replace_by_copy(path: Path) -> None:
    """Replace a file by a new one with the same content, as a checkout does."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


def change_mode(path: Path) -> None:
    path.chmod(0o644 if path.stat().st_mode & 0o077 else 0o600)


@pytest.mark.parametrize("disturb", [touch, replace_by_copy, change_mode])
@pytest.mark.parametrize("age", ["young", "old"])
def test_touched_file_with_the_same_content_is_still_valid(
    disturb: Any, age: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Only its inode or its times differ, so the file is read again."""
    if age == "old":
        request.getfixturevalue("later")
    path = tmp_path / "data"
    path.write_text("x")
    node = File(path=path)
    disturb(path)
    assert path == node.get()
    assert node == File(path=path)


def test_write_in_the_same_tick_as_the_node_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both writes leave the same times, so a file that was written recently is always read again."""
    path = tmp_path / "data"
    path.write_text("a")
    real = os.stat
    fixed = real(path)
    node = File(path=path)
    path.write_text("b")
    monkeypatch.setattr("os.stat", lambda name, **more: fixed if name == path else real(name, **more))
    monkeypatch.setattr("os.fstat", lambda number: fixed)
    with pytest.raises(FuruError, match="has changed"):
        node.get()


def test_file_that_changes_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data"
    path.write_text("old")
    original, changes = open, ["new content"]

    def opening(file: Any, *rest: Any, **more: Any) -> Any:
        stream = original(file, *rest, **more)
        if file == path and changes:
            path.write_text(changes.pop())
        return stream

    monkeypatch.setattr("builtins.open", opening)
    node = File(path=path)
    assert "new content" == node.get().read_text()
    monkeypatch.undo()
    assert node == File(path=path)


def test_file_that_never_stops_changing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    path.touch()
    original = open

    def opening(file: Any, *rest: Any, **more: Any) -> Any:
        with original(path, "a") as log:
            log.write("line")
        return original(file, *rest, **more)

    monkeypatch.setattr("builtins.open", opening)
    with pytest.raises(FuruIdentityError, match="it changes while it is read"):
        File(path=path)


def test_file_that_becomes_a_pipe_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file may become a pipe between stat and open, or after the node was made."""
    path = tmp_path / "data"
    path.write_text("x")
    node = File(path=path)
    info = os.stat(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(FuruError, match="it is not a regular file"):
        node.get()
    monkeypatch.setattr("os.stat", lambda *args, **more: info)
    with pytest.raises(FuruIdentityError, match="it is not a regular file"):
        File(path=path)


# ---- paths ----


def test_relative_path_is_resolved_when_the_node_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path stays valid after a chdir and in copies of the node. Messages show the absolute path."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").write_text("x")
    monkeypatch.chdir(tmp_path)
    nodes = [File(path="data"), File(path=Path("elsewhere/../data"))]
    monkeypatch.chdir("elsewhere")
    for node in [*nodes, *pickle.loads(pickle.dumps(nodes))]:
        assert "x" == node.get().read_text()
        assert node.get().is_absolute()
        assert str(tmp_path) in repr(node)


def test_relative_path_in_a_directory_that_is_gone_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(FuruIdentityError, match=r"^File\(path='data'\) cannot be read"):
        File(path="data")


def test_node_that_holds_a_file_shows_its_path(tmp_path: Path) -> None:
    """A message about a bad input names the file, not only a hash."""
    path = tmp_path / "words"
    path.write_text("a b")
    assert f"Words(source=File(path='{path}'))" == repr(Words(source=File(path=path)))


def in_project(folder: Path, text: str = "a b") -> Path:
    """Write `raw/words` in a new project, and return its path."""
    path = folder / "raw" / "words"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    (folder / "pyproject.toml").touch()
    return path


def test_path_is_shown_and_recorded_relative_to_the_project(tmp_path: Path) -> None:
    """So a record means the same in every checkout. `get()` still returns the absolute path."""
    path = in_project(tmp_path / "project")
    source = File(path=path)
    assert "File(path='raw/words')" == repr(source)
    assert path == source.get() == source.path
    node = Words(source=source)
    node.get()
    config = catalog.inspect(catalog.find(current_settings(), node.furu_hash)).config
    reference = {"node": "furu.node.file:File", "hash": source.furu_hash, "path": "raw/words"}
    assert {"source": reference} == config
    assert source.path == pickle.loads(pickle.dumps(source)).path
    assert repr(source) == repr(pickle.loads(pickle.dumps(source)))


def test_file_in_no_project_is_recorded_with_its_absolute_path(tmp_path: Path) -> None:
    path = tmp_path / "words"
    path.write_text("a b")
    node = Words(source=File(path=path))
    node.get()
    info = catalog.inspect(catalog.find(current_settings(), node.furu_hash))
    assert str(path) == (info.config or {})["source"]["path"]
    assert (node.source.furu_hash,) == info.depends_on


def test_failure_names_the_file(tmp_path: Path) -> None:
    source = File(path=in_project(tmp_path / "project", "not a number"))
    with pytest.raises(FuruComputeError, match=r"Number\(source=File\(path='raw/words'\)\)"):
        run_local([Number(source=source)])


def test_path_in_a_hidden_field_is_not_recorded(tmp_path: Path) -> None:
    source = File(path=in_project(tmp_path / "project"))
    node = Hidden(source=source)
    node.get()
    config = catalog.inspect(catalog.find(current_settings(), node.furu_hash)).config
    assert {"source": [{"node": "furu.node.file:File", "hash": source.furu_hash}]} == config


@pytest.mark.usefixtures("later")
def test_threads_that_make_nodes_of_one_file_get_the_same_hash(tmp_path: Path) -> None:
    """Several threads may read the file, but none of them reads only a part of it."""
    path = tmp_path / "data"
    path.write_bytes(os.urandom(100_000))
    barrier = threading.Barrier(8)

    def make(_: int) -> str:
        barrier.wait()
        return File(path=path).furu_hash

    with ThreadPoolExecutor(8) as pool:
        assert 1 == len(set(pool.map(make, range(8))))
