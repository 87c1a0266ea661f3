"""Claim, publish, end: what lies on disk after each step, and that two never do one's work."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from furu import Furu, FuruComputeError, FuruInProgressError, FuruStoreError, Status
from furu.settings import use_settings
from furu.store import owner as owner_module
from furu.store.artifact import survey
from furu.store.attempt import Attempt, claim, running_attempt
from furu.text import describe_error

from .store_helpers import (
    HOLD,
    Other,
    Square,
    artifact,
    begin,
    compute,
    done_document,
    fail,
    interleaver,
    leave_attempt,
    names,
    owners,
    publish,
    put,
    result,
)

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


def test_done_decides_whatever_attempts_lie_beside_it() -> None:
    """A failure's record or a live attempt does not make a published node less DONE."""
    place = artifact()
    compute(place)
    put(place.files.attempt(7), "junk")
    assert Status.DONE is survey(place).status


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
    owner_module.current_owner(store, 90.0)
    os.makedirs(place.files.directory)
    seen: list[tuple[str, list[str], list[str]]] = []
    for name in ("link", "unlink"):
        real = getattr(os, name)

        def recorded(path: str, *args: Any, real: Any = real, name: str = name) -> None:
            before = names(place)
            real(path, *args)
            seen.append((name, before, names(place)))

        monkeypatch.setattr(os, name, recorded)
    attempt = begin(place)
    assert [("link", [], ["try-1"])] == seen
    assert os.path.samefile(attempt.owner.path, attempt.state_path)
    attempt.files_directory()
    assert ["a1", "try-1"] == names(place)
    seen.clear()
    assert publish(attempt)
    assert [
        ("link", ["a1", "tmp-1", "try-1"], ["a1", "done", "tmp-1", "try-1"]),
        ("unlink", ["a1", "done", "tmp-1", "try-1"], ["a1", "done", "try-1"]),
        ("unlink", ["a1", "done", "try-1"], ["a1", "done"]),
    ] == seen
    assert [attempt.owner.record.id] == owners(store)


def test_done_holds_the_result_the_config_and_the_timings() -> None:
    """One document, readable by people."""
    place = artifact()
    attempt = begin(place)
    assert attempt.publish("json", b"[1, 2]", {"lr": 0.1})
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
        "result": [1, 2],
    } == document


def test_files_directory_is_made_only_when_it_is_asked_for() -> None:
    """A node without files costs no directory; asking twice makes one."""
    place = artifact()
    attempt = begin(place)
    assert ["try-1"] == names(place)
    assert attempt.files_directory() == attempt.files_directory()
    assert ["a1", "try-1"] == names(place)


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

