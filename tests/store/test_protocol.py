"""Several processes at one node: one computes it, one publishes it, whatever the order of their steps."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from furu import FuruInProgressError, FuruStoreError, Status
from furu.store.artifact import Artifact, survey
from furu.store.attempt import Attempt
from furu.store.claim import claim
from tests.store.processes import (
    ANOTHER_MACHINE,
    HOLD,
    LEASE_SEC,
    Other,
    OtherProcess,
    artifact,
    begin,
    begin_or_none,
    compute,
    fail,
    files,
    instead,
    lease_clock,
    leave_attempt,
    names,
    once_before,
    owners,
    publish,
    put,
    rejecting,
    result,
)


@pytest.fixture
def place() -> Artifact:
    """A node that nobody has computed."""
    return artifact()


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


# ---- one wins ----


def test_node_with_a_live_owner_is_in_progress(place: Artifact, other: OtherProcess) -> None:
    """Seen from its own process and from others."""
    other.begin(place)
    assert Status.IN_PROGRESS is survey(place).status
    assert Status.IN_PROGRESS is other.status(place)


def test_published_node_is_done_whatever_lies_beside_it(place: Artifact, other: OtherProcess) -> None:
    """A failure before, a live owner that came late: `done` decides."""
    fail(begin(place))
    publish(begin(place))
    os.link(other.owner_path(), place.files.attempt(7))
    assert Status.DONE is survey(place).status


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


def test_claim_of_another_process_is_respected_and_its_result_taken(
    place: Artifact, other: OtherProcess
) -> None:
    """In progress first, then there is no need to claim."""
    attempt = other.begin(place)
    with pytest.raises(FuruInProgressError):
        claim(place)
    assert other.publish(attempt, 7)
    assert claim(place) is None
    assert 7 == result(place)


def test_claim_looks_at_done_again_after_linking(place: Artifact, other: OtherProcess) -> None:
    """Published between the first look and the link: nothing is computed again."""
    begin(artifact("another"))

    def publish_first() -> None:
        other.publish(other.begin(place))

    with once_before("link", "try-1", publish_first):
        assert claim(place) is None
    assert ["done"] == names(place)


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


def test_dead_owners_of_many_nodes_are_removed_once(place: Artifact, other: OtherProcess) -> None:
    """The first taker removes the file; the others find it gone and go on."""
    store = place.settings.store
    places = [artifact(f"node{number}") for number in range(3)]
    for one in places:
        other.begin(one)
    other.die()
    attempts = [begin(one) for one in places]
    assert [2, 2, 2] == [attempt.number for attempt in attempts]
    assert [attempts[0].owner.record.id] == owners(store)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("name", ["open", "read"])
def test_live_owner_is_not_taken_over_because_its_file_cannot_be_read(
    place: Artifact, other: OtherProcess, name: str, number: int
) -> None:
    """Out of descriptors, or a failing disk: an error or a wait, and no second owner."""
    other.begin(place)
    begin(artifact("another"))
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
        begin(place)
    assert other.begin_or_none(place) is None


# ---- an owner that lost its claim ----


# To this process, which lives and beats as ever, one of another machine that sees it stand still.
TAKER = """
clock = Clock()
become("another boot", clock)
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


def test_owner_that_lost_its_claim_leaves_no_files_behind() -> None:
    """It drops its result: nobody else could tell later that its files are nobody's."""
    place = artifact()
    mine = begin(place)
    with Other(TAKER) as other:
        assert ["IN_PROGRESS", "2"] == [other.hear(), other.hear()]
        assert "True" == other.ask("publish")
        put(f"{mine.files_directory()}/large", "mine")
        assert not publish(mine, "mine")
    assert ["a2", "done"] == names(place)
    assert "theirs" == Path(files(place), "file").read_text() == result(place)


def taken_over(place: Artifact) -> Attempt:
    """Claim a node from an owner of another machine whose lease passes without a sign of life."""
    with lease_clock() as clock:
        survey(place)
        clock.now += LEASE_SEC
        return begin(place)


