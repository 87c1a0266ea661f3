"""Claims nodes: of all attempts that try to claim a node, one succeeds.

A claim is a hard link named `try-<n>`. Creating a link fails if the name is taken, and the name is not
freed until `done` exists. So one claimer wins, and no lock ever has to be broken. After linking, a claimer
checks that it has not overlooked another claim:

    try-1, blind    The claimer links `try-1` without listing the directory. The name is free in two
                    cases: the node has no other attempt, or `done` exists. So the claimer checks
                    `done` after linking. For this check to suffice, a claim of a later number also
                    takes `try-1`, and no record of a later attempt is kept without `try-1`.
    try-<n>, n > 1  The number comes from a listing that may be out of date. So the claimer lists again
                    after linking, gives way to an attempt that is alive or has a higher number, and checks
                    `done` once more.
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
from furu.store.leftovers import remove_checkpoints, remove_old_records
from furu.store.local import Process, this_process
from furu.store.owner import Owner, remove_dead
from furu.store.record import AttemptRecord, OwnerRecord, store_failed, write_new
from furu.store.trust import refuse_shared

logger = logging.getLogger("furu.store")

# A claim gives up after this many tries: something other than furu keeps changing the directory.
_MAX_TRIES = 100
# After the first few tries, claimers that give way to each other pause before each try, longer each time.
_TRIES_AT_ONCE = 5
_PAUSE_SEC = 0.001
_MAX_PAUSE_SEC = 0.1

Rejects = Callable[[], bool]


class _GiveWay(Exception):
    """Another attempt invalidates this claim."""


def open_store(settings: Settings) -> None:
    """Raise `FuruStoreError` if nodes cannot be computed in a store."""
    process = this_process()
    process.give_back(_take_owner(process, settings, settings.store))


def when_released(artifact: Artifact, tell: Callable[[], object]) -> Callable[[], None] | None:
    """Call `tell` when this process releases a node. See `Process.when_released`."""
    return this_process().when_released(artifact.files.done, tell)


def claim(artifact: Artifact, rejects: Rejects | None = None) -> Attempt | None:
    """Claim a node and return its new attempt; None if the node is DONE. Raises what `take` raises."""
    attempt = Attempt(artifact)
    return attempt if take(attempt, rejects) else None


def take(attempt: Attempt, rejects: Rejects | None = None, *, set_aside: bool = True) -> bool:
    """Claim the node for an attempt. Returns False if the node is DONE, or if the attempt is not NEW.

    If `done` exists, `rejects` returns whether to treat `done` as missing. A rejected or damaged `done` is
    renamed, unless `set_aside` is False. If the attempt has a `replaced`, `done` stays until the attempt
    publishes.

    Raises `FuruInProgressError` if a live owner holds the node, and `FuruStoreError` if the store cannot be
    used. After any exception the attempt does not hold the node.
    """
    with attempt.steps:
        if attempt.state is not State.NEW:
            return False
        held = False
        try:
            other = attempt.process.enter(attempt)
            if other is not None:
                record = other.owner.record if other.owner is not None else None
                raise in_progress(attempt.artifact, other.number, record)
            held = _take(attempt, rejects, set_aside)
        except OSError as error:
            raise store_failed("claim", os.fspath(attempt.state_path), error) from error
        finally:
            if not held:
                attempt.close()
        return held


def _take(attempt: Attempt, rejects: Rejects | None, set_aside: bool) -> bool:
    artifact, files = attempt.artifact, attempt.artifact.files
    number = 1  # a listing is not needed unless this name is taken
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
    """Return the next number to try when an attempt number is taken; 0 if the node is DONE."""
    seen = survey(artifact)
    if seen.status is Status.DONE:
        return 0 if rejects is None or not rejects() else _after_rejected(artifact)
    if seen.status is Status.IN_PROGRESS:
        raise in_progress(artifact, seen.attempt, seen.record)
    _remove_owner_of_dead(artifact, seen)
    return seen.highest + 1


def _prepare_again(attempt: Attempt, place: Path, error: OSError) -> Path:
    """Repair what made a link fail, and return the place of the attempt's owner. Raises `error` if that is
    not possible."""
    files, owner = attempt.artifact.files, attempt.owner
    assert owner is not None  # noqa: S101  # it was set before the link that failed
    if isinstance(error, FileNotFoundError):
        # Either the directory does not exist yet, or this process's owner file was removed.
        directory = os.path.dirname(files.attempt(attempt.number))
        if os.path.islink(directory) and not os.path.exists(directory):
            raise error
        os.makedirs(directory, exist_ok=True)
        attempt.process.directory_syncs.forget(directory)
        if not os.path.exists(owner.path):
            _replace_owner(attempt, owner, place)
    elif error.errno == errno.EMLINK:  # too many links: ext4 allows 65,000 to a file
        _replace_owner(attempt, owner, place)
    elif error.errno == errno.EXDEV and place == attempt.artifact.settings.store:
        # The class's directory is a symbolic link to another filesystem. Hard links cannot cross
        # filesystems, so this process needs a second owner in that directory.
        place = attempt.process.places[files.class_directory] = Path(files.class_directory)
        _replace_owner(attempt, owner, place)
    else:
        raise error
    return place


def _make_good(attempt: Attempt, judged: tuple[int, int, int] | None, set_aside: bool) -> None:
    """Complete a claim after linking: exclude other claims, and set a rejected or damaged `done` aside.
    Raises `_GiveWay` or `FuruInProgressError` if another attempt takes precedence."""
    if attempt.number > 1:
        _take_first_name(attempt.artifact)
    _give_way_to_others(attempt)
    if attempt.replaced is not None:  # `publish` replaces it
        if attempt.artifact.look_at_done()[1] != judged:
            raise _GiveWay
    elif set_aside:
        _set_aside(attempt, judged)
    remove_old_records(attempt.artifact, attempt.number)


def _take_owner(process: Process, settings: Settings, place: Path) -> Owner:
    refuse_shared(settings, process.trusted)  # before writing anything to the store
    owner = process.take_owner(place, settings.lease_sec)
    try:
        refuse_shared(settings, process.trusted)  # again: `take_owner` may have created the store
    except BaseException:
        process.give_back(owner)
        raise
    return owner


def _replace_owner(attempt: Attempt, owner: Owner, place: Path) -> None:
    """Give an attempt another owner, because the file of this owner could not be linked."""
    process = attempt.process
    if place == owner.place:
        process.retire(owner)
    attempt.owner = None
    process.give_back(owner)
    attempt.owner = process.take_owner(place, attempt.artifact.settings.lease_sec)


def _hold(attempt: Attempt) -> None:
    assert attempt.owner is not None  # noqa: S101  # the attempt's name is a link to the owner's file
    attempt.held(attempt.owner, attempt.number, f"{attempt.owner.record.id[:8]}{attempt.sequence:x}")


def _unlink(attempt: Attempt) -> None:
    """Remove the link of an invalid claim, because the link makes the node look in progress."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(attempt.artifact.files.attempt(attempt.number))


