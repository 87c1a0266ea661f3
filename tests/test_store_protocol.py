"""Attempts: who computes a node, and how an artifact is published whole and once."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from furu import Furu, FuruComputeError, FuruInProgressError, FuruStoreError, Status
from furu.store.artifact import Artifact, survey
from furu.store.attempt import Attempt, claim
from furu.store.owner import current_owner
from furu.store.record import EndedRecord
from furu.text import describe_error

from .store_processes import (
    ANOTHER_MACHINE,
    Child,
    OtherProcess,
    artifact,
    claimed,
    claimed_or_none,
    fail,
    failing,
    instead,
    lease_clock,
    names,
    once_before,
    owner_files,
    publish,
    system_calls,
)

LEASE_SEC = 90.0


@pytest.fixture
def place(store: Path) -> Artifact:
    """A node that nobody has computed."""
    return artifact(store)


@pytest.fixture
def other() -> Iterator[OtherProcess]:
    """Another process of this machine."""
    with OtherProcess() as process:
        yield process


@pytest.fixture
def third() -> Iterator[OtherProcess]:
    """One more process of this machine."""
    with OtherProcess() as process:
        yield process


@pytest.fixture
def stranger() -> Iterator[OtherProcess]:
    """A process of another machine."""
    with OtherProcess(ANOTHER_MACHINE) as process:
        yield process


def result(place: Artifact) -> Any:
    """Return the published result."""
    record = place.read()
    assert record is not None
    return json.loads(bytes(record.result))


def ended_record(attempt: Attempt) -> dict[str, Any]:
    """Return the record of how an attempt ended."""
    content: dict[str, Any] = json.loads(attempt.state_path.read_text())
    return content


def rejecting(place: Artifact, bad: int = 1) -> Callable[[], bool]:
    """Reject what has the bad result."""

    def rejects() -> bool:
        record = place.read()
        return record is not None and json.loads(bytes(record.result)) == bad

    return rejects


# ---- status ----


def test_node_that_nobody_tried_is_todo(place: Artifact) -> None:
    """No directory, or an empty one."""
    assert Status.TODO is survey(place).status
    os.makedirs(place.files.directory)
    assert Status.TODO is survey(place).status


def test_node_with_a_live_owner_is_in_progress(place: Artifact, other: OtherProcess) -> None:
    """Seen from its own process and from others."""
    other.claim(place)
    assert Status.IN_PROGRESS is survey(place).status
    assert Status.IN_PROGRESS is other.survey(place)


def test_node_with_a_dead_owner_is_todo(place: Artifact, other: OtherProcess) -> None:
    """Its attempt is over, though nobody wrote so."""
    other.claim(place)
    other.die()
    assert Status.TODO is survey(place).status


def test_failed_node_is_failed(place: Artifact) -> None:
    """Until somebody tries again."""
    fail(claimed(place))
    assert Status.FAILED is survey(place).status
    claimed(place)
    assert Status.IN_PROGRESS is survey(place).status


def test_cancelled_node_is_todo(place: Artifact) -> None:
    """A cancelled attempt says nothing against the node."""
    claimed(place).end("cancelled", KeyboardInterrupt(), {})
    assert Status.TODO is survey(place).status
    assert 2 == claimed(place).number


def test_published_node_is_done_whatever_lies_beside_it(place: Artifact, other: OtherProcess) -> None:
    """A failure before, a live owner that came late: `done` decides."""
    fail(claimed(place))
    publish(claimed(place))
    os.link(other.owner_path(place.settings.store), place.files.attempt(7))
    assert Status.DONE is survey(place).status


def test_highest_attempt_decides(place: Artifact) -> None:
    """Two digits are more than one."""
    for number in range(1, 11):
        attempt = claimed(place)
        assert number == attempt.number
        fail(attempt)
    claimed(place).end("cancelled", KeyboardInterrupt(), {})
    assert Status.TODO is survey(place).status
    assert 11 == survey(place).attempt


# ---- the files after each step ----


def test_claim_is_one_hard_link_to_the_owner(place: Artifact) -> None:
    """The directory of the node holds that and nothing more."""
    attempt = claimed(place)
    assert ["try-1"] == names(place)
    assert os.path.samefile(attempt.owner.path, place.files.attempt(1))
    assert Path(place.files.attempt(1)) == attempt.state_path


def test_directory_of_an_attempt_is_made_when_first_used(place: Artifact) -> None:
    """A node that writes no files costs none."""
    attempt = claimed(place)
    assert ["try-1"] == names(place)
    assert place.files.files(1) == attempt.files_directory() == attempt.files_directory()
    assert ["a1", "try-1"] == names(place)


def test_publish_leaves_the_result_alone(place: Artifact) -> None:
    """`done` and nothing else; the claim is given back."""
    attempt = claimed(place)
    assert publish(attempt, b'{"a": [1, 2]}')
    assert ["done"] == names(place)
    assert {"a": [1, 2]} == result(place)
    record = place.read()
    assert record is not None
    assert (1, "json", {"of": 1}) == (record.attempt, record.codec, record.config)
    assert 0 <= record.duration_sec < 20
    assert claim(place) is None


def test_publish_keeps_the_files_of_its_attempt(place: Artifact) -> None:
    """What the node wrote is part of the artifact."""
    attempt = claimed(place)
    Path(attempt.files_directory(), "model.bin").write_bytes(b"weights")
    attempt.log("trained")
    assert attempt.publish("load", b"null", {})
    assert ["a1", "done"] == names(place)
    assert ["furu.log", "model.bin"] == sorted(os.listdir(place.files.files(1)))


def test_failure_leaves_its_record_in_place_of_the_claim(place: Artifact) -> None:
    """The name stays taken; its files stay for whoever looks into it."""
    attempt = claimed(place)
    attempt.files_directory()
    assert fail(attempt) is None
    assert ["a1", "try-1"] == names(place)
    assert 1 == os.stat(attempt.state_path).st_nlink


# ---- what it costs ----


class Square(Furu[int]):
    """Computes a small value."""

    of: int

    def _create(self) -> int:
        return self.of**2


def test_cold_node_costs_ten_system_calls() -> None:
    """From nothing to published, through get()."""
    Square(of=1).get()  # makes the class's directory, and this process's owner
    with system_calls() as calls:
        assert 4 == Square(of=2).get()
    ways = ["lstat", "mkdir", "link", "lstat"]
    writes = ["open", "write", "close", "link", "unlink", "unlink"]
    assert ways + writes == [name for name, _ in calls]


def test_warm_node_costs_one_stat() -> None:
    """exists() looks at `done`, and at nothing else."""
    node = Square(of=3)
    node.get()
    with system_calls() as calls:
        assert node.exists()
    assert [("lstat", str(node.furu_dir.parent / "done"))] == calls


def test_first_claim_does_not_list_the_directory(place: Artifact) -> None:
    """Only a name that is taken makes the directory worth listing."""
    claimed(artifact(place.settings.store, "another"))
    with system_calls() as calls:
        claimed(place)
    assert ["mkdir", "link", "lstat"] == [name for name, _ in calls]


# ---- one winner ----


def test_of_two_threads_one_gets_the_claim(place: Artifact) -> None:
    """The other one is told that the node is in progress."""
    barrier = threading.Barrier(8)
    outcomes: list[object] = []

    def compete() -> None:
        barrier.wait(10)
        try:
            outcomes.append(claim(place))
        except FuruInProgressError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=compete) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert 1 == sum(isinstance(outcome, Attempt) for outcome in outcomes)
    assert 7 == sum(isinstance(outcome, FuruInProgressError) for outcome in outcomes)
    assert ["try-1"] == names(place)


def test_claim_of_another_process_is_respected_and_its_result_taken(
    place: Artifact, other: OtherProcess
) -> None:
    """In progress first, then there is no need to claim."""
    attempt = other.claim(place)
    with pytest.raises(FuruInProgressError):
        claim(place)
    assert other.publish(attempt, b"7")
    assert claim(place) is None
    assert 7 == result(place)


# Forks children that begin at the same moment; each prints what became of its claims, in one line.
RACE = """
import os, sys
from furu.errors import FuruInProgressError
from tests.store_processes import artifact, claimed_or_none, publish
store, children = sys.argv[1], int(sys.argv[2])
def race(compete):
    start, begin = os.pipe()
    for number in range(children):
        if os.fork() == 0:
            os.close(begin)
            os.read(start, 1)
            try:
                said = " ".join(map(str, compete()))
            except BaseException as error:
                said = repr(error)
            os.write(1, (said + "\\n").encode())
            os.read(0, 1)
            os._exit(0)
    os.close(begin)
    for number in range(children):
        os.wait()