_CALLS = ["access", "chmod", "close", "fdatasync", "fstat", "fsync", "ftruncate", "link", "listdir"]
_CALLS += ["lstat", "mkdir", "open", "read", "readlink", "remove", "rename", "replace", "rmdir"]
_CALLS += ["scandir", "stat", "symlink", "sync", "truncate", "unlink", "utime", "write"]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The system calls that this thread makes from here on."""
    made: list[str] = []
    here = threading.get_ident()
    for name in _CALLS:
        real = getattr(os, name, None)
        if real is None:
            continue

        def counted(*args: Any, real: Any = real, name: str = name, **kwargs: Any) -> Any:
            if threading.get_ident() == here:
                made.append(name)
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, counted)
    return made


def test_cold_node_costs_at_most_ten_system_calls(calls: list[str], store: Path) -> None:
    """From the first look to the last unlink, in a class that has been seen before."""
    with use_settings(store=store):
        Square(of=1).get()
        node = Square(of=2)
        calls.clear()
        assert 4 == node.get()
    assert (
        ["lstat", "mkdir", "link", "lstat", "open", "write", "close", "link", "unlink", "unlink"]
    ) == calls
    assert len(calls) <= 10


def test_status_of_a_warm_node_costs_one_stat(calls: list[str]) -> None:
    """As exists() does."""
    node = Square(of=2)
    node.get()
    calls.clear()
    assert Status.DONE is node.status()
    assert ["lstat"] == calls
    assert node.exists()
    assert ["lstat", "lstat"] == calls


def test_reading_a_warm_node_writes_nothing(calls: list[str]) -> None:
    """A look, one open, one read."""
    node = Square(of=2)
    node.get()
    calls.clear()
    node.get()
    assert ["lstat", "open", "fstat", "read", "close"] == calls


def test_first_claim_lists_no_directory(calls: list[str]) -> None:
    """try-1 is tried blind; only a name that is taken costs a listing."""
    place = artifact()
    fail(begin(place))
    assert "listdir" not in calls
    begin(place)
    assert "listdir" in calls


# ---- one wins ----


def test_of_threads_that_claim_a_node_together_one_wins() -> None:
    """The others are told so at once."""
    place = artifact()
    together = threading.Barrier(8)
    results: list[Any] = []

    def work() -> None:
        together.wait(10)
        try:
            results.append(claim(place))
        except FuruInProgressError as error:
            results.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 7 == sum(isinstance(one, FuruInProgressError) for one in results)
    assert 1 == sum(isinstance(one, Attempt) for one in results)
    assert ["try-1"] == names(place)


def test_claim_of_what_this_process_is_at_names_this_process() -> None:
    """The error says who, where, and is told apart by its type."""
    place = artifact()
    begin(place)
    with pytest.raises(FuruInProgressError) as caught:
        claim(place)
    assert f"pid {os.getpid()}" in str(caught.value)
    assert Path(place.files.directory) == caught.value.node_dir


def test_claim_of_what_another_process_is_at_names_that_process() -> None:
    """Its pid and host are for people."""
    place = artifact()
    with Other(HOLD) as other:
        assert "claimed" == other.hear()
        with pytest.raises(FuruInProgressError, match=f"pid {other.process.pid} on ") as caught:
            claim(place)
    assert (1, Path(place.files.directory)) == (caught.value.attempt, caught.value.node_dir)


RACE = """
say("ready")
hear()
won = []
for number in range(40):
    attempt = try_claim(str(number))
    if attempt != "in progress":
        won.append([number, attempt.number])
say(won)
hear()
"""


@pytest.mark.parametrize("dead", [False, True], ids=["cold", "taking over"])
def test_of_processes_that_claim_nodes_together_one_wins_each(dead: bool) -> None:
    """Four processes, forty nodes: each node has one winner, at the same number."""
    if dead:
        for number in range(40):
            leave_attempt(artifact(str(number)))
    with Other(RACE) as one, Other(RACE) as two, Other(RACE) as three, Other(RACE) as four:
        everyone = [one, two, three, four]
        assert ["ready"] * 4 == [other.hear() for other in everyone]
        for other in everyone:
            other.tell()
        won = sorted(pair for other in everyone for pair in json.loads(other.hear()))
    assert [[number, 2 if dead else 1] for number in range(40)] == won


def test_claim_of_a_published_node_is_none_and_leaves_no_trace() -> None:
    """Not even a directory's listing changes, claimed blind or not."""
    place = artifact()
    compute(place)
    assert claim(place) is None
    assert ["done"] == names(place)
    assert running_attempt(place) is None


def test_done_that_appears_between_look_and_claim_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each claimer looks again after its link."""
    place = artifact()
    real = os.link

    def link(source: str, target: str) -> None:
        if target.endswith("try-1") and not place.is_done():
            put(place.files.done, "published by another")
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    assert claim(place) is None
    assert ["done"] == names(place)


# ---- publishing happens once ----


class Sleeper:
    """This process as another machine sees it: of another boot, and still."""

    SCRIPT = """
import furu.store.owner as o
o.boot_id = lambda: "another boot"
clock = Clock()
o.time = clock
place = artifact()
say(survey(place).status.value)
clock.now += 1000
attempt = begin(place)
put(attempt.files_directory() + "/file", "theirs")
say(attempt.number)
if hear() == "publish":
    say(publish(attempt, "theirs"))