def test_owner_that_lost_its_claim_does_not_publish(place: Artifact, stranger: OtherProcess) -> None:
    """Paused beyond its lease, it comes back: the winner's result stands, and is what it gets."""
    paused = stranger.begin(place)
    winner = taken_over(place)
    assert publish(winner, 2)
    assert not stranger.publish(paused, 1)
    assert 2 == result(place)
    assert not [name for name in names(place) if name.startswith("tmp-")]
    with stranger.running():
        assert claim(place) is None


def test_owner_that_lost_its_claim_may_still_be_first(place: Artifact, stranger: OtherProcess) -> None:
    """Then the one that took over drops its own result, and harms nothing of the published one."""
    paused = stranger.begin(place)
    with stranger.running():
        Path(paused.files_directory(), "model.bin").write_bytes(b"weights")
    taker = taken_over(place)
    assert stranger.publish(paused, 1)
    assert not publish(taker, 2)
    assert 1 == result(place)
    assert Path(files(place), "model.bin").read_bytes() == b"weights"


def replace_as_taker(place: Artifact, taker: OtherProcess) -> None:
    """Take a node over from an owner of another machine whose lease has passed, and publish."""
    with taker.running(), lease_clock() as clock:
        survey(place)
        assert begin_or_none(place, rejecting(place)) is None  # a `done` hid the owner: seen now
        clock.now += LEASE_SEC
        assert publish(begin(place, rejecting(place)), "new")


def test_owner_that_lost_its_claim_while_it_published_loses_without_an_error(
    place: Artifact, stranger: OtherProcess, other: OtherProcess
) -> None:
    """Between writing its document and linking it, it is taken for dead and tidied away."""
    paused = stranger.begin(place)
    with once_before("link", "/done", lambda: replace_as_taker(place, other)):
        assert not stranger.publish(paused, "late")
    assert "new" == result(place)
    assert {"done", "try-1"} >= set(names(place))


@pytest.mark.parametrize(("name", "ending"), [("rename", "/done"), ("lstat", "/rejected-2")])
def test_replacer_that_is_taken_for_dead_leaves_the_takers_result(
    place: Artifact, stranger: OtherProcess, other: OtherProcess, name: str, ending: str
) -> None:
    """It is paused right before it sets the rejected artifact aside, or right after: it never takes away
    the good one for good."""
    compute(place, "old")
    with once_before(name, ending, lambda: replace_as_taker(place, other)):
        assert stranger.begin_or_none(place, rejecting(place)) is None
    assert "new" == result(place)
    assert [] == [one for one in names(place) if one.startswith("rejected-")]


def test_failure_of_an_owner_that_lost_its_claim_changes_nothing(
    place: Artifact, stranger: OtherProcess
) -> None:
    """While the new owner computes, and after it published."""
    late, later = stranger.begin(place), stranger.begin(artifact("another"))
    with lease_clock() as clock:
        survey(place)
        clock.now += LEASE_SEC
        winner = begin(place)
        survey(later.artifact)
        clock.now += LEASE_SEC
        other_winner = begin(later.artifact)
    stranger.fail(late)
    assert Status.IN_PROGRESS is survey(place).status
    assert publish(winner)
    assert publish(other_winner)
    stranger.fail(later)
    assert Status.DONE is survey(place).status
    assert Status.DONE is survey(later.artifact).status


def test_publish_spares_what_a_live_owner_uses(place: Artifact, stranger: OtherProcess) -> None:
    """An owner that was paused beyond its lease, and is back, still writes its files."""
    paused = stranger.begin(place)
    with stranger.running():
        Path(paused.files_directory(), "model.bin").write_bytes(b"weights")
    with lease_clock() as clock:
        survey(place)
        clock.now += LEASE_SEC
        winner = begin(place)
        stranger.beat()
        assert publish(winner)
    assert Path(files(place, 1), "model.bin").exists()
    assert os.path.exists(paused.state_path)


# ---- replacing what `_validate` rejected ----


def test_nobody_else_can_claim_while_a_rejected_artifact_is_replaced(
    place: Artifact, other: OtherProcess, third: OtherProcess
) -> None:
    """`done` is aside, and no blind claim gets through; after a kill, one process takes over."""
    publish(begin(place), 1)
    attempt = other.begin(place, rejecting(place, 1))
    assert 2 == attempt.number
    for _ in range(2):
        assert begin_or_none(place, rejecting(place, 1)) is None
        assert begin_or_none(place) is None
        assert third.begin_or_none(place) is None
    other.die()
    assert 3 == begin(place, rejecting(place, 1)).number
    assert third.begin_or_none(place) is None


