"""Claims: exactly one of several claimers wins."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from furu import FuruInProgressError, FuruStoreError, Status
from furu.store.artifact import Artifact, survey
from furu.store.attempt import Attempt
from furu.store.claim import claim
from tests.store.processes import (
    HOLD,
    Other,
    OtherProcess,
    artifact,
    begin,
    fail,
    instead,
    leave_attempt,
    names,
    once_before,
    owners,
    publish,
    result,
)


def test_node_with_a_live_owner_is_in_progress(place: Artifact, other: OtherProcess) -> None:
    """The owner's process and other processes read the same status."""
    other.begin(place)
    assert Status.IN_PROGRESS is survey(place).status
    assert Status.IN_PROGRESS is other.status(place)


def test_published_node_is_done_whatever_is_beside_it(place: Artifact, other: OtherProcess) -> None:
    """The record of an earlier failure, or a live owner that came later, does not change the status."""
    fail(begin(place))
    publish(begin(place))
    os.makedirs(place.files.directory)
    os.link(other.owner_path(), place.files.attempt(7))
    assert Status.DONE is survey(place).status


def test_exactly_one_of_several_threads_wins_a_claim() -> None:
    """The other threads get an error at once."""
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


def test_claim_of_a_node_of_this_process_names_this_process() -> None:
    place = artifact()
    begin(place)
    with pytest.raises(FuruInProgressError) as caught:
        claim(place)
    assert f"pid {os.getpid()}" in str(caught.value)
    assert Path(place.files.attempt(1)) == caught.value.state_path


def test_claim_of_a_node_of_another_process_names_that_process() -> None:
    """The error message names the pid and the host."""
    place = artifact()
    with Other(HOLD) as other:
        assert "claimed" == other.hear()
        with pytest.raises(FuruInProgressError, match=f"pid {other.process.pid} on ") as caught:
            claim(place)
    assert (1, Path(place.files.attempt(1))) == (caught.value.attempt, caught.value.state_path)


def test_claim_of_another_process_is_respected_and_its_result_is_loaded(
    place: Artifact, other: OtherProcess
) -> None:
    attempt = other.begin(place)
    with pytest.raises(FuruInProgressError):
        claim(place)
    assert other.publish(attempt, 7)
    assert claim(place) is None
    assert 7 == result(place)


def test_claim_looks_at_done_again_after_linking(place: Artifact, other: OtherProcess) -> None:
    """A node that is published right before the link is not computed again."""
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
def test_exactly_one_of_several_processes_wins_each_node(dead: bool) -> None:
    """Four processes claim forty nodes at the same time."""
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
    """The first process that takes a node over removes the owner's file. Later claims find the file
    gone."""
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
def test_live_owner_whose_file_cannot_be_read_is_not_taken_over(
    place: Artifact, other: OtherProcess, name: str, number: int
) -> None:
    """If descriptors run out or the disk fails, the claim raises an error, and there is no second owner."""
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


def test_owner_is_written_whole_by_short_writes(place: Artifact, other: OtherProcess) -> None:
    """An owner file that is written in part would look dead, and its nodes would be computed twice."""
    with instead("write", lambda original, descriptor, data: original(descriptor, bytes(data)[:9])):
        begin(place)
    assert other.begin_or_none(place) is None