hear()
"""


def test_owner_that_lost_its_claim_does_not_publish() -> None:
    """Paused for a lease, taken over, and awake after the winner published: the winner's stays."""
    place = artifact()
    mine = begin(place)
    mine.files_directory()
    with Other(Sleeper.SCRIPT) as other:
        assert "IN_PROGRESS" == other.hear()
        assert "2" == other.hear()
        assert "True" == other.ask("publish")
        assert not publish(mine, "mine")
    assert "theirs" == result(place)
    assert {"a2", "done"} <= set(names(place))
    assert not os.path.exists(mine.state_path)


def test_owner_that_lost_its_claim_but_wakes_first_publishes() -> None:
    """The taker, still at it, finds that out and drops its own."""
    place = artifact()
    mine = begin(place)
    with Other(Sleeper.SCRIPT) as other:
        assert "IN_PROGRESS" == other.hear()
        assert "2" == other.hear()
        assert publish(mine, "mine")
        assert "False" == other.ask("publish")
    assert "mine" == result(place)


def test_owner_that_lost_its_claim_leaves_no_files_behind() -> None:
    """It drops its result: nobody else could tell later that its files are nobody's."""
    place = artifact()
    mine = begin(place)
    with Other(Sleeper.SCRIPT) as other:
        assert ["IN_PROGRESS", "2"] == [other.hear(), other.hear()]
        assert "True" == other.ask("publish")
        put(f"{mine.files_directory()}/large", "mine")
        assert not publish(mine, "mine")
    assert ["a2", "done"] == names(place)
    assert "theirs" == Path(place.files.files(2), "file").read_text()


class Slow(Furu[str]):
    name: str

    def _create(self) -> str:
        place = self._artifact()
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


def test_second_publish_of_any_kind_gets_eexist_and_changes_nothing() -> None:
    """Even of an attempt that is made to try again."""
    place = artifact()
    first = begin(place)
    assert publish(first, "first")
    assert not publish(Attempt(place, 5, first.owner), "second")
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
        with pytest.raises(FuruStoreError, match=r"cannot publish .*done: No space left"):
            publish(attempt)
        assert attempt is running_attempt(place)
    assert fail(attempt) is None
    assert (Status.FAILED, ["try-1"]) == (survey(place).status, names(place))


# ---- failed and cancelled ----


def blow_up(secret: str) -> None:
    password = secret * 3
    raise ValueError(f"bad split of {len(password)}")


def test_failed_record_is_readable_and_has_the_traceback_but_no_locals() -> None:
    """For people: where and why. Not for them: what the variables held."""
    place = artifact()
    attempt = begin(place)
    with pytest.raises(ValueError, match="bad split") as caught:
        blow_up("hunter2")
    assert attempt.end("failed", caught.value, {"lr": 0.1}) is None
    content = Path(attempt.state_path).read_text()
    document = json.loads(content)
    assert ("ended", "failed", "ValueError: bad split of 21", {"lr": 0.1}, 1) == (
        document["record"],
        document["outcome"],
        document["error"],
        document["config"],
        document["attempt"],
    )
    assert "in blow_up" in "\n".join(document["traceback"])
    assert "hunter2hunter2" not in content
    assert len(content.splitlines()) > 10
    assert (os.getpid(), place.hash) == (document["pid"], document["hash"])
    assert ["try-1"] == names(place)


def test_cancelled_record_leaves_the_node_to_do() -> None:
    """It says so, with the traceback, and the next attempt follows."""
    place = artifact()
    attempt = begin(place)
    assert attempt.end("cancelled", KeyboardInterrupt(), {}) is None
    assert "cancelled" == json.loads(Path(attempt.state_path).read_bytes())["outcome"]
    assert Status.TODO is survey(place).status
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


def test_error_with_notes_is_described_by_itself_and_not_by_the_last_note() -> None:
    """Notes stand in the traceback."""
    error = ValueError("bad split")
    error.add_note("seen in fold 3")
    assert "ValueError: bad split" in describe_error(error)


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
    put(f"{place.files.files(4)}/left", "x")
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
    put(f"{place.files.files(6)}/sub/large", "x")
    put(place.files.temporary(6, "0" * 32), "half")
    attempt = begin(place)
    put(f"{attempt.files_directory()}/mine", "x")
    assert publish(attempt)
    assert ["a7", "done", "try-1", "try-3"] == names(place)
    assert "attempt 3" in Path(place.files.attempt(3)).read_text()
    assert ["mine"] == os.listdir(place.files.files(7))