def _link_attempt(owner: Owner, path: str) -> None:
    """Link an owner's file to an attempt's name. Raises `FileExistsError` if the name is taken."""
    try:
        os.link(owner.path, path)
    except FileExistsError:
        # A network filesystem may send a link request twice: the first request succeeds, and the second
        # reports that the name is taken. If the name leads to our owner file, this claim linked it: this
        # process has no other claim on the node, and an owner with a link that could not be removed gets no
        # new claims.
        if not owner.is_linked_at(os.lstat(path)):
            raise


def _remove_owner_of_dead(artifact: Artifact, seen: Survey) -> None:
    if seen.found is not None and isinstance(seen.record, OwnerRecord):
        for place in (artifact.settings.store, Path(artifact.files.class_directory)):
            remove_dead(place, seen.record.id, seen.found.info)


def _after_rejected(artifact: Artifact, besides: int = 0) -> int:
    """Return the lowest attempt number above those of the rejected `done` and of all the node's numbered
    names. The caller's own name, `try-<besides>`, is ignored."""
    numbers = [n for kind, n in artifact.numbers() if (kind, n) != (TRY, besides)]
    # The number of a damaged `done` is unknown, so only the names count.
    with contextlib.suppress(FuruStoreError):
        if (record := artifact.read()) is not None:
            numbers.append(record.attempt)
    return max(numbers, default=0) + 1


def _take_first_name(artifact: Artifact) -> None:
    """Create an empty `try-1` if the name is free, so that no blind claim succeeds beside a later attempt.
    An empty file does not count as an attempt. The file stays until the node is published.
    """
    with contextlib.suppress(FileExistsError):
        write_new(artifact.files.attempt(1), b"")


def _give_way_to_others(attempt: Attempt) -> None:
    """Raise if another attempt holds the node, or has claimed it since this claim's number was chosen.

    Of two claimers, the one that links later sees the attempt of the first, so at most one of them
    continues. If each sees the other, neither continues.
    """
    artifact = attempt.artifact
    tries = [number for kind, number in artifact.numbers() if kind == TRY]
    if 1 not in tries:
        raise _GiveWay  # a blind claim had taken `try-1`, and has just freed it
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
    """Rename the `done` that `judged` identifies; None means that `done` was missing.

    Raises `_GiveWay` if `done` has changed, because an earlier claimer may have published meanwhile. After
    that check no claimer on this machine changes `done`.
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
    # Between these calls, another machine may consider this attempt dead and take over the node.
    try:
        os.rename(files.done, aside)
        if identify(os.lstat(aside)) != judged:  # the other machine published this: put it back
            with contextlib.suppress(FileExistsError):
                os.link(aside, files.done)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(aside)
            raise _GiveWay
    except FileNotFoundError:  # the other machine has renamed `done` already
        raise _GiveWay from None
    remove_checkpoints(attempt.artifact)  # of the attempt that published what is rejected now
    attempt.replaces = True


def in_progress(artifact: Artifact, number: int, record: AttemptRecord | None) -> FuruInProgressError:
    """Return the error for a node that another attempt is computing."""
    owner = f"pid {record.pid} on {record.host}" if record is not None else "another process"
    return FuruInProgressError(
        f"{artifact} is being computed by {owner}. State: {artifact.files.attempt(number)}",
        state_path=Path(artifact.files.attempt(number)),
        attempt=number,
        owner=owner,
    )