"""


def test_of_many_processes_that_take_over_one_wins(place: Artifact, other: OtherProcess) -> None:
    """Twenty nodes of a dead owner, eight processes: each node has one new owner."""
    script = """
def compete():
    places = [artifact(store, f"node{number}") for number in range(20)]
    attempts = [claimed_or_none(place) for place in places]
    return [attempt.artifact.hash for attempt in attempts if attempt and attempt.number == 2]
race(compete)
"""
    store = place.settings.store
    hashes = [other.claim(artifact(store, f"node{number}")).artifact.hash for number in range(20)]
    other.die()
    with Child(RACE + script, store, 8) as child:
        taken = " ".join(child.line() for _ in range(8)).split()
        assert sorted(hashes) == sorted(taken)
        child.tell("ended " * 8)


def test_of_many_processes_that_replace_a_rejected_artifact_one_computes(place: Artifact) -> None:
    """Thirty rejected artifacts, six processes that go on until all are new: each made once."""
    script = """
def compete():
    made = []
    for number in range(30):
        place = artifact(store, f"node{number}")
        def rejects():
            record = place.read()
            return record is not None and bytes(record.result) == b"1"
        while not place.is_done() or rejects():
            attempt = claimed_or_none(place, rejects)
            if attempt is not None:
                made.append(number)
                publish(attempt, b"2")
    return made
