"""One process's attempts: what lies on disk after each step, what it costs, and how each may end."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from furu import Furu, FuruComputeError, FuruInProgressError, FuruStoreError, Status
from furu._common.origin import Origin
from furu._common.text import describe_error
from furu.node.base import artifact_of
from furu.settings import use_settings
from furu.store.artifact import Artifact, survey
from furu.store.attempt import Attempt, running_attempt
from furu.store.claim import claim
from furu.store.record import EndedRecord
from tests.store.processes import (
    Square,
    artifact,
    begin,
    compute,
    current_owner,
    done_document,
    fail,
    failing,
    files,
    instead,
    leave_attempt,
    names,
    once_before,
    owners,
    publish,
    put,
    rejecting,
    result,
    system_calls,
)


@pytest.fixture
def place() -> Artifact:
    """A node that nobody has computed."""
    return artifact()


def ended_record(attempt: Attempt) -> dict[str, Any]:
    """Return the record of how an attempt ended."""
    content: dict[str, Any] = json.loads(attempt.state_path.read_text())
    return content


# ---- a node's status, and the files after each step ----


def test_status_is_derived_from_the_directory() -> None:
    """Every state of the table, one after another in one node's life."""
    place = artifact()
    assert Status.TODO is survey(place).status  # no directory
    os.makedirs(place.files.directory)
    assert Status.TODO is survey(place).status  # an empty one
    attempt = begin(place)
    assert Status.IN_PROGRESS is survey(place).status
    fail(attempt)
    assert Status.FAILED is survey(place).status
    attempt = begin(place)
    assert Status.IN_PROGRESS is survey(place).status
    attempt.end("cancelled", KeyboardInterrupt(), {})
    assert Status.TODO is survey(place).status
    leave_attempt(place, 3)
    assert Status.TODO is survey(place).status  # a dead owner's
    attempt = begin(place)
    assert (Status.IN_PROGRESS, 4) == (survey(place).status, survey(place).attempt)
    assert publish(attempt)
    assert Status.DONE is survey(place).status


def test_highest_attempt_alone_decides() -> None:
    """By number and not by spelling: 10 after 9; earlier ones are history."""
    place = artifact()
    for number in (1, 9):
        leave_attempt(place, number)
    fail(begin(place))
    assert (Status.FAILED, 10, 10) == (
        survey(place).status,
        survey(place).attempt,
        survey(place).highest,
    )
    leave_attempt(place, 11)
    assert Status.TODO is survey(place).status


def test_directory_that_vanishes_under_a_survey_is_a_node_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody deletes the node between one look and the next."""
    place = artifact()
    fail(begin(place))
    real = os.listdir

    def listdir(path: Any) -> list[str]:
        found = real(path)
        shutil.rmtree(place.files.directory, ignore_errors=True)
        return found

    with monkeypatch.context() as patches:
        patches.setattr(os, "listdir", lambda path: listdir(path) if os.path.isdir(path) else real(path))
        assert Status.TODO is survey(place).status


def test_each_step_leaves_exactly_these_files(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claim: try-1. Files: a1. Publish: a temporary, `done`, and then `done` alone beside a1."""
    place = artifact()
    current_owner(store)
    os.makedirs(place.files.directory)
    seen: list[tuple[str, list[str], list[str]]] = []
    for name in ("link", "unlink"):
        real = getattr(os, name)

        def recorded(path: str, *args: Any, real: Any = real, name: str = name, **options: Any) -> None:
            before = names(place)
            real(path, *args, **options)
            seen.append((name, before, names(place)))

        monkeypatch.setattr(os, name, recorded)
    attempt = begin(place)
    assert [("link", [], ["try-1"])] == seen
    assert os.path.samefile(current_owner(store).path, attempt.state_path)
    attempt.files_directory()
    assert ["a1", "try-1"] == names(place)
    seen.clear()
    assert publish(attempt)
    assert [
        ("link", ["a1", "tmp-1", "try-1"], ["a1", "done", "tmp-1", "try-1"]),
        ("unlink", ["a1", "done", "tmp-1", "try-1"], ["a1", "done", "try-1"]),
        ("unlink", ["a1", "done", "try-1"], ["a1", "done"]),
    ] == seen
    assert [current_owner(store).record.id] == owners(store)


