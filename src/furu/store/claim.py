"""Claiming a node: of all attempts that want it, one gets to hold it.

A claim is an exclusive link to a name that is not freed until `done` exists. So one claimer wins, and no
lock is ever broken. A claim is valid because it cannot overlook another one:

    try-1, blind    The name is free only if nothing was there yet, or if `done` exists. So the claimer
                    looks at `done` after linking. A claim of a later number first makes sure that `try-1`
                    is taken, and no record of a later number is kept without it.
    try-<n>, n > 1  The number comes from a listing that may be out of date. So the claimer lists again
                    after linking, gives way to an attempt that is alive or has a higher number, and looks
                    at `done` once more.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from furu.errors import FuruInProgressError, FuruStoreError
from furu.settings import Settings
from furu.store.artifact import Artifact, Done, Status, Survey, identify, survey
from furu.store.attempt import Attempt, State
from furu.store.layout import TRY
from furu.store.leftovers import remove_old_records
from furu.store.local import Process, this_process
from furu.store.owner import Owner, remove_dead
from furu.store.record import AttemptRecord, OwnerRecord, store_failed, write_new
from furu.store.trust import refuse_shared

logger = logging.getLogger("furu.store")

# A directory that changes this often during a claim is not a node's directory.
_MAX_TRIES = 100
# Claimers that give way to each other try again after increasing pauses.
_TRIES_AT_ONCE = 5
_PAUSE_SEC = 0.001
_MAX_PAUSE_SEC = 0.1

Rejects = Callable[[], bool]


class _GiveWay(Exception):
    """Another attempt invalidates this claim."""


def open_store(settings: Settings) -> None:
    """Check that nodes can be computed in a store. Raises `FuruStoreError` if not."""
    process = this_process()
    process.give_back(_take_owner(process, settings, settings.store))


def when_released(artifact: Artifact, tell: Callable[[], object]) -> Callable[[], None] | None:
    """See `Process.when_released`."""
    return this_process().when_released(artifact.files.done, tell)


def claim(artifact: Artifact, rejects: Rejects | None = None) -> Attempt | None:
    """Return a new attempt that holds a node; None if the node is DONE. Raises as `take` does."""
    attempt = Attempt(artifact)
    return attempt if take(attempt, rejects) else None


def take(attempt: Attempt, rejects: Rejects | None = None, *, set_aside: bool = True) -> bool:
    """Let an attempt hold its node. Returns False if the node is DONE, or the attempt has ended already.

    `rejects` returns whether an existing `done` counts as missing; it is then set aside, unless `set_aside`
    is False. Raises `FuruInProgressError` if a live owner holds the node, `FuruStoreError` if the store
    cannot be used. After any exception the attempt does not hold the node.
    """
    with attempt.steps:
        if attempt.state is not State.NEW:
            return False
        other = attempt.process.enter(attempt)
        if other is not None:
            attempt.state = State.OVER
            record = other.owner.record if other.owner is not None else None
            raise in_progress(attempt.artifact, other.number, record)
        held = False
        try:
            held = _take(attempt, rejects, set_aside)
        except OSError as error:
            raise store_failed("claim", os.fspath(attempt.state_path), error) from error
        finally:
            if not held:
                attempt.close()
        return held


def _take(attempt: Attempt, rejects: Rejects | None, set_aside: bool) -> bool:
    artifact, files = attempt.artifact, attempt.artifact.files
    number = 1  # without a listing, which is only needed if this name is taken
    place = artifact.settings.store
    if attempt.process.places:
        place = attempt.process.places.get(files.class_directory, place)
    attempt.owner = _take_owner(attempt.process, artifact.settings, place)
    for tries in range(_MAX_TRIES):
        if tries >= _TRIES_AT_ONCE:
            time.sleep(min(_PAUSE_SEC * 2 ** (tries - _TRIES_AT_ONCE), _MAX_PAUSE_SEC))
        attempt.number = number
        try:
            _link_attempt(attempt.owner, files.attempt(number))
        except FileExistsError:
            number = _number_after_others(artifact, rejects)
            if number == 0:
                return False
            continue
        except OSError as error:
            place = _prepare_again(attempt, place, error)
            continue
        done, judged = artifact.look_at_done()
        if done is Done.ABSENT and number == 1:
            _hold(attempt)
            return True
        try:
            if done is Done.PUBLISHED and (rejects is None or not rejects()):
                return False
            if done is not Done.ABSENT and number < (free := _after_rejected(artifact, besides=number)):
                _unlink(attempt)
                number = free
                continue
            _make_good(attempt, judged, set_aside)
        except _GiveWay:
            _unlink(attempt)
            number = max((n for _, n in artifact.numbers()), default=0) + 1
            continue
        _hold(attempt)
        return True
    raise FuruStoreError(
        f"cannot claim {files.attempt(number)}: its directory is not one, or it keeps changing. Remove it.",
        path=Path(files.attempt(number)),
    )


def _number_after_others(artifact: Artifact, rejects: Rejects | None) -> int:
    """Return the number to try next after one that was taken; 0 if the node is DONE."""
    seen = survey(artifact)
    if seen.status is Status.DONE:
        return 0 if rejects is None or not rejects() else _after_rejected(artifact)
    if seen.status is Status.IN_PROGRESS:
        raise in_progress(artifact, seen.attempt, seen.record)
    _remove_owner_of_dead(artifact, seen)
    return seen.highest + 1


def _prepare_again(attempt: Attempt, place: Path, error: OSError) -> Path:
    """Remove the cause of a link that failed, and return the place of the attempt's owner. Raises `error`
    if that is not possible."""
    files, owner = attempt.artifact.files, attempt.owner
    assert owner is not None  # noqa: S101  # linking it has failed
    if isinstance(error, FileNotFoundError):
        # There is no directory yet, or this process's owner file was removed.
        directory = os.path.dirname(files.attempt(attempt.number))
        if os.path.islink(directory) and not os.path.exists(directory):
            raise error
        os.makedirs(directory, exist_ok=True)
        attempt.process.directory_syncs.forget(directory)
        if not os.path.exists(owner.path):
            _replace_owner(attempt, owner, place)
    elif error.errno == errno.EMLINK:  # ext4 allows 65,000 links to a file
        _replace_owner(attempt, owner, place)
    elif error.errno == errno.EXDEV and place == attempt.artifact.settings.store:
        # The class's directory is a symbolic link to another filesystem, which needs an owner of its own.
        place = attempt.process.places[files.class_directory] = Path(files.class_directory)
        _replace_owner(attempt, owner, place)
    else:
        raise error
    return place


def _make_good(attempt: Attempt, judged: tuple[int, int, int] | None, set_aside: bool) -> None:
    """Make a claim whose number comes from a listing valid against all others. Raises if that fails."""
    if attempt.number > 1:
        _take_first_name(attempt.artifact)
    _give_way_to_others(attempt)
    if set_aside:
        _set_aside(attempt, judged)
    remove_old_records(attempt.artifact, attempt.number)


def _take_owner(process: Process, settings: Settings, place: Path) -> Owner:
    refuse_shared(settings, process.trusted)  # before anything is written there
    owner = process.take_owner(place, settings.lease_sec)
    try:
        refuse_shared(settings, process.trusted)  # again: the store may have been made just now
    except BaseException:
        process.give_back(owner)
        raise
    return owner


def _replace_owner(attempt: Attempt, owner: Owner, place: Path) -> None:
    """Give an attempt another owner, because it could not be linked to this one."""
    process = attempt.process
    if place == owner.place:
        process.retire(owner)
    attempt.owner = None
    process.give_back(owner)
    attempt.owner = process.take_owner(place, attempt.artifact.settings.lease_sec)


def _hold(attempt: Attempt) -> None:
    assert attempt.owner is not None  # noqa: S101  # its name is a link to the owner's file
    attempt.held(attempt.owner, attempt.number, f"{attempt.owner.record.id[:8]}{attempt.sequence:x}")


def _unlink(attempt: Attempt) -> None:
    """Remove the link of an invalid claim. If it stayed, the node would seem to be in progress."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(attempt.artifact.files.attempt(attempt.number))


