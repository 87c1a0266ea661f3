"""Failed and cancelled attempts, and records that cannot be written."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from furu import Furu, FuruComputeError, FuruStoreError, Status
from furu._common.text import describe_error
from furu.store.artifact import Artifact, survey
from furu.store.claim import claim
from furu.store.files import AttemptFiles
from furu.store.record import EndedRecord
from tests.store.processes import (
    artifact,
    begin,
    compute,
    current_owner,
    fail,
    failing,
    files,
    instead,
    leave_attempt,
    names,
    once_before,
    publish,
    put,
    remove_by_hand,
)
from tests.store.records import ended_record

# ---- failed and cancelled ----


def test_failed_attempt_leaves_a_record_for_people(place: Artifact) -> None:
    """The record has the error, the configuration and the traceback, but no local variables."""

    def train() -> None:
        password = "hunter" + str(2)
        raise ValueError(f"bad split of {len(password)} characters")

    attempt = begin(place)
    with pytest.raises(ValueError, match="bad split") as caught:
        train()
    attempt.files_directory()
    assert attempt.end("failed", caught.value, {"lr": 0.1}) is None
    assert (["a1", "try-1"], 1) == (names(place), os.stat(attempt.state_path).st_nlink)
    text = attempt.state_path.read_text()
    assert len(text.splitlines()) > 10
    assert "hunter2" not in text
    record = ended_record(attempt)
    assert "ValueError: bad split of 7 characters" == record["error"] == record["traceback"][-1]
    assert "Traceback (most recent call last):" == record["traceback"][0]
    assert any("in train" in line for line in record["traceback"])
    assert ("failed", 1, {"lr": 0.1}) == (record["outcome"], record["attempt"], record["config"])
    assert (os.getpid(), place.hash) == (record["pid"], record["hash"])


def test_cancelled_record_leaves_the_node_to_do() -> None:
    place = artifact()
    attempt = begin(place)
    assert attempt.end("cancelled", KeyboardInterrupt(), {}) is None
    record = ended_record(attempt)
    assert ("cancelled", "KeyboardInterrupt") == (record["outcome"], record["error"])
    assert Status.TODO is survey(place).status
    assert 2 == begin(place).number


@pytest.mark.parametrize(
    "error",
    [
        ValueError('two\nlines"},\n  "outcome": "cancelled"'),
        FileNotFoundError(2, "No such file", os.fsdecode(b"bad\xff")),
        ValueError("\ud800 \0 \x1b[2J \N{LINE SEPARATOR}"),
        ValueError("x" * 10**7),
        ExceptionGroup("several", [ValueError("one"), TypeError("two")]),
        SystemExit(3),
    ],
    ids=["forged", "surrogate escape", "control characters", "huge", "group", "exit"],
)
def test_any_exception_of_a_node_is_recorded(place: Artifact, error: BaseException) -> None:
    """An exception message cannot forge a line, hide the failure, or make the record too large."""
    attempt = begin(place)
    assert fail(attempt, error) is None
    assert Status.FAILED is survey(place).status
    record = ended_record(attempt)
    assert "failed" == record["outcome"]
    assert 1 == len(record["error"].splitlines())
    assert record["error"].startswith(type(error).__name__)
    assert 2 == begin(place).number


def test_long_traceback_is_cut() -> None:
    """Here the exception's message has a million characters."""
    place = artifact()
    fail(begin(place), ValueError("x" * 10**6))
    assert os.path.getsize(place.files.attempt(1)) < 2**18
    assert Status.FAILED is survey(place).status


def test_error_whose_str_raises_is_recorded() -> None:

    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    place = artifact()
    assert fail(begin(place), Broken()) is None
    assert "Broken" in json.loads(Path(place.files.attempt(1)).read_bytes())["error"]


def test_failure_of_a_node_with_a_large_configuration_is_recorded(place: Artifact) -> None:
    """The node is FAILED, not TODO."""
    attempt = begin(place)
    assert attempt.end("failed", ValueError("bad"), {"words": ["word"] * 500_000}) is None
    assert Status.FAILED is survey(place).status
    assert "ValueError: bad" == survey(place).record.error  # type: ignore[union-attr]