race(compete)
"""
    store = place.settings.store
    places = [artifact(store, f"node{number}") for number in range(30)]
    for one in places:
        publish(claimed(one), b"1")
    with Child(RACE + script, store, 6) as child:
        made = " ".join(child.line() for _ in range(6)).split()
        child.tell("ended " * 6)
    assert [2] * 30 == [result(one) for one in places]
    assert list(range(30)) == sorted(map(int, made))


# ---- publishing once ----


def test_owner_that_lost_its_claim_does_not_publish(place: Artifact, stranger: OtherProcess) -> None:
    """Paused beyond its lease, it comes back: the winner's result stands, and is what it gets."""
    paused = stranger.claim(place)
    with lease_clock() as clock:
        survey(place)
        clock.now += LEASE_SEC
        winner = claimed(place)
    assert publish(winner, b"2")
    assert not stranger.publish(paused, b"1")
    assert 2 == result(place)
    assert not [name for name in names(place) if name.startswith("tmp-")]
    with stranger.running():
        assert claim(place) is None


def test_owner_that_lost_its_claim_may_still_be_first(place: Artifact, stranger: OtherProcess) -> None:
    """Then the one that took over drops its own result, and harms nothing of the published one."""
    paused = stranger.claim(place)
    with stranger.running():
        Path(paused.files_directory(), "model.bin").write_bytes(b"weights")
    with lease_clock() as clock:
        survey(place)
        clock.now += LEASE_SEC
        taker = claimed(place)
    assert stranger.publish(paused, b"1")
    assert not publish(taker, b"2")
    assert 1 == result(place)
    assert Path(place.files.files(1), "model.bin").read_bytes() == b"weights"


def test_failure_of_an_owner_that_lost_its_claim_changes_nothing(
    place: Artifact, stranger: OtherProcess
) -> None:
    """While the new owner computes, and after it published."""
    late, later = stranger.claim(place), stranger.claim(artifact(place.settings.store, "another"))
    with lease_clock() as clock:
        survey(place)
        clock.now += LEASE_SEC
        winner = claimed(place)
        survey(later.artifact)
        clock.now += LEASE_SEC
        other_winner = claimed(later.artifact)
    stranger.fail(late)
    assert Status.IN_PROGRESS is survey(place).status
    assert publish(winner)
    assert publish(other_winner)
    stranger.fail(later)
    assert Status.DONE is survey(place).status
    assert Status.DONE is survey(later.artifact).status


def test_retransmitted_link_counts_as_published(place: Artifact) -> None:
    """A network filesystem makes the link, repeats the request, and calls the name taken."""
    attempt = claimed(place)

    def link_twice(original: Callable[..., None], source: str, target: str) -> None:
        original(source, target)
        original(source, target)

    with instead("link", link_twice):
        assert publish(attempt)
    assert ["done"] == names(place)