def test_rejected_done_waits_for_an_attempt_that_is_alive(place: Artifact, other: OtherProcess) -> None:
    """Whoever is at another number may publish yet: no replacement until that attempt ended."""
    compute(place, "old")
    os.link(other.owner_path(), place.files.attempt(5))
    with pytest.raises(FuruInProgressError):
        claim(place, rejecting(place))
    assert ["done", "try-1", "try-5"] == names(place)
    os.unlink(place.files.attempt(5))
    assert publish(begin(place, rejecting(place)), "new")
    assert "new" == result(place)


def test_failed_replacement_does_not_stand_in_the_way_of_a_later_one(
    place: Artifact, other: OtherProcess
) -> None:
    """The process that failed lives on, and the node may be replaced again."""
    publish(begin(place), 1)
    other.fail(other.begin(place, rejecting(place, 1)))
    assert Status.FAILED is survey(place).status
    attempt = begin(place, rejecting(place, 1))
    assert publish(attempt, 2)
    again = begin(place, rejecting(place, 2))
    assert publish(again, 3)
    assert 3 == result(place)


def test_blind_claim_that_comes_and_goes_opens_no_way_round_a_replacement(
    place: Artifact, other: OtherProcess, third: OtherProcess
) -> None:
    """A claimer holds `try-1` when the replacer wants it, and gives it back before it looks."""
    publish(begin(place), 1)
    third_owner, first = third.owner_path(), place.files.attempt(1)
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
        held = begin_or_none(place, rejecting(place, 1))
    assert 0 < tries
    late = other.begin_or_none(place, rejecting(place, 1))
    assert 1 >= sum(one is not None for one in (held, late))


def test_claim_delayed_past_a_publish_does_not_join_a_replacement(
    place: Artifact, other: OtherProcess, third: OtherProcess
) -> None:
    """A claimer that found try-1 dead links try-2 only after somebody else published as try-2, and
    a third one has begun to replace that."""
    dead = OtherProcess()
    dead.begin(place)
    dead.die()
    replacing: list[Attempt] = []

    def be_overtaken() -> None:
        attempt = other.begin(place)
        assert 2 == attempt.number
        other.publish(attempt, 1)
        replacing.append(third.begin(place, rejecting(place, 1)))

    with once_before("link", "try-2", be_overtaken):
        held = begin_or_none(place, rejecting(place, 1))
    assert 1 == len(replacing)
    assert held is None


def test_claim_beside_an_old_failure_is_seen_by_everybody(place: Artifact, other: OtherProcess) -> None:
    """Somebody removed `done` by hand, and the record of a failure is still there: one computes."""
    begin(place).end("cancelled", KeyboardInterrupt(), {})
    fail(begin(place))
    publish(begin(place))
    assert ["done", "try-1", "try-2"] == names(place)
    os.unlink(place.files.done)
    attempt = begin(place)
    assert Status.IN_PROGRESS is other.status(place)
    assert other.begin_or_none(place) is None
    assert publish(attempt)


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
for number in range(30):
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
    """Three processes, thirty nodes, none of them waiting for another longer than it has to."""
    places = [artifact(str(number)) for number in range(30)]
    for place in places:
        compute(place, "old")
    with Other(REPLACE) as one, Other(REPLACE) as two, Other(REPLACE) as three:
        everyone = [one, two, three]
        assert ["ready"] * 3 == [other.hear() for other in everyone]
        for other in everyone:
            other.tell()
        computed = sorted(number for other in everyone for number in json.loads(other.hear()))
    assert list(range(30)) == computed
    assert ["new"] * 30 == [result(place) for place in places]


# ---- copied, and killed in the middle ----


def test_copied_store_works(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hard links became files: what is done is done, what failed failed, what ran is dead."""
    compute(artifact("done"), "value")
    fail(begin(artifact("failed")))
    begin(artifact("running"))
    with OtherProcess() as other:
        other.begin(artifact("elsewhere"))
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
