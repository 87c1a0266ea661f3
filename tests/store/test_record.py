"""Reading and writing state files is safe, whatever is in their place."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from furu import Furu, FuruComputeError, FuruError, FuruStoreError, Status
from furu.node.base import artifact_of
from furu.store.artifact import survey
from furu.store.record import (
    MAX_RECORD_BYTES,
    DoneRecord,
    EndedRecord,
    OwnerRecord,
    decode_attempt,
    encode,
    encode_ended,
    read_done,
    read_state,
    write_new,
)
from furu.store.sync import sync_directory
from tests.store.processes import (
    CLASS,
    Square,
    artifact,
    begin,
    compute,
    done_document,
    fail,
    names,
    publish,
    put,
    result,
)

HASH = "0123456789abcdef" * 2


def make_empty(path: Path) -> None:
    path.touch()


def make_directory(path: Path) -> None:
    path.mkdir()
    (path / "inside").touch()


def make_link(path: Path) -> None:
    target = path.with_name("elsewhere")
    target.write_bytes(done_document(artifact()))
    path.symlink_to(target)


def make_dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


NOT_FILES = [make_directory, make_link, make_dangling, make_loop, make_fifo, make_huge]


def ended_document(**changes: Any) -> bytes:
    """Return the record of a failed attempt at the node of `artifact()`, with `changes`."""
    document = {
        "record": "ended",
        "format": 1,
        "node_class": CLASS,
        "hash": artifact().hash,
        "attempt": 1,
        "outcome": "failed",
        "error": "ValueError: bad",
        "traceback": [],
        "config": {},
        "started_at": 0.0,
        "duration_sec": 0.0,
        "host": "here",
        "pid": 1,
    }
    return json.dumps({**document, **changes}).encode()


UNREADABLE = {
    "torn": lambda: done_document(artifact())[:-7],
    "binary": lambda: b"\x80\x04\x95\xff\x00",
    "not utf-8": lambda: done_document(artifact()).replace(b"module", b"\xff\xfe"),
    "other json": lambda: b'{"a": 1}',
    "a list": lambda: b"[1, 2]",
    "a number": lambda: b"7",
    "blanks": lambda: b"   \n",
    "zeros": lambda: b"\0" * 4096,
    "deeply nested": lambda: b"[" * 100_000,
    "two documents": lambda: done_document(artifact()) * 2,
    "a field of another type": lambda: done_document(artifact(), attempt="one"),
    "an unknown codec": lambda: done_document(artifact(), codec="exec"),
    "an ended record": lambda: ended_document(),
    "a newer format": lambda: done_document(artifact(), format=2),
    "an older format": lambda: done_document(artifact(), format=0),
    "another node's": lambda: done_document(artifact(), hash=HASH),
    "another class's": lambda: done_document(artifact(), node_class="os:system"),
}


# ---- reading ----


@pytest.mark.parametrize("make", NOT_FILES)
def test_state_file_that_is_not_a_regular_file_of_sensible_size_is_an_error(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    """A link is not followed, a FIFO does not block, and a huge file is not read into memory."""
    path = tmp_path / "done"
    make(path)
    with pytest.raises(FuruStoreError) as caught:
        read_state(str(path), MAX_RECORD_BYTES)
    assert str(path) in str(caught.value)
    assert path == caught.value.path


def test_missing_state_file_is_none(tmp_path: Path) -> None:
    """A path below a regular file is missing too. An empty file is not missing."""
    put(tmp_path / "file", b"")
    assert read_state(f"{tmp_path}/missing", 10) is None
    assert read_state(f"{tmp_path}/file/below", 10) is None
    assert b"" == read_state(f"{tmp_path}/file", 10)


def test_state_file_may_be_as_large_as_allowed_and_no_larger(tmp_path: Path) -> None:
    put(tmp_path / "state", b"x" * 10)
    assert b"x" * 10 == read_state(f"{tmp_path}/state", 10)
    with pytest.raises(FuruStoreError, match="10 bytes, more than the 9 allowed"):
        read_state(f"{tmp_path}/state", 9)


def test_short_reads_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytes(range(256)) * 4
    put(tmp_path / "state", content)
    real = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, size: real(descriptor, min(size, 100)))
    assert content == read_state(f"{tmp_path}/state", 2000)


def test_read_error_is_a_store_error_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "state", b"x")

    def broken(*_: Any) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "read", broken)
    with pytest.raises(FuruStoreError, match="state: Input/output error") as caught:
        read_state(f"{tmp_path}/state", 10)
    assert errno.EIO == caught.value.__cause__.errno  # type: ignore[union-attr]


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_done_that_is_not_this_nodes_whole_artifact_is_an_error(content: Callable[[], bytes]) -> None:
    """Reading such a `done` raises a `FuruStoreError`, not a decoding error."""
    place = artifact()
    put(place.files.done, content())
    with pytest.raises(FuruStoreError) as caught:
        place.read()
    assert Path(place.files.done) == caught.value.path
    assert place.files.done in str(caught.value)


def test_whole_done_is_read(store: Path) -> None:
    place = artifact()
    put(place.files.done, done_document(artifact(), result=[1, 2]))
    assert [1, 2] == result(place)


def test_empty_done_is_a_miss() -> None:
    """A power cut may leave an empty `done`."""
    place = artifact()
    put(place.files.done, b"")
    assert place.read() is None
    assert read_done(place.files.done, max_bytes=0) is None


@pytest.mark.parametrize("failures", [0, 1])
@pytest.mark.parametrize(
    "make", [make_empty, make_directory, make_link, make_dangling, make_loop, make_fifo]
)
def test_done_that_is_not_a_regular_file_is_replaced(make: Callable[[Path], None], failures: int) -> None:
    """`done` may be an empty file, a directory, a link or a FIFO. The target of a link is not changed."""
    place = artifact()
    os.makedirs(place.files.class_directory)
    for _ in range(failures):
        fail(begin(place))
    make(Path(place.files.done))
    assert (Status.FAILED if failures else Status.TODO) is survey(place).status
    compute(place, 5)
    assert (Status.DONE, 5) == (survey(place).status, result(place))
    assert ["done", *["try-1"] * failures] == names(place)
    elsewhere = Path(place.files.class_directory, "elsewhere")
    assert make is not make_link or done_document(artifact()) == elsewhere.read_bytes()


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_get_of_a_node_with_an_unusable_done_is_an_error_and_computes_nothing(
    content: Callable[[], bytes],
) -> None:
    node = Square(of=7)
    path = artifact_of(node).files.done
    put(path, content())
    before = Path(path).read_bytes()
    with pytest.raises(FuruStoreError) as caught:
        node.get()
    assert Path(path) == caught.value.path
    assert before == Path(path).read_bytes()


@pytest.mark.parametrize("make", NOT_FILES)
def test_attempt_that_is_not_a_regular_file_is_skipped(
    make: Callable[[Path], None],
) -> None:
    """The node is computed as attempt 2."""
    place = artifact()
    os.makedirs(place.files.directory)
    make(Path(place.files.attempt(1)))
    assert Status.TODO is survey(place).status
    attempt = begin(place)
    assert 2 == attempt.number
    assert publish(attempt)
    assert Status.DONE is survey(place).status


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b"null",
        b'{"record": "other"}',
        b'{"record": "owner", "id": "../../../etc/passwd"}',
        b'{"record": "owner", "id": 1}',
        b'{"record": "ended", "format": 2, "outcome": "postponed"}',
    ],
    ids=lambda content: repr(content[:40]),
)
def test_attempt_that_cannot_be_decoded_is_taken_over(content: bytes) -> None:
    assert decode_attempt(content) is None
    place = artifact()
    put(place.files.attempt(1), content)
    assert Status.TODO is survey(place).status
    assert 2 == begin(place).number


def test_ended_record_of_another_node_is_ignored() -> None:
    place = artifact()
    put(place.files.attempt(1), ended_document(hash=HASH))
    assert Status.TODO is survey(place).status
    put(place.files.attempt(1), ended_document())
    assert Status.FAILED is survey(place).status


def test_done_document_in_place_of_an_attempt_is_not_done() -> None:
    place = artifact()
    put(place.files.attempt(1), done_document(artifact()))
    assert Status.TODO is survey(place).status


def test_owner_id_that_is_a_path_removes_nothing(store: Path, tmp_path: Path) -> None:
    place = artifact()
    record = OwnerRecord(id="../../precious", pid=1, host="", boot_id="", device=0, lease_sec=1e-9)
    put(tmp_path / "precious", encode(record))
    os.makedirs(place.files.directory)
    os.makedirs(store / "owners")
    os.link(tmp_path / "precious", place.files.attempt(1))
    survey(place)
    with contextlib.suppress(FuruError):
        begin(place)
    assert (tmp_path / "precious").exists()


# ---- writing ----


def test_written_record_reads_back_and_is_readable_json() -> None:
    """The JSON is indented, and has one line for each line of the traceback."""
    record = EndedRecord(
        format=1,
        node_class="m:C",
        hash=HASH,
        attempt=3,
        outcome="failed",
        error="ValueError: bad",
        traceback=["Traceback:", '  File "x.py"'],
        config={"lr": 0.1},
        started_at=1.0,
        duration_sec=2.0,
        host="here",
        pid=7,
    )
    content = encode_ended(record)
    assert record == decode_attempt(content)
    assert '    "  File \\"x.py\\""' in content.decode().splitlines()
    assert content.endswith(b"}\n")


def test_result_is_kept_byte_for_byte() -> None:
    record = DoneRecord(1, CLASS, artifact().hash, 1, "json", {}, 0.0, 0.0, result=msgspec.Raw(b"null"))
    assert b'"result":null' in encode(record)
    place = artifact()
    assert begin(place).publish("json", b'{"x": 1.50, "x": 2}', {})
    read = place.read()
    assert read is not None
    assert b'{"x": 1.50, "x": 2}' == bytes(read.result)


def test_write_new_never_overwrites_a_file_or_follows_a_link(tmp_path: Path) -> None:
    put(tmp_path / "file", b"theirs")
    (tmp_path / "link").symlink_to(tmp_path / "new")
    for name in ("file", "link"):
        with pytest.raises(FileExistsError):
            write_new(f"{tmp_path}/{name}", b"mine", sync=False)
    assert b"theirs" == (tmp_path / "file").read_bytes()
    assert not (tmp_path / "new").exists()


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:3]))
    write_new(f"{tmp_path}/file", b"0123456789", sync=False)
    assert b"0123456789" == (tmp_path / "file").read_bytes()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_part_written_file_is_removed_and_closed(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write fails because of a full disk or an interrupt."""
    real, calls, closed = os.write, [], []

    def write(descriptor: int, data: bytes) -> int:
        calls.append(descriptor)
        if len(calls) > 1:
            raise error
        return real(descriptor, data[:2])

    real_close = os.close
    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(os, "close", lambda d: (closed.append(d), real_close(d)))
    with pytest.raises(type(error)):
        write_new(f"{tmp_path}/file", b"0123456789", sync=False)
    assert [] == os.listdir(tmp_path)
    assert calls[:1] == closed