def test_publish_spares_what_a_live_owner_left() -> None:
    """A process that was taken for dead, and is not, keeps its files until it knows."""
    place = artifact()
    script = """
attempt = begin(artifact())
put(attempt.files_directory() + "/half", "x")
say("claimed")
hear()
say(publish(attempt, "theirs"))
"""
    with Other(script) as other:
        assert "claimed" == other.hear()
        mine = Attempt(place, 2, owner_module.current_owner(place.settings.store, 90.0))
        os.link(mine.owner.path, mine.state_path)
        assert publish(mine, "mine")
        assert ["a1", "done", "try-1"] == names(place)
        assert "False" == other.ask("")
    assert "mine" == result(place)


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
    os.symlink(tmp_path / "data", place.files.files(2))
    compute(place)
    assert ["done", "try-1"] == names(place)
    assert ["precious"] == os.listdir(tmp_path / "data")


# ---- a record that cannot be written ----


class Failing(Furu[int]):
    name: str

    def _create(self) -> int:
        raise ValueError("the node's own")


def refuse_records(patches: pytest.MonkeyPatch, number: int = errno.ENOSPC) -> None:
    """From here on no temporary file can be made."""
    real = os.open

    def full(path: Any, *args: Any, **kwargs: Any) -> int:
        if "/tmp-" in str(path):
            raise OSError(number, os.strerror(number))
        return real(path, *args, **kwargs)

    patches.setattr(os, "open", full)


def test_record_that_cannot_be_written_does_not_hide_the_nodes_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The message and the cause are the node's; why there is no record is a note."""
    with monkeypatch.context() as patches:
        refuse_records(patches)
        with pytest.raises(FuruComputeError) as caught:
            Failing(name="x").get()
    cause = caught.value.__cause__
    assert isinstance(cause, ValueError)
    assert any("No space left" in note for note in cause.__notes__)
    assert "ValueError: the node's own" in str(caught.value)