def test_done_holds_the_result_the_config_and_the_timings() -> None:
    """One document, readable by people."""
    place = artifact()
    attempt = begin(place)
    origin = Origin("train", "/project/train.py", is_script=True)
    assert attempt.publish("json", b"[1, 2]", {"lr": 0.1}, origin)
    document = json.loads(Path(place.files.done).read_bytes())
    assert document.pop("started_at") == attempt.started_at
    assert document.pop("duration_sec") >= 0
    assert {
        "record": "done",
        "format": 1,
        "node_class": place.node_class,
        "hash": place.hash,
        "attempt": 1,
        "codec": "json",
        "config": {"lr": 0.1},
        "files": "",
        "result": [1, 2],
        "source": "/project/train.py",
        "from_script": True,
    } == document


def test_files_directory_is_made_only_when_it_is_asked_for() -> None:
    """A node without files costs no directory; asking twice makes one."""
    place = artifact()
    attempt = begin(place)
    assert ["try-1"] == names(place)
    assert attempt.files_directory() == attempt.files_directory()
    assert ["a1", "try-1"] == names(place)


def test_publish_keeps_the_files_of_its_attempt(place: Artifact) -> None:
    """What the node wrote is part of the artifact."""
    attempt = begin(place)
    Path(attempt.files_directory(), "model.bin").write_bytes(b"weights")
    attempt.log("trained")
    assert attempt.publish("load", b"null", {})
    assert ["a1", "done"] == names(place)
    assert ["furu.log", "model.bin"] == sorted(os.listdir(files(place)))


def test_running_attempt_is_known_from_its_claim_to_its_end() -> None:
    """By the directory alone, whichever thread asks."""
    place = artifact()
    assert running_attempt(place) is None
    attempt = begin(place)
    assert attempt is running_attempt(artifact())
    fail(attempt)
    assert running_attempt(place) is None
    attempt = begin(place)
    assert publish(attempt)
    assert running_attempt(place) is None


# ---- what it costs ----


def test_cold_node_costs_eleven_system_calls(store: Path) -> None:
    """From the first look to the last unlink, in a class that has been seen before. Another thread makes
    them for the main one."""
    with use_settings(store=store):
        Square(of=1).get()
        node = Square(of=2)
        with system_calls() as calls:
            assert 4 == node.get()
    ways = ["lstat", "mkdir", "link", "lstat"]
    writes = ["open", "write", "close", "lstat", "link", "unlink", "unlink"]
    assert ways + writes == [name for name, _ in calls]


def test_status_of_a_warm_node_costs_one_stat() -> None:
    """As exists() does."""
    node = Square(of=2)
    node.get()
    with system_calls() as calls:
        assert Status.DONE is node.status()
        assert node.exists()
    assert [("lstat", artifact_of(node).files.done)] * 2 == calls


def test_reading_a_warm_node_writes_nothing() -> None:
    """A look, one open, one read."""
    node = Square(of=2)
    node.get()
    with system_calls() as calls:
        node.get()
    assert ["lstat", "open", "fstat", "read", "close"] == [name for name, _ in calls]


def test_first_claim_lists_no_directory() -> None:
    """try-1 is tried blind; only a name that is taken costs a listing."""
    begin(artifact("another"))
    place = artifact()
    with system_calls() as calls:
        fail(begin(place))
    assert ["mkdir", "link", "lstat"] == [name for name, _ in calls][:3]
    assert "listdir" not in [name for name, _ in calls]
    with system_calls() as calls:
        begin(place)
    assert "listdir" in [name for name, _ in calls]


# ---- publishing ----


def test_claim_of_a_published_node_is_none_and_leaves_no_trace() -> None:
    """Not even a directory's listing changes, claimed blind or not."""
    place = artifact()
    compute(place)
    assert claim(place) is None
    assert ["done"] == names(place)
    assert running_attempt(place) is None


class Slow(Furu[str]):
    name: str

    def _create(self) -> str:
        place = artifact_of(self)
        put(place.files.done, done_document(place, attempt=2, result="theirs"))
        return "mine"