def _link_attempt(owner: Owner, path: str) -> None:
    """Link this process's owner file to an attempt's name. Raises `FileExistsError` if the name is
    taken."""
    try:
        os.link(owner.path, path)
    except FileExistsError:
        # A network filesystem may repeat a link request that succeeded, and report the name as taken. The
        # link is ours then: this process has no other claim on the node, and an owner with a link that
        # could not be removed gets no new claims.
        if not owner.is_linked_at(os.lstat(path)):
            raise


def _remove_owner_of_dead(artifact: Artifact, seen: Survey) -> None:
    if seen.found is not None and isinstance(seen.record, OwnerRecord):
        for place in (artifact.settings.store, Path(artifact.files.class_directory)):
            remove_dead(place, seen.record.id, seen.found.info)


def _after_rejected(artifact: Artifact, besides: int = 0) -> int:
    """Return the first attempt number above those of the rejected `done` and of all names beside it."""
    numbers = [n for kind, n in artifact.numbers() if (kind, n) != (TRY, besides)]
    # A damaged `done` does not show its number; then only the names count.
    with contextlib.suppress(FuruStoreError):
        if (record := artifact.read()) is not None:
            numbers.append(record.attempt)
    return max(numbers, default=0) + 1


def _take_first_name(artifact: Artifact) -> None:
    """Take `try-1`, so that no blind claim succeeds beside a later attempt. An empty file is not an
    attempt. It stays until the node is published.
    """
    with contextlib.suppress(FileExistsError):
        write_new(artifact.files.attempt(1), b"")


