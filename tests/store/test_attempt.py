"""Attempts of one process: claiming, publishing, and system calls that fail or are repeated."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from furu import Furu, FuruStoreError, Status
from furu.node.base import artifact_of
from furu.store.artifact import Artifact, survey
from furu.store.attempt import Attempt, running_attempt
from furu.store.claim import claim
from tests.store.processes import (
    artifact,
    begin,
    compute,
    current_owner,
    done_document,
    fail,
    instead,
    names,
    publish,
    put,
    result,
)


def test_claim_of_a_published_node_is_none_and_leaves_no_trace() -> None:
    """The claim leaves no name on disk, and no attempt in memory."""
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
    """The caller gets the published value, like all other callers."""
    node = Slow(name="x")
    assert "theirs" == node.get()
    assert "theirs" == node.get()


def test_retransmitted_link_of_done_counts_as_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS may repeat a link request and report EEXIST. The inode shows that the link is our own."""
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


def test_retransmitted_link_of_a_claim_counts_as_a_claim(place: Artifact) -> None:
    """If the claim failed, its own link would block the node until this process exits."""
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


def test_second_publish_is_refused_and_changes_nothing() -> None:
    place = artifact()
    first = begin(place)
    assert publish(first, "first")
    late = Attempt(place)
    os.makedirs(place.files.directory)
    late.held(current_owner(place.settings.store), 5, "0f")
    os.link(current_owner(place.settings.store).path, place.files.attempt(5))
    assert not publish(late, "second")
    assert "first" == result(place)


@pytest.mark.parametrize("name", ["open", "write", "link"])
def test_publish_that_fails_publishes_nothing_and_can_be_recorded(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk is full, the attempt still holds the node and can record the failure."""
    place = artifact()
    attempt = begin(place)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patches:
        patches.setattr(os, name, full)
        with pytest.raises(FuruStoreError, match=r"cannot publish .*: No space left") as caught:
            publish(attempt)
        assert Path(place.files.done) == caught.value.path
        assert attempt is running_attempt(place)
    assert fail(attempt) is None
    assert (Status.FAILED, ["try-1"]) == (survey(place).status, names(place))


@pytest.mark.parametrize("name", ["listdir", "open", "unlink"])
def test_publish_that_cannot_clean_up_counts_as_published(place: Artifact, name: str) -> None:
    """A visible artifact must not be reported as a failure."""
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