def test_get_of_an_owner_that_lost_its_claim_returns_the_winners_value() -> None:
    """What the caller holds is what everybody else loads."""
    node = Slow(name="x")
    assert "theirs" == node.get()
    assert "theirs" == node.get()


def test_retransmitted_link_of_done_counts_as_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS repeats a link whose answer was lost and says EEXIST: the same inode is ours."""
    place = artifact()
    attempt = begin(place)
    real = os.link

    def twice(source: str, target: str) -> None:
        real(source, target)
        real(source, target)

    with monkeypatch.context() as patches:
        patches.setattr(os, "link", twice)
        assert publish(attempt, "mine")
    assert ("mine", ["done"]) == (result(place), names(place))


def test_retransmitted_claim_is_a_claim(place: Artifact) -> None:
    """A claim that this process made without knowing would hold the node up for its whole life."""
    before = begin(artifact("another"))

    def link_twice(original: Callable[..., None], source: str, target: str) -> None:
        original(source, target)
        if target == place.files.attempt(1):
            original(source, target)

    with instead("link", link_twice):
        attempt = begin(place)
    assert os.path.exists(before.owner.path), "this process is alive"
    assert Status.IN_PROGRESS is survey(place).status
    assert publish(attempt)
    assert ["done"] == names(place)


def test_second_publish_of_any_kind_gets_eexist_and_changes_nothing() -> None:
    """Even of an attempt that is made to try again."""
    place = artifact()
    first = begin(place)
    assert publish(first, "first")
    late = Attempt(place)
    late.held(current_owner(place.settings.store), 5, "0f")
    os.link(current_owner(place.settings.store).path, place.files.attempt(5))
    assert not publish(late, "second")
    assert "first" == result(place)


@pytest.mark.parametrize("name", ["open", "write", "link"])
def test_publish_that_fails_publishes_nothing_and_can_be_recorded(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full: a named error, the attempt still runs, and its end says why."""
    place = artifact()
    attempt = begin(place)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patches:
        patches.setattr(os, name, full)
        with pytest.raises(FuruStoreError, match=r"cannot publish .*done: No space left") as caught:
            publish(attempt)
        assert Path(place.files.done) == caught.value.path
        assert attempt is running_attempt(place)
    assert fail(attempt) is None
    assert (Status.FAILED, ["try-1"]) == (survey(place).status, names(place))