def test_retransmitted_claim_is_a_claim(place: Artifact) -> None:
    """A claim that this process made without knowing would hold the node up for its whole life."""
    before = claimed(artifact(place.settings.store, "another"))

    def link_twice(original: Callable[..., None], source: str, target: str) -> None:
        original(source, target)
        if target == place.files.attempt(1):
            original(source, target)

    with instead("link", link_twice):
        attempt = claimed(place)
    assert os.path.exists(before.owner.path), "this process is alive"
    assert Status.IN_PROGRESS is survey(place).status
    assert publish(attempt)
    assert ["done"] == names(place)


def test_claim_looks_at_done_again_after_linking(place: Artifact, other: OtherProcess) -> None:
    """Published between the first look and the link: nothing is computed again."""
    claimed(artifact(place.settings.store, "another"))

    def publish_first() -> None:
        other.publish(other.claim(place))

    with once_before("link", "try-1", publish_first):
        assert claim(place) is None
    assert ["done"] == names(place)


def test_publish_that_fails_publishes_nothing_and_can_be_recorded(place: Artifact) -> None:
    """The disk is full: an error that names the path, and the attempt ends as any other."""
    for name in ("open", "write", "link"):
        attempt = claimed(place)
        with failing(name, errno.ENOSPC), pytest.raises(FuruStoreError, match="No space") as caught:
            publish(attempt)
        assert Path(place.files.done) == caught.value.path
        assert Status.IN_PROGRESS is survey(place).status
        assert fail(attempt) is None
        assert Status.FAILED is survey(place).status
    assert ["try-1", "try-2", "try-3"] == names(place)


@pytest.mark.parametrize("name", ["listdir", "open", "unlink"])
def test_publish_that_could_not_tidy_up_is_a_publish(place: Artifact, name: str) -> None:
    """What is visible must not be reported as a failure: the next run would find it DONE."""
    fail(claimed(place))
    attempt = claimed(place)
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


# ---- records of what did not publish ----


def test_failed_attempt_leaves_a_record_for_people(place: Artifact) -> None:
    """What failed, where, with which configuration; the traceback by line; no local variables."""

    def train() -> None:
        password = "hunter" + str(2)
        raise ValueError(f"bad split of {len(password)} characters")

    attempt = claimed(place)
    with pytest.raises(ValueError, match="bad split") as caught:
        train()
    attempt.end("failed", caught.value, {"lr": 0.1})
    text = attempt.state_path.read_text()
    assert len(text.splitlines()) > 10
    assert "hunter2" not in text
    record = ended_record(attempt)
    assert "ValueError: bad split of 7 characters" == record["error"] == record["traceback"][-1]
    assert "Traceback (most recent call last):" == record["traceback"][0]
    assert any("in train" in line for line in record["traceback"])
    assert ("failed", 1, {"lr": 0.1}) == (record["outcome"], record["attempt"], record["config"])
    assert (os.getpid(), place.hash) == (record["pid"], record["hash"])


def test_cancelled_attempt_leaves_a_record(place: Artifact) -> None:
    """It names what cancelled it."""
    attempt = claimed(place)
    attempt.end("cancelled", KeyboardInterrupt(), {})
    assert "cancelled" == ended_record(attempt)["outcome"]
    assert "KeyboardInterrupt" == ended_record(attempt)["error"]


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
    attempt = claimed(place)
    assert fail(attempt, error) is None
    assert Status.FAILED is survey(place).status
    record = ended_record(attempt)
    assert "failed" == record["outcome"]
    assert 1 == len(record["error"].splitlines())
    assert record["error"].startswith(type(error).__name__)
    assert 2 == claimed(place).number


def test_failure_of_a_node_with_a_large_configuration_is_recorded(place: Artifact) -> None:
    """Its record is as good as any: FAILED, not TODO."""
    attempt = claimed(place)
    assert attempt.end("failed", ValueError("bad"), {"words": ["word"] * 500_000}) is None
    assert Status.FAILED is survey(place).status
    assert "ValueError: bad" == survey(place).record.error  # type: ignore[union-attr]


def test_error_is_told_by_itself_and_not_by_its_notes() -> None:
    """Notes are for the traceback."""
    error = ValueError("bad split")
    error.add_note("the note")
    assert "ValueError: bad split" == describe_error(error)


