"""Replacing artifacts that `_validate` rejected."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable

import pytest

from furu import FuruInProgressError, Status
from furu.store.artifact import Artifact, survey
from furu.store.attempt import Attempt
from furu.store.claim import claim
from tests.store.processes import (
    Other,
    OtherProcess,
    artifact,
    begin,
    begin_or_none,
    compute,
    fail,
    instead,
    names,
    once_before,
    publish,
    rejecting,
    result,
)


def test_no_other_process_can_claim_while_an_artifact_is_replaced(
    place: Artifact, other: OtherProcess, third: OtherProcess
) -> None:
    """This holds although `done` is renamed. If the replacing process is killed, one process takes over."""
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
    """The live attempt may still publish."""
    compute(place, "old")
    os.makedirs(place.files.directory)
    os.link(other.owner_path(), place.files.attempt(5))
    with pytest.raises(FuruInProgressError):
        claim(place, rejecting(place))
    assert ["done", "try-1", "try-5"] == names(place)
    os.unlink(place.files.attempt(5))
    assert publish(begin(place, rejecting(place)), "new")
    assert "new" == result(place)


def test_failed_replacement_does_not_block_a_later_one(place: Artifact, other: OtherProcess) -> None:
    """The process whose replacement failed is still running."""
    publish(begin(place), 1)
    other.fail(other.begin(place, rejecting(place, 1)))
    assert Status.FAILED is survey(place).status
    attempt = begin(place, rejecting(place, 1))
    assert publish(attempt, 2)
    again = begin(place, rejecting(place, 2))
    assert publish(again, 3)
    assert 3 == result(place)


def test_blind_claim_that_is_released_does_not_bypass_a_replacement(
    place: Artifact, other: OtherProcess, third: OtherProcess
) -> None:
    """Another claimer takes `try-1` right before the replacer, and releases the name right after."""
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
    """A claimer has found the owner of try-1 dead. Before it links try-2, another process publishes as
    try-2, and a third process begins to replace the published artifact."""
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


def test_claim_beside_an_old_failure_is_seen_by_all(place: Artifact, other: OtherProcess) -> None:
    """`done` was removed by hand, and the record of a failure remains. One process computes the node."""
    begin(place).end("cancelled", KeyboardInterrupt(), {})
    fail(begin(place))
    publish(begin(place))
    assert ["done", "try-1", "try-2"] == names(place)
    os.unlink(place.files.done)
    attempt = begin(place)
    assert Status.IN_PROGRESS is other.status(place)
    assert other.begin_or_none(place) is None
    assert publish(attempt)


def test_overtaken_replacer_does_not_compute_beside_another() -> None:
    """The second replacer links its number after the first has checked other attempts and moved `done`."""
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


def test_new_result_is_not_renamed_in_place_of_the_rejected_one() -> None:
    """Another process replaces the rejected result before this process renames it."""
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
            if len(verdicts) == 2:  # this call holds the claim; the first call did not
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


def test_exactly_one_of_several_processes_replaces_each_result() -> None:
    """Three processes replace the results of thirty nodes at the same time."""
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