def _give_way_to_others(attempt: Attempt) -> None:
    """Raise if another claimer is at the node, or has been since this claim's number was chosen.

    A later claimer sees this attempt alive, and this attempt sees earlier ones, so at most one of two goes
    on. (If both see each other, both give way and try again.)
    """
    artifact = attempt.artifact
    tries = [number for kind, number in artifact.numbers() if kind == TRY]
    if 1 not in tries:
        raise _GiveWay  # a blind claim took the name and freed it again
    for number in tries:
        if number == attempt.number:
            continue
        found = artifact.read_attempt(number)
        if found is None:
            raise _GiveWay
        if found.alive:
            raise in_progress(artifact, number, found.record)
    if max(tries, default=0) > attempt.number:
        raise _GiveWay


def _set_aside(attempt: Attempt, judged: tuple[int, int, int] | None) -> None:
    """Rename the `done` that was judged, if there was one. No other claimer is at the node, so it does not
    change any more; but an earlier one may have published since it was judged.
    """
    files = attempt.artifact.files
    if attempt.artifact.look_at_done()[1] != judged:
        raise _GiveWay
    if judged is None:
        return
    aside = files.rejected(attempt.number)
    if attempt.number == 1:
        with contextlib.suppress(FileExistsError):
            os.mkdir(files.directory)
    # Between these calls another machine may take this attempt for dead, and take the node over.
    try:
        os.rename(files.done, aside)
        if identify(os.lstat(aside)) != judged:  # published by the other machine: put it back
            with contextlib.suppress(FileExistsError):
                os.link(aside, files.done)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(aside)
            raise _GiveWay
    except FileNotFoundError:  # the other machine was faster
        raise _GiveWay from None
    attempt.replaces = True


def in_progress(artifact: Artifact, number: int, record: AttemptRecord | None) -> FuruInProgressError:
    """Return the error for a node that another owner computes."""
    owner = f"pid {record.pid} on {record.host}" if record is not None else "another process"
    return FuruInProgressError(
        f"{artifact} is being computed by {owner}. State: {artifact.files.attempt(number)}",
        state_path=Path(artifact.files.attempt(number)),
        attempt=number,
        owner=owner,
    )