def test_attempts_count_upwards(place: Artifact) -> None:
    """Whatever became of the earlier ones."""
    numbers = []
    for outcome in ("failed", "cancelled", "failed"):
        attempt = claimed(place)
        numbers.append(attempt.number)
        attempt.end(outcome, ValueError("bad"), {})  # type: ignore[arg-type]
    numbers.append(claimed(place).number)
    assert [1, 2, 3, 4] == numbers
    assert ["try-1", "try-2", "try-3", "try-4"] == names(place)


def test_publish_removes_earlier_attempts_and_keeps_the_last_failure(
    place: Artifact, other: OtherProcess
) -> None:
    """Files of dead and ended attempts go; one record says what went wrong last."""
    for error in ("first", "second"):
        attempt = claimed(place)
        attempt.files_directory()
        fail(attempt, ValueError(error))
    cancelled = claimed(place)
    cancelled.files_directory()
    cancelled.end("cancelled", KeyboardInterrupt(), {})
    killed = other.claim(place)
    with other.running():
        killed.files_directory()
    other.die()
    assert 4 == killed.number
    attempt = claimed(place)
    attempt.files_directory()
    assert publish(attempt)
    assert ["a5", "done", "try-1", "try-2"] == names(place)
    assert "second" in Path(place.files.attempt(2)).read_text()


def test_publish_removes_what_a_killed_publisher_left(place: Artifact, other: OtherProcess) -> None:
    """A half-written temporary of a dead attempt goes with it."""
    attempt = other.claim(place)
    Path(place.files.temporary(1, attempt.owner.record.id)).write_text("half")
    other.die()
    assert publish(claimed(place))
    assert ["done"] == names(place)


def test_publish_spares_what_a_live_owner_uses(place: Artifact, stranger: OtherProcess) -> None:
    """An owner that was paused beyond its lease, and is back, still writes its files."""
    paused = stranger.claim(place)
    with stranger.running():
        Path(paused.files_directory(), "model.bin").write_bytes(b"weights")
    with lease_clock() as clock:
        survey(place)
        clock.now += LEASE_SEC
        winner = claimed(place)
        stranger.beat()
        assert publish(winner)
    assert Path(place.files.files(1), "model.bin").exists()
    assert os.path.exists(paused.state_path)


def test_files_that_nobody_knows_are_left_alone(place: Artifact) -> None:
    """What people put beside an artifact is theirs."""
    fail(claimed(place))
    Path(place.files.directory, "notes.txt").write_text("mine")
    assert publish(claimed(place))
    assert "notes.txt" in names(place)


# ---- records that cannot be written ----


@pytest.mark.parametrize("name", ["open", "write", "replace"])
def test_record_that_cannot_be_written_does_not_block_the_next_claim(place: Artifact, name: str) -> None:
    """The disk is full: the problem is returned, and this process may try again."""
    attempt = claimed(place)
    with failing(name, errno.ENOSPC):
        problem = fail(attempt)
    assert problem is not None
    assert errno.ENOSPC == problem.errno
    assert Status.TODO is survey(place).status
    again = claimed(place)
    assert 2 == again.number
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


def test_failed_claim_does_not_block_the_next_one(place: Artifact) -> None:
    """Whichever call fails: the error names the path, and nothing is thought to be running."""
    claimed(artifact(place.settings.store, "another"))
    for name in ("mkdir", "link", "lstat"):
        with failing(name, errno.EIO), pytest.raises(FuruStoreError, match=place.hash) as caught:
            claim(place)
        assert str(caught.value.path).startswith(place.files.directory)
    attempt = claimed(place)
    assert publish(attempt)


# ---- a `done` that is rejected or damaged ----


def test_rejected_artifact_is_replaced(place: Artifact) -> None:
    """Under the next number; the old one's files stay until the new one is there."""
    old = claimed(place)
    old.files_directory()
    publish(old, b"1")
    attempt = claimed(place, rejecting(place))
    assert 2 == attempt.number
    assert ["a1", "rejected-2", "try-1", "try-2"] == names(place)
    assert Status.IN_PROGRESS is survey(place).status
    assert publish(attempt, b"2")
    assert ["done"] == names(place)
    assert 2 == result(place)
    assert claim(place, rejecting(place)) is None