def test_sync_reaches_the_file_before_it_is_closed_and_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    if not os.path.exists("/proc/self/fd"):
        pytest.skip("finds descriptors in /proc")
    monkeypatch.setattr(os, "fsync", fsync)
    write_new(f"{tmp_path}/file", b"x", sync=True)
    sync_directory(str(tmp_path))
    assert [f"{tmp_path}/file", str(tmp_path)] == synced


def test_state_files_are_opened_without_following_links_and_closed_on_exec(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """This covers all files that are opened to claim, log, publish, read, fail and survey."""
    flags: dict[str, int] = {}
    real = os.open

    def recorded(path: str, flag: int, *args: Any, **kwargs: Any) -> int:
        flags[os.path.basename(path)] = flag
        return real(path, flag, *args, **kwargs)

    monkeypatch.setattr(os, "open", recorded)
    place, other = artifact(), artifact("other")
    attempt = begin(place)
    attempt.log("line")
    assert publish(attempt)
    place.read()
    fail(begin(other))
    survey(other)
    first = f"{other.hash}.try-1"
    assert {place.hash, first, "furu.log"} < set(flags)
    for name, flag in flags.items():
        assert (os.O_NOFOLLOW | os.O_DIRECTORY) & flag, name  # directories may be links
        assert os.O_CLOEXEC & flag, name


# ---- what cannot be written as JSON ----


class Named(Furu[int]):
    name: str

    def _create(self) -> int:
        if self.name == "raise":
            raise ValueError("no such file: caf\udce9.txt")
        if self.name.startswith("big"):
            raise ValueError("bad")
        return 1


def test_error_with_an_undecodable_file_name_is_recorded_and_not_hidden() -> None:
    """Python represents an undecodable byte as a lone surrogate."""
    node = Named(name="raise")
    with pytest.raises(FuruComputeError) as caught:
        node.get()
    assert isinstance(caught.value.__cause__, ValueError)
    assert Status.FAILED is node.status()
    with pytest.raises(FuruComputeError):
        node.get()


def test_node_whose_field_is_an_undecodable_file_name_is_computed() -> None:
    node = Named(name="caf\udce9")
    assert 1 == node.get()
    assert Status.DONE is node.status()


def test_failure_of_a_node_with_a_large_configuration_is_read_back() -> None:
    """The size limit for records includes the configuration, so a large configuration is left out."""
    node = Named(name="big" * 2**19)
    with pytest.raises(FuruComputeError):
        node.get()
    assert Status.FAILED is node.status()


def test_result_just_within_the_limit_is_read_back_with_any_configuration() -> None:
    place = artifact(max_result_bytes=10)
    assert begin(place).publish("json", b"1", {"name": "x" * 2**21})
    assert 1 == result(place)