def test_record_that_cannot_be_written_does_not_block_this_processs_next_claim(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor its view of the node: the process lives, the attempt does not."""
    place = artifact()
    with monkeypatch.context() as patches:
        refuse_records(patches)
        problem = fail(begin(place))
        assert problem is not None
        assert errno.ENOSPC == problem.errno
        assert Status.TODO is survey(place).status
        following = begin(place)
        assert (2, Status.IN_PROGRESS) == (following.number, survey(place).status)
    assert publish(following)
    assert ["done"] == names(place)


def test_node_that_was_removed_after_an_unwritten_end_is_computed_as_any_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its first attempt is alive again under the same name."""
    place = artifact()
    with monkeypatch.context() as patches:
        refuse_records(patches)
        fail(begin(place))
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


def test_claim_that_could_not_look_at_done_does_not_block_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """An I/O error after the link: the claim is not this process's for ever."""
    place = artifact()
    real = os.lstat

    def broken(path: Any, *args: Any, **kwargs: Any) -> Any:
        if str(path) == place.files.done:
            raise OSError(errno.EIO, "Input/output error")
        return real(path, *args, **kwargs)

    with monkeypatch.context() as patches:
        patches.setattr(os, "lstat", broken)
        with pytest.raises(FuruStoreError, match="Input/output error"):
            claim(place)
    compute(place)
    assert place.is_done()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", ["mkdir", "link", "lstat"])
def test_claim_that_was_interrupted_does_not_block_the_next(
    name: str, after: bool, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C at any system call of a claim: the node can be claimed again."""
    place = artifact()
    os.makedirs(Path(place.files.directory).parent)
    owner_module.current_owner(store, 90.0)
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


# ---- the log ----


@pytest.mark.parametrize("newline", ["\n", "\r", "\r\n", "\n\n"], ids=ascii)
def test_log_line_cannot_be_forged_by_newlines(newline: str) -> None:
    """Only what furu wrote stands at the beginning of a line."""
    attempt = begin(artifact())
    attempt.log(f"2030-01-01 INFO first{newline}2030-01-01 ERROR forged")
    attempt.log("2030-01-01 INFO second")
    content = Path(attempt.files_directory(), "furu.log").read_bytes()
    starts = [line for line in content.splitlines() if line.startswith(b"2030")]
    assert [b"first", b"second"] == [
        start.split(b"\\r")[0].split()[-1][:6] for start in starts if b"INFO" in start
    ]
    assert not any(start.startswith(b"2030-01-01 ERROR") for start in starts)


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
    assert lines == Path(attempt.artifact.files.files(1), "furu.log").read_text().splitlines()


# ---- replacing what `_validate` rejected ----


def is_old(place: Any) -> Callable[[], bool]:
    """Reject the value "old", and a `done` that is not there."""
    return lambda: result(place) in ("old", None)


def test_rejected_done_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set aside under the next claim, never absent with the name try-1 free, and gone at the end."""
    place = artifact()
    compute(place, "old")
    attempt = begin(place, is_old(place))
    assert 2 == attempt.number
    assert ["rejected-2", "try-1", "try-2"] == names(place)
    assert Status.IN_PROGRESS is survey(place).status
    assert publish(attempt, "new")
    assert (["done"], "new") == (names(place), result(place))
    assert claim(place, is_old(place)) is None


def test_accepted_done_stays() -> None:
    """With a judge or without."""
    place = artifact()
    compute(place, "new")
    assert claim(place, is_old(place)) is None
    assert claim(place) is None
    assert (["done"], "new") == (names(place), result(place))


def test_rejected_done_is_replaced_again_and_again() -> None:
    """Numbers go on counting; nothing is left of any."""
    place = artifact()
    compute(place, "old")
    for number in range(2, 6):
        attempt = begin(place, is_old(place))
        assert number == attempt.number
        put(f"{attempt.files_directory()}/file", "x")
        assert publish(attempt, "old")
        assert [f"a{number}", "done"] == names(place)


def test_rejected_done_can_be_replaced_after_a_replacement_that_failed() -> None:
    """In one long-lived process: rejected, failed, computed, rejected again."""
    place = artifact()
    compute(place, "old")
    fail(begin(place, is_old(place)))
    assert Status.FAILED is survey(place).status
    attempt = begin(place, is_old(place))
    assert 3 == attempt.number
    assert publish(attempt, "old")
    attempt = begin(place, is_old(place))
    assert publish(attempt, "new")
    assert "new" == result(place)


def test_rejected_done_can_be_replaced_by_another_process_after_one_that_failed() -> None:
    """The process whose replacement failed is still alive, and computes nothing here."""
    place = artifact()
    compute(place, "old")
    script = """
place = artifact()
fail(begin(place, lambda: True))
attempt = begin(place, lambda: True)
say(publish(attempt, "old"))
hear()
"""
    with Other(script) as other:
        assert "True" == other.hear()
        attempt = begin(place, is_old(place))
        assert publish(attempt, "new")
    assert "new" == result(place)


def test_blind_claim_does_not_slip_through_while_done_is_aside() -> None:
    """Another process tries try-1 at every step of a replacement, and is told that it is taken."""
    place = artifact()
    compute(place, "old")
    script = """
while hear() == "claim":
    got = try_claim("one")
    say(got if got in ("in progress", None) else "claimed")
"""
    with Other(script) as other:
        assert "None" == other.ask("claim")
        attempt = begin(place, is_old(place))
        assert "in progress" == other.ask("claim")
        fail(attempt)
        attempt = begin(place, is_old(place))
        assert "in progress" == other.ask("claim")
        assert publish(attempt, "new")
        assert "None" == other.ask("claim")


def test_rejected_done_waits_for_an_attempt_that_is_alive() -> None:
    """Somebody at a number below could free that name: no replacement until it ended."""
    place = artifact()
    compute(place, "old")
    script = """
place = artifact()
owner = __import__("furu.store.owner").store.owner.current_owner(place.settings.store, 90.0)
os.link(owner.path, place.files.attempt(5))
say("linked")
hear()
os.unlink(place.files.attempt(5))
say("gone")
hear()
"""
    with Other(script) as other:
        assert "linked" == other.hear()
        with pytest.raises(FuruInProgressError):
            claim(place, is_old(place))
        assert ["done", "try-1", "try-5"] == names(place)
        assert "gone" == other.ask("")
        assert publish(begin(place, is_old(place)), "new")
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
    assert publish(begin(place, is_old(place)), "new")


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
    assert ["done"] == names(node._artifact())


def put_done(place: Any, value: str) -> None:
    put(place.files.done, done_document(place, result=value))


def rejected_and(number: int) -> Callable[[Any], None]:
    """A `done` to replace, and an attempt of a dead owner beside it."""

    def prepare(place: Any) -> None:
        put_done(place, "old")
        leave_attempt(place, number)

    return prepare


def rejected_and_failed(place: Any) -> None:
    """A `done` to replace, and the record of the failure before it."""
    fail(begin(place))
    put(place.files.done, done_document(place, attempt=2, result="old"))


def died_replacing(place: Any) -> None:
    """A `done` that was set aside by an owner that is dead."""
    for number in (1, 2):
        leave_attempt(place, number)
    put(place.files.rejected(2), done_document(place, result="old"))


PREPARE: dict[str, Callable[[Any], Any]] = {
    "cold": lambda place: os.makedirs(place.files.directory),
    "a dead owner's": leave_attempt,
    "failed": lambda place: fail(begin(place)),
    "died while replacing": died_replacing,
    "done and good": lambda place: put_done(place, "new"),
    "rejected": lambda place: put_done(place, "old"),
    "rejected, with a dead attempt": rejected_and(2),
    "rejected, with try-1": rejected_and(1),
    "rejected, with a failure's record": rejected_and_failed,
    "empty done": lambda place: put(place.files.done, b""),
}


def orders(steps: int) -> list[tuple[int, ...]]:
    """Every order with one change between two claimers, and many with two and three."""
    several = [
        every[:: 1 + len(every) // 40]
        for every in (list(itertools.combinations(range(1, steps + 1), changes)) for changes in (2, 3))
    ]
    return [(), *((step,) for step in range(1, steps + 1)), *several[0], *several[1]]


@pytest.mark.parametrize("judged", ["both judge", "one judges"])
@pytest.mark.parametrize("state", PREPARE)
def test_two_claimers_never_both_hold_a_node_in_any_order_of_their_steps(
    state: str, judged: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two claimers that do not end, changing at every system call: one holds the node at most."""
    store.mkdir()
    numbers = itertools.count()
    with interleaver(monkeypatch, store) as between:

        def attempt_order(order: tuple[int, ...]) -> Any:
            place = artifact(f"{next(numbers)}")
            PREPARE[state](place)
            first, second = is_old(place), is_old(place) if judged == "both judge" else None
            return between.run([lambda: claim(place, first), lambda: claim(place, second)], order)

        steps = attempt_order(()).steps
        for order in orders(steps):
            made = attempt_order(order)
            for one in made.results:
                assert one is None or isinstance(one, (Attempt, FuruInProgressError)), (order, one)
            holders = [one for one in made.results if isinstance(one, Attempt)]
            assert len(holders) <= 1, (order, [one.number for one in holders])


@pytest.mark.parametrize("state", PREPARE)
def test_two_that_compute_a_node_compute_it_once_in_any_order_of_their_steps(
    state: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claim, publish, release, clean: one publishes, or is still to, and nobody computes it twice."""
    store.mkdir()
    numbers = itertools.count()
    with interleaver(monkeypatch, store) as between:

        def attempt_order(order: tuple[int, ...]) -> Any:
            place = artifact(f"{next(numbers)}")
            PREPARE[state](place)

            def work() -> str:
                try:
                    attempt = claim(place, is_old(place))
                except FuruInProgressError:
                    return "elsewhere"
                if attempt is None:
                    return "there"
                return "published" if publish(attempt, "new") else "lost"

            made = between.run([work, work], order)
            # Whoever was sent away comes again.
            again = between.run([work], ())
            return made, again, place

        steps = attempt_order(())[0].steps
        for order in orders(steps):
            made, again, place = attempt_order(order)
            results = [*made.results, *again.results]
            for one in results:
                assert one in ("elsewhere", "there", "published"), (order, results)
            assert (0 if state == "done and good" else 1) == results.count("published"), (order, results)
            assert "new" == result(place), (order, results)


def test_replacer_that_was_overtaken_does_not_compute_beside_the_other() -> None:
    """Two processes judge the same `done`; the second links the next number after the first one had
    looked for others, and finds `done` gone: the first is computing."""
    place = artifact()
    compute(place, "old")
    script = """
real = os.rename
def rename(source, target):
    say("about to set done aside")
    hear()
    real(source, target)
    say("set aside")
os.rename = rename
attempt = begin(artifact(), lambda: True)
say(attempt.number)
hear()
"""
    with Other(script) as other:
        assert "about to set done aside" == other.hear()
        real = os.link

        def link(source: str, target: str) -> None:
            if target.endswith("/try-3"):
                assert "set aside" == other.ask("")
                assert "2" == other.hear()
            real(source, target)

        with pytest.MonkeyPatch.context() as patches:
            patches.setattr(os, "link", link)
            with pytest.raises(FuruInProgressError):
                claim(place, lambda: True)


def test_good_result_is_not_set_aside_for_the_rejected_one_that_it_replaced() -> None:
    """Judged, then replaced by another process, then set aside: what was judged is not what is there."""
    place = artifact()
    compute(place, "old")
    script = """
real = os.rename
def rename(source, target):
    say("about to set done aside")
    hear()
    real(source, target)
os.rename = rename
say(publish(begin(artifact(), lambda: True), "new"))
hear()
"""
    with Other(script) as other:
        assert "about to set done aside" == other.hear()
        verdicts: list[bool] = []

        def judge() -> bool:
            verdicts.append(result(place) == "old")
            if len(verdicts) == 2:  # under the claim: the first was before it
                assert "True" == other.ask("")
            return verdicts[-1]

        with contextlib.suppress(FuruInProgressError):
            assert claim(place, judge) is None
    assert verdicts[:2] == [True, True]
    assert "new" == result(place)


REPLACE = """
say("ready")
hear()
computed = []
for number in range(15):
    place = artifact(str(number))
    reject = lambda: result(place) == "old"
    while True:
        attempt = try_claim(str(number), reject)
        if attempt is None:
            break
        if attempt != "in progress":
            if publish(attempt, "new"):
                computed.append(number)
say(computed)
hear()
"""


def test_of_processes_that_replace_rejected_results_together_one_publishes_each() -> None:
    """Three processes, fifteen nodes, none of them waiting for another longer than it has to."""
    places = [artifact(str(number)) for number in range(15)]
    for place in places:
        compute(place, "old")
    with Other(REPLACE) as one, Other(REPLACE) as two, Other(REPLACE) as three:
        everyone = [one, two, three]
        assert ["ready"] * 3 == [other.hear() for other in everyone]
        for other in everyone:
            other.tell()
        computed = sorted(number for other in everyone for number in json.loads(other.hear()))
    assert list(range(15)) == computed
    assert ["new"] * 15 == [result(place) for place in places]


# ---- copies, deletions ----


def test_copied_store_works(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hard links became files: what is done is done, what failed failed, what ran is dead."""
    compute(artifact("done"), "value")
    fail(begin(artifact("failed")))
    begin(artifact("running"))
    with Other(HOLD.replace("artifact()", "artifact('elsewhere')")) as other:
        assert "claimed" == other.hear()
        shutil.copytree(store, tmp_path / "copy", copy_function=shutil.copyfile)
        monkeypatch.setenv("FURU_PATH", str(tmp_path / "copy"))
        expected = [Status.DONE, Status.FAILED, Status.TODO, Status.TODO]
        found = [survey(artifact(name)).status for name in ("done", "failed", "running", "elsewhere")]
        assert expected == found
    assert "value" == result(artifact("done"))
    for name in ("failed", "running", "elsewhere"):
        attempt = begin(artifact(name))
        assert 2 == attempt.number
        assert publish(attempt)
    assert [["done", "try-1"], ["done"]] == [names(artifact(name)) for name in ("failed", "running")]


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
    shutil.rmtree(node._artifact().files.directory)
    assert (Status.TODO, False) == (node.status(), node.exists())
    assert 9 == node.get()


def test_directory_removed_between_mkdir_and_link_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody deletes while this process claims."""
    place = artifact()
    owner_module.current_owner(place.settings.store, 90.0)
    real, removed = os.link, []

    def link(source: str, target: str) -> None:
        if not removed:
            removed.append(target)
            shutil.rmtree(place.settings.store / "module")
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    compute(place)
    assert place.is_done()


# ---- durability ----


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is synced and what is linked, in order; by the names below the store."""
    if not os.path.exists("/proc/self/fd"):
        pytest.skip("tells descriptors by /proc")
    made: list[str] = []
    fsync, link = os.fsync, os.link

    def short(path: str) -> str:
        name = os.path.basename(path)
        return "tmp" if name.startswith("tmp-") else name

    def synced(descriptor: int) -> None:
        made.append(f"sync {short(os.readlink(f'/proc/self/fd/{descriptor}'))}")
        fsync(descriptor)

    def linked(source: str, target: str) -> None:
        made.append(f"link {short(target)}")
        link(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "link", linked)
    return made


def test_power_durability_syncs_everything_before_the_link(order: list[str], store: Path) -> None:
    """The files, their directories, the document; then the link; then the names up to the store."""
    place = artifact(durability="power")
    attempt = begin(place)
    put(f"{attempt.files_directory()}/sub/deep", "x")
    put(f"{attempt.files_directory()}/top", "x")
    order.clear()
    assert publish(attempt)
    link = order.index("link done")
    assert ["sync a1", "sync deep", "sync sub", "sync tmp", "sync top"] == sorted(order[:link])
    assert ["sync " + name for name in (place.hash, "Class", "module", "store")] == order[link + 1 :]
    assert order.index("sync deep") < order.index("sync sub")


def test_power_durability_survives_links_and_pipes_among_the_files(order: list[str]) -> None:
    """They have no content to sync, and waiting for a FIFO would be for ever."""
    attempt = begin(artifact(durability="power"))
    os.mkfifo(f"{attempt.files_directory()}/pipe")
    os.symlink("/nowhere", f"{attempt.files_directory()}/link")
    assert publish(attempt)
    assert "sync pipe" not in order


def test_process_durability_syncs_nothing(order: list[str]) -> None:
    """The default pays for no fsync."""
    attempt = begin(artifact())
    attempt.files_directory()
    assert publish(attempt)
    assert [] == [one for one in order if one.startswith("sync")]


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


# ---- killed in the middle ----


@pytest.mark.parametrize("step", ["link", "write", "close", "unlink"])
def test_process_killed_at_any_step_of_publishing_leaves_all_or_nothing(step: str) -> None:
    """Killed before its first call of each kind: DONE with the whole value, or to do."""
    script = f"""
place = artifact("{step}")
attempt = begin(place)
put(attempt.files_directory() + "/file", "x")
real = os.{step}
def killed(*args, **kwargs):
    os.kill(os.getpid(), {int(signal.SIGKILL)})
os.{step} = killed
publish(attempt, "whole")
"""
    place = artifact(step)
    with Other(script) as other:
        assert -signal.SIGKILL == other.process.wait()
    found = survey(place).status
    assert (Status.DONE if step == "unlink" else Status.TODO) is found
    if found is Status.DONE:
        assert claim(place) is None
    else:
        compute(place, "whole")
    assert "whole" == result(place)