def test_artifact_that_is_not_rejected_is_left_as_it_is(place: Artifact) -> None:
    """Nothing is touched by looking."""
    publish(claimed(place), b"2")
    assert claim(place, rejecting(place)) is None
    assert ["done"] == names(place)


def test_error_of_the_validation_leaves_the_artifact(place: Artifact) -> None:
    """It is raised, and no claim is left behind."""
    publish(claimed(place))

    def rejects() -> bool:
        raise RuntimeError("cannot tell")

    with pytest.raises(RuntimeError, match="cannot tell"):
        claim(place, rejects)
    assert ["done"] == names(place)
    assert claim(place) is None


def test_nobody_else_can_claim_while_a_rejected_artifact_is_replaced(
    place: Artifact, other: OtherProcess, third: OtherProcess
) -> None:
    """`done` is aside, and no blind claim gets through; after a kill, one process takes over."""
    publish(claimed(place), b"1")
    attempt = other.claim(place, rejecting(place))
    assert 2 == attempt.number
    for _ in range(2):
        assert claimed_or_none(place, rejecting(place)) is None
        assert claimed_or_none(place) is None
        assert third.claim_or_none(place) is None
    other.die()
    assert 3 == claimed(place, rejecting(place)).number
    assert third.claim_or_none(place) is None


def test_blind_claim_that_comes_and_goes_opens_no_way_round_a_replacement(
    place: Artifact, other: OtherProcess, third: OtherProcess
) -> None:
    """A claimer holds `try-1` when the replacer wants it, and gives it back before it looks."""
    publish(claimed(place), b"1")
    third_owner, first = third.owner_path(place.settings.store), place.files.attempt(1)
    tries = 0

    def come_and_go(original: Callable[..., int], path: str, flags: int, *mode: int) -> int:
        nonlocal tries
        if path != first or not flags & os.O_EXCL:
            return original(path, flags, *mode)
        tries += 1
        if tries == 1:
            os.link(third_owner, first)
        try:
            return original(path, flags, *mode)
        finally:
            if tries == 1:
                os.unlink(first)

    with instead("open", come_and_go):
        held = claimed_or_none(place, rejecting(place))
    assert 0 < tries
    late = other.claim_or_none(place, rejecting(place))
    assert 1 >= sum(one is not None for one in (held, late))


def test_claim_delayed_past_a_publish_does_not_join_a_replacement(
    place: Artifact, other: OtherProcess, third: OtherProcess
) -> None:
    """A claimer that found try-1 dead links try-2 only after somebody else published as try-2, and
    a third one has begun to replace that."""
    dead = OtherProcess()
    dead.claim(place)
    dead.die()
    replacing: list[Attempt] = []

    def be_overtaken() -> None:
        attempt = other.claim(place)
        assert 2 == attempt.number
        other.publish(attempt, b"1")
        replacing.append(third.claim(place, rejecting(place)))

    with once_before("link", "try-2", be_overtaken):
        held = claimed_or_none(place, rejecting(place))
    assert 1 == len(replacing)
    assert held is None


class Killed(BaseException):
    """Ends a process in the middle of a claim."""


def test_good_artifact_is_not_set_aside_for_the_bad_one_that_it_replaced(
    place: Artifact, other: OtherProcess, third: OtherProcess
) -> None:
    """Two replace one artifact: one has looked around and is about to rename it, the other claims
    and judges the bad one, and by the time that it acts, the first has published a good one."""
    publish(claimed(place), b"1")
    owner_path = other.owner_path(place.settings.store)
    held: list[Attempt | None] = []
    judged = 0

    def rejects() -> bool:
        nonlocal judged
        judged += 1
        answer = rejecting(place)()
        if judged == 2:  # after the link: now the first one goes on
            os.rename(place.files.done, place.files.rejected(2))
            with other.running():
                owner = current_owner(place.settings.store, LEASE_SEC)
                assert owner_path == owner.path
                assert publish(Attempt(place, 2, owner), b"2")
        return answer

    def judge_meanwhile() -> None:
        held.append(third.claim_or_none(place, rejects))
        raise Killed

    with once_before("rename", "/done", judge_meanwhile), pytest.raises(Killed):
        other.claim(place, rejecting(place))
    assert 2 <= judged
    assert 2 == result(place)
    assert [None] == held