@pytest.mark.parametrize("name", ["listdir", "open", "unlink"])
def test_publish_that_could_not_tidy_up_is_a_publish(place: Artifact, name: str) -> None:
    """What is visible must not be reported as a failure: the next run would find it DONE."""
    fail(begin(place))
    attempt = begin(place)
    linked = False

    def link(original: Callable[..., None], source: str, target: str) -> None:
        nonlocal linked
        original(source, target)
        linked = True

    def fail_once_linked(original: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if linked:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return original(*args, **options)

    with instead("link", link), instead(name, fail_once_linked):
        assert publish(attempt)
    assert linked
    assert Status.DONE is survey(place).status


# ---- failed and cancelled ----


def test_failed_attempt_leaves_a_record_for_people(place: Artifact) -> None:
    """What failed, where, with which configuration; the traceback by line; no local variables."""

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
    """It says so, with the traceback, and the next attempt follows."""
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
def test_whatever_a_node_raises_is_recorded(place: Artifact, error: BaseException) -> None:
    """No message can forge a line, hide the failure, or make the record too large to be read."""
    attempt = begin(place)
    assert fail(attempt, error) is None
    assert Status.FAILED is survey(place).status
    record = ended_record(attempt)
    assert "failed" == record["outcome"]
    assert 1 == len(record["error"].splitlines())
    assert record["error"].startswith(type(error).__name__)
    assert 2 == begin(place).number


def test_endless_traceback_is_cut() -> None:
    """A recursion a thousand deep or a message of megabytes is no record of megabytes."""
    place = artifact()
    fail(begin(place), ValueError("x" * 10**6))
    assert os.path.getsize(place.files.attempt(1)) < 2**18
    assert Status.FAILED is survey(place).status


def test_error_whose_text_cannot_be_had_is_recorded() -> None:
    """A `__str__` that raises hides nothing else."""

    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    place = artifact()
    assert fail(begin(place), Broken()) is None
    assert "Broken" in json.loads(Path(place.files.attempt(1)).read_bytes())["error"]


def test_failure_of_a_node_with_a_large_configuration_is_recorded(place: Artifact) -> None:
    """Its record is as good as any: FAILED, not TODO."""
    attempt = begin(place)
    assert attempt.end("failed", ValueError("bad"), {"words": ["word"] * 500_000}) is None
    assert Status.FAILED is survey(place).status
    assert "ValueError: bad" == survey(place).record.error  # type: ignore[union-attr]


def test_error_is_told_by_itself_and_not_by_its_notes() -> None:
    """Notes are for the traceback."""
    error = ValueError("bad split")
    error.add_note("the note")
    assert "ValueError: bad split" == describe_error(error)


def test_record_of_the_last_failure_can_be_read_back(place: Artifact) -> None:
    """A survey returns it whole."""
    fail(begin(place), ValueError("bad split"))
    record = survey(place).record
    assert isinstance(record, EndedRecord)
    assert ("failed", "ValueError: bad split") == (record.outcome, record.error)


def test_numbers_count_upwards_for_ever() -> None:
    """An attempt's name is never used again, whatever came of it."""
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


def test_number_of_files_that_were_left_is_not_used_again() -> None:
    """An attempt never starts in a directory that another one filled."""
    place = artifact()
    leave_attempt(place, 1)
    put(f"{place.files.files(4, '0f')}/left", "x")
    assert 5 == begin(place).number


def test_publish_removes_earlier_attempts_and_keeps_the_last_failure() -> None:
    """Their directories, temporaries and records, but for the record of the latest failure."""
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


def test_publish_leaves_what_is_not_furus() -> None:
    """Notes that somebody put beside the artifact stay."""
    place = artifact()
    fail(begin(place))
    put(f"{place.files.directory}/notes.txt", "precious")
    put(f"{place.files.directory}/a1.bak/x", "precious")
    compute(place)
    assert ["a1.bak", "done", "notes.txt", "try-1"] == names(place)


def test_link_among_earlier_files_is_removed_and_not_followed(tmp_path: Path) -> None:
    """What a1 points to is not furu's to remove."""
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
    """The disk is full: the problem is returned, and this process may try again."""
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
    """Fails at first."""

    of: int

    def _create(self) -> int:
        if self.of not in _mended:
            raise ValueError("bad split")
        return self.of


_mended: set[int] = set()


def test_record_that_cannot_be_written_does_not_hide_the_nodes_own_error() -> None:
    """The message is the node's; what furu could not write is a note on it."""
    node = Failing(of=1)
    with failing("replace", errno.ENOSPC), pytest.raises(FuruComputeError) as caught:
        node.get()
    assert "ValueError: bad split" in str(caught.value)
    assert isinstance(caught.value.__cause__, ValueError)
    assert "No space left" in "".join(caught.value.__cause__.__notes__)
    _mended.add(1)
    assert 1 == node.get()


def test_node_that_was_removed_after_an_unwritten_end_is_computed_as_any_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its first attempt is alive again under the same name."""
    place = artifact()
    with failing("replace", errno.ENOSPC):
        assert fail(begin(place)) is not None
    shutil.rmtree(place.files.directory)
    attempt = begin(place)
    assert (1, Status.IN_PROGRESS) == (attempt.number, survey(place).status)


def test_node_that_was_removed_while_it_ran_ends_without_a_problem() -> None:
    """There is nothing left to say it of, and nothing is made anew."""
    place = artifact()
    attempt = begin(place)
    shutil.rmtree(place.files.directory)
    assert fail(attempt) is None
    assert not os.path.exists(place.files.directory)
    compute(place)
    assert place.is_done()


def test_failed_claim_does_not_block_the_next_one(place: Artifact) -> None:
    """Whichever call fails: the error names the path, and nothing is thought to be running."""
    begin(artifact("another"))
    for name in ("mkdir", "link", "lstat"):
        with failing(name, errno.EIO), pytest.raises(FuruStoreError, match=place.hash) as caught:
            claim(place)
        assert str(caught.value.path).startswith(place.files.directory)
    attempt = begin(place)
    assert publish(attempt)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", ["mkdir", "link", "lstat"])
def test_claim_that_was_interrupted_does_not_block_the_next(
    name: str, after: bool, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C at any system call of a claim: the node can be claimed again."""
    place = artifact()
    os.makedirs(Path(place.files.directory).parent)
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
def test_node_directory_that_is_none_is_an_error_and_no_endless_loop(place: Artifact, kind: str) -> None:
    """The error names it."""
    directory = Path(place.files.directory)
    directory.parent.mkdir(parents=True)
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

    assert Status.TODO is survey(place).status
    with instead("link", link), pytest.raises(FuruStoreError) as caught:
        claim(place)
    assert directory == caught.value.path


def test_directory_removed_during_a_claim_is_made_again(place: Artifact) -> None:
    """Somebody deletes the node at that moment: a claimer treats it as missing."""
    begin(artifact("another"))
    with once_before("link", "try-1", lambda: shutil.rmtree(place.files.directory)):
        attempt = begin(place)
    assert publish(attempt)


# ---- the log ----


def test_line_of_the_log_cannot_be_forged(place: Artifact) -> None:
    """A message with newlines stays one entry: what follows the first line is set off."""
    attempt = begin(place)
    attempt.log("2030-01-01 INFO honest")
    attempt.log("text\n2030-01-01 ERROR forged\r\n2030-01-01 ERROR forged\r2030-01-01 ERROR forged")
    attempt.log("\ud800 is written somehow")
    publish(attempt)
    content = Path(files(place), "furu.log").read_bytes()
    lines = content.decode().splitlines()
    assert "2030-01-01 INFO honest" == lines[0]
    assert "text" == lines[1]
    assert "\\ud800 is written somehow" == lines[-1]
    assert [] == [line for line in lines[1:] if line.startswith("2030")]


def test_log_takes_any_text_and_follows_no_link(tmp_path: Path) -> None:
    """Lone surrogates are written as escapes; a link in the log's place is an error."""
    attempt = begin(artifact())
    attempt.log("caf\udce9 \N{SNOWMAN}")
    assert "caf\\udce9 \N{SNOWMAN}\n" == Path(attempt.files_directory(), "furu.log").read_text("utf-8")
    second = begin(artifact("second"))
    os.symlink(tmp_path / "target", f"{second.files_directory()}/furu.log")
    with pytest.raises(OSError):
        second.log("line")
    assert not (tmp_path / "target").exists()


def test_log_of_many_threads_has_every_line_whole() -> None:
    """And one open file, closed at the end of the attempt."""
    attempt = begin(artifact())
    together = threading.Barrier(8)

    def work(number: int) -> None:
        together.wait(10)
        for line in range(50):
            attempt.log(f"{number} {line} " + "x" * 200)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = Path(attempt.files_directory(), "furu.log").read_text().splitlines()
    assert sorted(f"{n} {line} " + "x" * 200 for n in range(8) for line in range(50)) == sorted(lines)
    publish(attempt)
    attempt.log("too late")
    assert lines == Path(files(attempt.artifact), "furu.log").read_text().splitlines()


# ---- replacing what `_validate` rejected ----


def test_rejected_artifact_is_replaced(place: Artifact) -> None:
    """Under the next number; the old one's files stay until the new one is there."""
    old = begin(place)
    old.files_directory()
    publish(old, 1)
    attempt = begin(place, rejecting(place, 1))
    assert 2 == attempt.number
    assert ["a1", "rejected-2", "try-1", "try-2"] == names(place)
    assert Status.IN_PROGRESS is survey(place).status
    assert publish(attempt, 2)
    assert ["done"] == names(place)
    assert 2 == result(place)
    assert claim(place, rejecting(place, 1)) is None


def test_accepted_done_stays() -> None:
    """With a judge or without."""
    place = artifact()
    compute(place, "new")
    assert claim(place, rejecting(place)) is None
    assert claim(place) is None
    assert (["done"], "new") == (names(place), result(place))


def test_rejected_done_is_replaced_again_and_again() -> None:
    """Numbers go on counting; nothing is left of any."""
    place = artifact()
    compute(place, "old")
    for number in range(2, 6):
        attempt = begin(place, rejecting(place))
        assert number == attempt.number
        put(f"{attempt.files_directory()}/file", "x")
        assert publish(attempt, "old")
        assert [f"a{number}", "done"] == names(place)


def test_rejected_done_can_be_replaced_after_a_replacement_that_failed() -> None:
    """In one long-lived process: rejected, failed, computed, rejected again."""
    place = artifact()
    compute(place, "old")
    fail(begin(place, rejecting(place)))
    assert Status.FAILED is survey(place).status
    attempt = begin(place, rejecting(place))
    assert 3 == attempt.number
    assert publish(attempt, "old")
    attempt = begin(place, rejecting(place))
    assert publish(attempt, "new")
    assert "new" == result(place)


def test_judge_that_raises_leaves_the_artifact_and_the_node_free() -> None:
    """The error of a `_validate` is its caller's."""
    place = artifact()
    compute(place, "old")

    def judge() -> bool:
        raise LookupError("the judge's own")

    with pytest.raises(LookupError):
        claim(place, judge)
    assert (["done"], "old") == (names(place), result(place))
    assert publish(begin(place, rejecting(place)), "new")


class Fickle(Furu[int]):
    name: str
    good = True

    def _validate(self) -> bool:
        return type(self).good

    def _create(self) -> int:
        type(self).good = True
        return 7


def test_node_whose_validate_says_no_is_computed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through get(), exists() and status()."""
    node = Fickle(name="x")
    assert 7 == node.get()
    monkeypatch.setattr(Fickle, "good", False)
    assert (False, Status.TODO) == (node.exists(), node.status())
    assert 7 == node.get()
    assert (True, Status.DONE) == (node.exists(), node.status())
    assert ["done"] == names(artifact_of(node))


# ---- moved and removed ----


def test_moved_store_works(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No absolute path is written anywhere that counts."""
    node = Square(of=3)
    node.get()
    os.rename(store, tmp_path / "moved")
    monkeypatch.setenv("FURU_PATH", str(tmp_path / "moved"))
    assert (True, 9) == (node.exists(), node.get())


def test_store_reached_by_two_paths_is_one(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A symbolic link to the store leads to the same nodes, attempts and results."""
    store.mkdir()
    (tmp_path / "link").symlink_to(store)
    attempt = begin(artifact())
    with use_settings(store=tmp_path / "link"):
        assert Status.IN_PROGRESS is survey(artifact()).status
        with pytest.raises(FuruInProgressError):
            claim(artifact())
    assert publish(attempt)
    with use_settings(store=tmp_path / "link"):
        assert artifact().is_done()


def test_removed_node_is_a_node_to_do() -> None:
    """With rm -rf, between two gets."""
    node = Square(of=3)
    node.get()
    shutil.rmtree(artifact_of(node).files.directory)
    assert (Status.TODO, False) == (node.status(), node.exists())
    assert 9 == node.get()


# ---- durability ----


def test_process_durability_never_syncs(place: Artifact) -> None:
    """What survives kill -9 costs no fsync."""
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
    assert expected | {place.files.directory, temporary} == {path.removesuffix("/") for path in before}
    assert before.index(str(directory / "part/two.bin")) < before.index(str(directory / "part"))
    assert calls.index(("write", temporary)) < calls.index(("fsync", temporary)) < linked
    after = [path for name, path in calls[linked:] if name == "fsync"]
    above = [place.files.directory, *map(str, Path(place.files.directory).parents)]
    assert above[: len(after)] == after
    assert above.index(str(store.parent)) < len(after)  # furu may have made the store


def test_power_durability_survives_links_and_pipes_among_the_files() -> None:
    """They have no content to sync, and waiting for a FIFO would be for ever."""
    attempt = begin(artifact(durability="power"))
    os.mkfifo(f"{attempt.files_directory()}/pipe")
    os.symlink("/nowhere", f"{attempt.files_directory()}/link")
    with system_calls() as calls:
        assert publish(attempt)
    assert [] == [path for name, path in calls if name == "fsync" and path.endswith(("/pipe", "/link"))]


def test_sync_that_fails_before_the_link_publishes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that reports an error has not stored the result."""
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
    """Where the directory cannot be synced after the link, `done` is there: no error may deny it."""
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