def test_notes_of_an_error_are_only_in_the_traceback() -> None:
    error = ValueError("bad split")
    error.add_note("the note")
    assert "ValueError: bad split" == describe_error(error)


def test_record_of_the_last_failure_can_be_read_back(place: Artifact) -> None:
    fail(begin(place), ValueError("bad split"))
    record = survey(place).record
    assert isinstance(record, EndedRecord)
    assert ("failed", "ValueError: bad split") == (record.outcome, record.error)


def test_attempt_numbers_are_never_reused() -> None:
    place = artifact()
    numbers = []
    for _ in range(3):
        attempt = begin(place)
        numbers.append(attempt.number)
        fail(attempt)
        attempt = begin(place)
        numbers.append(attempt.number)
        attempt.end("cancelled", KeyboardInterrupt(), {})
    assert [1, 2, 3, 4, 5, 6] == numbers
    assert [f"try-{number}" for number in numbers] == names(place)


def test_number_of_leftover_files_is_not_used_again() -> None:
    """An attempt never starts in a directory with the files of another attempt."""
    place = artifact()
    leave_attempt(place, 1)
    put(f"{place.files.files(4, '0f')}/left", "x")
    assert 5 == begin(place).number


def test_publish_removes_earlier_attempts_and_keeps_the_last_failure() -> None:
    """A publish removes directories, temporary files, and all records except that of the last failure."""
    place = artifact()
    for number in range(1, 6):
        attempt = begin(place)
        put(f"{attempt.files_directory()}/large", "x")
        if number in (1, 3):
            fail(attempt, ValueError(f"attempt {number}"))
        else:
            attempt.end("cancelled", KeyboardInterrupt(), {})
    leave_attempt(place, 6)
    put(f"{place.files.files(6, '0f')}/sub/large", "x")
    put(place.files.temporary(6, "0" * 32), "half")
    attempt = begin(place)
    put(f"{attempt.files_directory()}/mine", "x")
    assert publish(attempt)
    assert ["a7", "done", "try-1", "try-3"] == names(place)
    assert "attempt 3" in Path(place.files.attempt(3)).read_text()
    assert ["mine"] == os.listdir(files(place))


def test_publish_keeps_files_that_are_not_furus() -> None:
    """For example, a user may put notes beside the artifact."""
    place = artifact()
    fail(begin(place))
    put(f"{place.files.directory}/notes.txt", "precious")
    put(f"{place.files.directory}/a1.bak/x", "precious")
    compute(place)
    assert ["a1.bak", "done", "notes.txt", "try-1"] == names(place)


def test_link_among_earlier_files_is_removed_and_not_followed(tmp_path: Path) -> None:
    place = artifact()
    put(tmp_path / "data" / "precious", "x")
    attempt = begin(place)
    os.symlink(tmp_path / "data", f"{attempt.files_directory()}/inside")
    fail(attempt)
    os.symlink(tmp_path / "data", place.files.files(2, "0f"))
    compute(place)
    assert ["done", "try-1"] == names(place)
    assert ["precious"] == os.listdir(tmp_path / "data")


# ---- records that cannot be written, claims that fail ----


@pytest.mark.parametrize("name", ["open", "write", "replace"])
def test_record_that_cannot_be_written_does_not_block_the_next_claim(place: Artifact, name: str) -> None:
    """When the disk is full, `end` returns the error, and this process may claim the node again."""
    attempt = begin(place)
    with failing(name, errno.ENOSPC):
        problem = fail(attempt)
    assert problem is not None
    assert errno.ENOSPC == problem.errno
    assert Status.TODO is survey(place).status
    again = begin(place)
    assert (2, Status.IN_PROGRESS) == (again.number, survey(place).status)
    assert publish(again)
    assert ["done"] == [name for name in names(place) if not name.startswith("tmp-")]


class Failing(Furu[int]):
    """Fails until its number is in `_mended`."""

    of: int

    def _create(self) -> int:
        if self.of not in _mended:
            raise ValueError("bad split")
        return self.of


_mended: set[int] = set()