def test_failed_replacement_does_not_stand_in_the_way_of_a_later_one(
    place: Artifact, other: OtherProcess
) -> None:
    """The process that failed lives on, and the node may be replaced again."""
    publish(claimed(place), b"1")
    other.fail(other.claim(place, rejecting(place)))
    assert Status.FAILED is survey(place).status
    attempt = claimed(place, rejecting(place))
    assert publish(attempt, b"2")
    again = claimed(place, rejecting(place, bad=2))
    assert publish(again, b"3")
    assert 3 == result(place)


def test_claim_beside_an_old_failure_is_seen_by_everybody(place: Artifact, other: OtherProcess) -> None:
    """Somebody removed `done` by hand, and the record of a failure is still there: one computes."""
    claimed(place).end("cancelled", KeyboardInterrupt(), {})
    fail(claimed(place))
    publish(claimed(place))
    assert ["done", "try-1", "try-2"] == names(place)
    os.unlink(place.files.done)
    attempt = claimed(place)
    assert Status.IN_PROGRESS is other.survey(place)
    assert other.claim_or_none(place) is None
    assert publish(attempt)


def empty(path: Path) -> None:
    path.touch()


def full_directory(path: Path) -> None:
    path.mkdir()
    (path / "file").touch()


def link_to_a_file(path: Path) -> None:
    (path.parents[4] / "elsewhere").write_text("mine")
    path.symlink_to(path.parents[4] / "elsewhere")


@pytest.mark.parametrize(
    "damage",
    [empty, full_directory, link_to_a_file, os.mkfifo],
    ids=["empty", "directory", "link", "FIFO"],
)
@pytest.mark.parametrize("failures", [0, 1])
def test_done_that_is_no_file_counts_as_missing_and_makes_way(
    tmp_path: Path, place: Artifact, damage: Callable[[Path], object], failures: int
) -> None:
    """It is neither DONE nor an error: the node is computed, and nothing outside is touched."""
    os.makedirs(place.files.directory)
    for _ in range(failures):
        fail(claimed(place))
    damage(Path(place.files.done))
    assert not place.is_done()
    assert (Status.FAILED if failures else Status.TODO) is survey(place).status
    attempt = claimed(place)
    assert publish(attempt, b"5")
    assert 5 == result(place)
    assert [] == [name for name in names(place) if name.startswith("rejected-")]
    elsewhere = tmp_path / "elsewhere"
    assert not elsewhere.exists() or "mine" == elsewhere.read_text()


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
        assert tries < 100, "an endless loop"
        original(source, target)

    assert Status.TODO is survey(place).status
    with instead("link", link), pytest.raises(FuruStoreError) as caught:
        claim(place)
    assert directory == caught.value.path


def test_directory_removed_during_a_claim_is_made_again(place: Artifact) -> None:
    """Somebody deletes the node at that moment: a claimer treats it as missing."""
    claimed(artifact(place.settings.store, "another"))
    with once_before("link", "try-1", lambda: shutil.rmtree(place.files.directory)):
        attempt = claimed(place)
    assert publish(attempt)


def test_node_removed_while_it_fails_has_nothing_to_record(place: Artifact) -> None:
    """No error of furu's own on top."""
    attempt = claimed(place)
    shutil.rmtree(place.files.directory)
    assert fail(attempt) is None
    assert Status.TODO is survey(place).status
    assert 1 == claimed(place).number


# ---- copies ----


def test_copied_store_is_as_good_as_the_original(tmp_path: Path, store: Path) -> None:
    """Its `done` files are read; its running attempts are dead, though their owner lives."""
    done, failed, running = (artifact(store, name) for name in ("done", "failed", "running"))
    attempt = claimed(done)
    Path(attempt.files_directory(), "model.bin").write_bytes(b"weights")
    publish(attempt, b"5")
    fail(claimed(failed))
    with OtherProcess() as owner:
        owner.claim(running)
        shutil.copytree(store, tmp_path / "copy")
        copied = [artifact(tmp_path / "copy", name) for name in ("done", "failed", "running")]
        expected = [Status.DONE, Status.FAILED, Status.TODO]
        assert expected == [survey(place).status for place in copied]
        assert 5 == result(copied[0])
        assert Path(copied[0].files.files(1), "model.bin").read_bytes() == b"weights"
        again = claimed(copied[2])
        assert 2 == again.number
        assert publish(again)
        assert Status.IN_PROGRESS is survey(running).status