def test_record_that_cannot_be_written_does_not_hide_the_nodes_own_error() -> None:
    """The message is that of the node's own error. The failed write is a note on that error."""
    node = Failing(of=1)
    with failing("replace", errno.ENOSPC), pytest.raises(FuruComputeError) as caught:
        node.get()
    assert "ValueError: bad split" in str(caught.value)
    assert isinstance(caught.value.__cause__, ValueError)
    assert "No space left" in "".join(caught.value.__cause__.__notes__)
    _mended.add(1)
    assert 1 == node.get()


def test_release_that_fails_once_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may fail for want of memory. A later `get()` in this process must not wait forever."""
    node, close = Failing(of=2), AttemptFiles.close

    def fail_once(files: AttemptFiles) -> None:
        monkeypatch.setattr(AttemptFiles, "close", close)
        raise MemoryError

    monkeypatch.setattr(AttemptFiles, "close", fail_once)
    with pytest.raises(MemoryError):
        node.get()
    _mended.add(2)
    assert 2 == node.get()


def test_node_removed_after_an_unwritten_end_is_computed_normally(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its next attempt has the same name as the attempt whose end was not written."""
    place = artifact()
    with failing("replace", errno.ENOSPC):
        assert fail(begin(place)) is not None
    remove_by_hand(place)
    attempt = begin(place)
    assert (1, Status.IN_PROGRESS) == (attempt.number, survey(place).status)


def test_node_that_was_removed_while_it_ran_ends_without_a_problem() -> None:
    """No record is written, and no directory is created again."""
    place = artifact()
    attempt = begin(place)
    remove_by_hand(place)
    assert fail(attempt) is None
    assert [] == names(place)
    compute(place)
    assert place.is_done()


def test_failed_claim_does_not_block_the_next_one(place: Artifact) -> None:
    """Each system call of a claim may fail. The error names the path."""
    begin(artifact("another"))
    for name in ("link", "lstat"):
        with failing(name, errno.EIO), pytest.raises(FuruStoreError, match=place.hash) as caught:
            claim(place)
        assert str(caught.value.path).startswith(place.files.done)
    attempt = begin(place)
    assert publish(attempt)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", ["link", "lstat"])
def test_claim_that_was_interrupted_does_not_block_the_next(
    name: str, after: bool, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C may interrupt the claim before or after any of its system calls."""
    place = artifact()
    os.makedirs(place.files.class_directory)
    current_owner(store)
    real: Callable[..., Any] = getattr(os, name)

    def interrupted(*args: Any) -> Any:
        if after:
            with contextlib.suppress(FileNotFoundError):
                real(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patches:
        patches.setattr(os, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            claim(place)
    assert Status.TODO is survey(place).status
    compute(place)


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_node_directory_that_is_not_a_directory_is_an_error(place: Artifact, kind: str) -> None:
    """The claim raises an error instead of looping forever."""
    fail(begin(place))
    directory = Path(place.files.directory)
    if kind == "file":
        directory.touch()
    else:
        directory.symlink_to("nowhere")
    tries = 0

    def link(original: Callable[..., None], source: str, target: str) -> None:
        nonlocal tries
        tries += 1
        assert tries < 200, "an endless loop"
        original(source, target)

    assert Status.FAILED is survey(place).status
    with instead("link", link), pytest.raises(FuruStoreError) as caught:
        claim(place)
    assert directory / "try-2" == caught.value.path


@pytest.mark.parametrize("failures", [0, 1])
def test_directory_removed_during_a_claim_is_made_again(place: Artifact, failures: int) -> None:
    begin(artifact("another"))
    for _ in range(failures):
        fail(begin(place))
    with once_before("link", f"try-{failures + 1}", lambda: shutil.rmtree(place.files.class_directory)):
        attempt = begin(place)
    assert publish(attempt)


def test_directory_of_a_class_that_cannot_be_made_is_an_error(place: Artifact) -> None:
    full = pytest.raises(FuruStoreError, match="No space")
    with failing("mkdir", errno.ENOSPC, "/module"), full as caught:
        claim(place)
    assert Path(place.files.attempt(1)) == caught.value.path
    compute(place)