# ---- durability ----


def test_process_durability_never_syncs(place: Artifact) -> None:
    """What survives kill -9 costs no fsync."""
    attempt = claimed(place)
    Path(attempt.files_directory(), "model.bin").write_bytes(b"weights")
    with system_calls() as calls:
        assert publish(attempt)
    assert "fsync" not in [name for name, _ in calls]


def test_power_durability_syncs_everything_before_the_link(store: Path) -> None:
    """Files, their directories, the document; then the link; then the names above it."""
    place = artifact(store, durability="power")
    attempt = claimed(place)
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
    temporary = place.files.temporary(1, attempt.owner.record.id)
    assert expected | {temporary} == set(before)
    assert calls.index(("write", temporary)) < calls.index(("fsync", temporary)) < linked
    after = [path for name, path in calls[linked:] if name == "fsync"]
    above = [place.files.directory, *map(str, Path(place.files.directory).parents)]
    assert above[: above.index(str(store)) + 1] == after


# ---- the log ----


def test_line_of_the_log_cannot_be_forged(place: Artifact) -> None:
    """A message with newlines stays one entry: what follows the first line is set off."""
    attempt = claimed(place)
    attempt.log("2030-01-01 INFO honest")
    attempt.log("text\n2030-01-01 ERROR forged\r\n2030-01-01 ERROR forged\r2030-01-01 ERROR forged")
    attempt.log("\ud800 is written somehow")
    publish(attempt)
    content = Path(place.files.files(1), "furu.log").read_bytes()
    lines = content.decode().splitlines()
    assert "2030-01-01 INFO honest" == lines[0]
    assert "text" == lines[1]
    assert "\\ud800 is written somehow" == lines[-1]
    assert [] == [line for line in lines[1:] if line.startswith("2030")]


def test_log_is_not_written_through_a_symbolic_link(place: Artifact, tmp_path: Path) -> None:
    """Not even one that lies in the node's own directory."""
    attempt = claimed(place)
    Path(attempt.files_directory(), "furu.log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        attempt.log("text")
    assert not (tmp_path / "elsewhere").exists()


def test_record_of_the_last_failure_can_be_read_back(place: Artifact) -> None:
    """A survey returns it whole."""
    fail(claimed(place), ValueError("bad split"))
    record = survey(place).record
    assert isinstance(record, EndedRecord)
    assert ("failed", "ValueError: bad split") == (record.outcome, record.error)


def test_dead_owners_of_many_nodes_are_removed_once(place: Artifact, other: OtherProcess) -> None:
    """The first taker removes the file; the others find it gone and go on."""
    store = place.settings.store
    places = [artifact(store, f"node{number}") for number in range(3)]
    for one in places:
        other.claim(one)
    other.die()
    attempts = [claimed(one) for one in places]
    assert [2, 2, 2] == [attempt.number for attempt in attempts]
    assert [attempts[0].owner.record.id] == owner_files(store)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("name", ["open", "read"])
def test_live_owner_is_not_taken_over_because_its_file_cannot_be_read(
    place: Artifact, other: OtherProcess, name: str, number: int
) -> None:
    """Out of descriptors, or a failing disk: an error or a wait, and no second owner."""
    other.claim(place)
    claimed(artifact(place.settings.store, "another"))
    opened: list[int] = []

    def refuse(original: Callable[..., Any], about: Any, *args: Any, **options: Any) -> Any:
        if about in opened or (name == "open" and str(about).endswith("try-1")):
            raise OSError(number, os.strerror(number))
        return original(about, *args, **options)

    def note(original: Callable[..., Any], path: Any, *args: Any, **options: Any) -> Any:
        descriptor = original(path, *args, **options)
        if str(path).endswith("try-1"):
            opened.append(descriptor)
        return descriptor

    refused = pytest.raises((FuruStoreError, FuruInProgressError))
    with instead("open", note), instead(name, refuse), refused:
        claim(place)
    assert ["try-1"] == names(place)


def test_owner_is_written_whole_however_little_a_write_takes(place: Artifact, other: OtherProcess) -> None:
    """A torn owner would pass for nobody, and its nodes would be computed twice."""
    with instead("write", lambda original, descriptor, data: original(descriptor, bytes(data)[:9])):
        claimed(place)
    assert other.claim_or_none(place) is None
