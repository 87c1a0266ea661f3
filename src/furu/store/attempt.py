"""Claiming a node, publishing its artifact once, and recording how else an attempt ended.

A claim is the exclusive link of a name that is not freed until `done` exists, so one claimer wins and no
lock is ever broken. Publishing is the exclusive link of `done`. Nothing here computes.

What makes a claim good is that nobody else's can be overlooked:

    try-1, blind    it is free only where there was nothing yet, or where `done` is: so it looks at
                    `done` after linking. Whoever claims a later number first sees to it that `try-1`
                    is taken, and no record of a later number is kept without it.
    try-<n>, n > 1  chosen from a listing that may be old: so it lists again after linking, and gives
                    way to anybody who is alive or has a higher number, and looks at `done` once more.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import stat
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from furu.errors import FuruInProgressError, FuruStoreError
from furu.origin import Origin
from furu.settings import Settings
from furu.store.artifact import Artifact, Done, Status, identify, survey
from furu.store.layout import LOG, parse_numbered
from furu.store.owner import CLAIMING, Owner, current_owner, forget_owner, remove_dead, running
from furu.store.record import (
    FORMAT,
    MAX_TRACEBACK_CHARS,
    AttemptRecord,
    DoneRecord,
    EndedRecord,
    OwnerRecord,
    encode_done,
    encode_ended,
    store_failed,
    write_new,
)
from furu.store.sync import sync_directory, sync_tree, sync_upwards
from furu.store.trust import refuse_shared
from furu.text import describe_error, plain_text

logger = logging.getLogger("furu.store")

# A directory that is removed again and again while it is claimed is no node's directory.
_MAX_TRIES = 100

_UNKNOWN = Origin("")


class _GiveWay(Exception):
    """Somebody else's attempt makes this claim void."""


def open_store(settings: Settings) -> Owner:
    """Make sure that nodes can be computed in a store, and return this process's owner there.

    Raises `FuruStoreError` for a store that cannot be used, or that everybody may write to.
    """
    refuse_shared(settings)  # before anything is put there
    owner = current_owner(settings.store, settings.lease_sec)
    refuse_shared(settings)  # one that was made just now, by whomever
    return owner


def claim(artifact: Artifact, rejects: Callable[[], bool] | None = None) -> Attempt | None:
    """Become the one that computes a node; None if there is no need: it is DONE.

    `rejects` says whether the `done` that is there counts as missing. Raises `FuruInProgressError` if
    a live owner is at it, `FuruStoreError` if the store cannot be used.
    """
    owner = open_store(artifact.settings)
    directory = artifact.files.directory
    with _lock:
        if directory in running:
            raise _in_progress(artifact, running[directory], owner.record)
        running[directory] = CLAIMING
    attempt = None
    try:
        attempt = _claim(artifact, rejects)
    except OSError as error:
        raise store_failed("claim", directory, error) from error
    finally:
        if attempt is None:
            _released(directory)
        else:
            with _lock:
                running[directory] = attempt.number
                _attempts[directory] = attempt
    return attempt


def _claim(artifact: Artifact, rejects: Callable[[], bool] | None) -> Attempt | None:
    files = artifact.files
    number = 1  # blind: only where the name is taken is the directory worth listing
    _make_directory(files.directory)
    for _ in range(_MAX_TRIES):
        owner = current_owner(artifact.settings.store, artifact.settings.lease_sec)
        try:
            _link_attempt(owner, files.attempt(number))
        except FileExistsError:
            seen = survey(artifact)
            if seen.status is Status.DONE:
                if rejects is None or not rejects():
                    return None
                number = _after_rejected(artifact)
            elif seen.status is Status.IN_PROGRESS:
                raise _in_progress(artifact, seen.attempt, seen.record) from None
            else:
                if seen.found is not None and isinstance(seen.record, OwnerRecord):
                    remove_dead(artifact.settings.store, seen.record, seen.found.info)
                number = seen.highest + 1
            continue
        except FileNotFoundError:
            # Somebody removed the node's directory, or this process's owner file.
            if os.path.islink(files.directory) and not os.path.exists(files.directory):
                raise
            if not os.path.exists(owner.path):
                forget_owner(owner)
            _make_directory(files.directory)
            continue
        attempt = Attempt(artifact, number, owner)
        done, judged = artifact.look_at_done()
        if done is Done.ABSENT and number == 1:
            return attempt
        try:
            if done is Done.PUBLISHED and (rejects is None or not rejects()):
                attempt.release()
                return None
            if done is not Done.ABSENT and number < _after_rejected(artifact, besides=number):
                attempt.release()
                number = _after_rejected(artifact)
                continue
            if number > 1:
                _take_first_name(artifact)
            _give_way_to_others(attempt)
            _set_aside(attempt, judged)
        except _GiveWay:
            attempt.release()
            number = max((n for _, n in artifact.numbers()), default=0) + 1
            continue
        except BaseException:
            attempt.release()
            raise
        return attempt
    raise FuruStoreError(
        f"cannot claim {files.directory}: it is no directory, or it changes all the time. Remove it.",
        path=Path(files.directory),
    )


def _link_attempt(owner: Owner, path: str) -> None:
    """Link this process's owner file to an attempt's name, which must be free."""
    try:
        os.link(owner.path, path)
    except FileExistsError:
        # A network filesystem may repeat a link that it had made and then call the name taken; and a
        # claim of this process may have been interrupted. Nobody else of this process is at this node,
        # so the name is this claim's, unless an attempt of that number has been made.
        if path in _spent or not _same_file(owner.path, path):
            raise


def _after_rejected(artifact: Artifact, besides: int = 0) -> int:
    """Return the first attempt number that the rejected `done` and the names around it leave free."""
    numbers = [n for kind, n in artifact.numbers() if (kind, n) != ("try-", besides)]
    # A damaged `done` says nothing of its number, and the names beside it are all that counts.
    with contextlib.suppress(FuruStoreError):
        if (record := artifact.read()) is not None:
            numbers.append(record.attempt)
    return max(numbers, default=0) + 1


def _take_first_name(artifact: Artifact) -> None:
    """Make sure that no blind claim succeeds beside a later attempt. An empty file is nobody's attempt;
    it stays until somebody publishes."""
    with contextlib.suppress(FileExistsError):
        write_new(artifact.files.attempt(1), b"", sync=False)


def _give_way_to_others(attempt: Attempt) -> None:
    """Raise where somebody else is at the node, or was after this claim's number was chosen.

    Whoever comes later sees this attempt alive, and whoever was there is seen: so of two, at most one
    goes on. (Both may see each other and both give way; they try again.)
    """
    artifact = attempt.artifact
    tries = [number for kind, number in artifact.numbers() if kind == "try-"]
    if 1 not in tries:
        raise _GiveWay  # a blind claim came and went, and freed the name
    for number in tries:
        if number == attempt.number:
            continue
        found = artifact.read_attempt(number)
        if found is None:
            raise _GiveWay
        if found.alive:
            raise _in_progress(artifact, number, found.record)
    if max(tries, default=0) > attempt.number:
        raise _GiveWay


def _set_aside(attempt: Attempt, judged: tuple[int, int, int] | None) -> None:
    """Take away the `done` that was judged, if there was one. Nobody else is at the node, so it changes no
    more; but whoever was there until now may have published since it was looked at."""
    files = attempt.artifact.files
    if attempt.artifact.look_at_done()[1] != judged:
        raise _GiveWay
    if judged is None:
        return
    aside = files.rejected(attempt.number)
    # Between a look and the next call this attempt may be taken for dead, by another machine.
    try:
        os.rename(files.done, aside)
        if identify(os.lstat(aside)) != judged:  # it is what the taker published
            with contextlib.suppress(FileExistsError):
                os.link(aside, files.done)
            _remove(aside)
            raise _GiveWay
    except FileNotFoundError:  # the taker was faster
        raise _GiveWay from None
    attempt.replaces = True


@dataclass(eq=False, slots=True)
class Attempt:
    """One running try at computing a node, from its claim to its end. Owned by the worker."""

    artifact: Artifact
    number: int
    owner: Owner
    replaces: bool = False
    started_at: float = field(default_factory=time.time)
    _started: float = field(default_factory=time.monotonic)
    _has_files: bool = False
    _log: int | None = None
    _log_lock: threading.Lock = field(default_factory=threading.Lock)
    _closed: bool = False

    @property
    def state_path(self) -> Path:
        return Path(self.artifact.files.attempt(self.number))

    def files_directory(self) -> str:
        """Return the directory for this attempt's files, made when first asked for."""
        directory = self.artifact.files.files(self.number)
        if not self._has_files:
            try:
                os.mkdir(directory)
            except FileExistsError:  # left behind where somebody removed `done` by hand
                _remove(directory)
                os.mkdir(directory)
            self._has_files = True
        return directory

    def log(self, line: str) -> None:
        """Append one line to the attempt's log; a message's own newlines cannot forge another line."""
        content = "\n    | ".join(line.splitlines())
        # A thread of the node's own may outlive it: it must not write to a descriptor that is another
        # file's by then.
        with self._log_lock:
            if not self._closed:
                os.write(self._open_log(), (content + "\n").encode("utf-8", "backslashreplace"))

    @contextlib.contextmanager
    def log_descriptor(self) -> Iterator[int]:
        """Lend a descriptor of the attempt's log for a block. A log that is empty afterwards is removed,
        and the attempt's directory with it if nothing else is in there."""
        with self._log_lock:
            descriptor = self._open_log()
        try:
            yield descriptor
        finally:
            with self._log_lock:
                if os.fstat(descriptor).st_size == 0:
                    self._remove_log()

    def _open_log(self) -> int:
        if self._log is None:
            path = f"{self.files_directory()}/{LOG}"
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._log = os.open(path, flags, 0o666)
        return self._log

    def _remove_log(self) -> None:
        directory = self.artifact.files.files(self.number)
        if self._log is not None:
            os.close(self._log)
            self._log = None
        with contextlib.suppress(OSError):
            os.unlink(f"{directory}/{LOG}")
            os.rmdir(directory)  # refused where the node has files of its own
            self._has_files = False

    def publish(
        self,
        codec: Literal["json", "load", "pickle"],
        result: bytes,
        config: dict[str, Any],
        origin: Origin = _UNKNOWN,
    ) -> bool:
        """Make the artifact visible, whole and once. False: another attempt had published already.

        Raises `FuruStoreError`, and then nothing was published and the attempt still runs.
        """
        files, settings = self.artifact.files, self.artifact.settings
        sync = settings.durability == "power"
        record = DoneRecord(
            format=FORMAT,
            node_class=self.artifact.node_class,
            hash=self.artifact.hash,
            attempt=self.number,
            codec=codec,
            config=config,
            started_at=self.started_at,
            duration_sec=time.monotonic() - self._started,
            result=msgspec.Raw(result),
            source=origin.file,
            from_script=origin.is_script,
        )
        temporary = files.temporary(self.number, self.owner.record.id)
        published = False
        try:
            if sync and self._has_files:
                sync_tree(files.files(self.number))
                sync_directory(files.directory)  # or `done` may survive without the name of the files
            write_new(temporary, encode_done(record), sync=sync)
            published = _link_done(temporary, files.done)
            if sync:
                sync_upwards(files.directory, settings.store)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not published and self.artifact.is_done():
                # Taken for dead: whoever published instead removed what this attempt had left.
                self._lose()
                return False
            if published:  # seen or not, it may not survive the power cut that it was to survive
                _remove(files.done)
            _remove(temporary)
            raise store_failed("publish", files.done, error) from error
        _remove(temporary)
        if not published:
            self._lose()
            return False
        if self.number > 1 or self.replaces:
            self._clean()
        self.release()
        return True

    def _lose(self) -> None:
        """Give way to another attempt's artifact: nobody would know later whose files these are."""
        _remove(self.artifact.files.files(self.number))
        self.release()

    def end(
        self, outcome: Literal["failed", "cancelled"], error: BaseException, config: dict[str, Any]
    ) -> OSError | None:
        """Record how the attempt ended without publishing. Returns why the record could not be written,
        if so: the node's own error matters more, and the next claim is not held up in this process."""
        files = self.artifact.files
        try:
            duration_sec = time.monotonic() - self._started
            self._write_ended(self.number, self.owner.record, outcome, error, config, duration_sec)
        except FileNotFoundError:
            return None  # the node was removed while it ran; there is nothing to say it of
        except OSError as failure:
            _spent.add(files.attempt(self.number))
            return failure
        finally:
            self._close()
        return None

    def end_before(
        self,
        outcome: Literal["failed", "cancelled"],
        error: BaseException,
        config: dict[str, Any],
        duration_sec: float,
    ) -> int:
        """Record how the attempt before this one ended, whose owner is dead and could not. This one's claim
        keeps everybody else from the node. Returns its number; 0 if there is no such attempt."""
        numbers = (n for kind, n in self.artifact.numbers() if kind == "try-" and n < self.number)
        number = max(numbers, default=0)
        found = self.artifact.read_attempt(number) if number else None
        if found is None or not isinstance(found.record, OwnerRecord):
            return 0
        self._write_ended(number, found.record, outcome, error, config, duration_sec)
        return number

    def _write_ended(
        self,
        number: int,
        owner: OwnerRecord,
        outcome: Literal["failed", "cancelled"],
        error: BaseException,
        config: dict[str, Any],
        duration_sec: float,
    ) -> None:
        record = EndedRecord(
            format=FORMAT,
            node_class=self.artifact.node_class,
            hash=self.artifact.hash,
            attempt=number,
            outcome=outcome,
            error=describe_error(error),
            traceback=_traceback(error),
            config=config,
            started_at=time.time() - duration_sec,
            duration_sec=duration_sec,
            host=owner.host,
            pid=owner.pid,
        )
        temporary = self.artifact.files.temporary(number, self.owner.record.id)
        write_new(temporary, encode_ended(record), sync=False)
        os.replace(temporary, self.artifact.files.attempt(number))

    def release(self) -> None:
        """Give the claim back: where `done` exists, or where the claim was void from the start."""
        _remove(self.artifact.files.attempt(self.number))
        self._close()

    def forget(self) -> None:
        """End the attempt where its directory was renamed away: the name there may be another's by now."""
        self._close()

    def _close(self) -> None:
        directory = self.artifact.files.directory
        if _attempts.get(directory) is self:
            _released(directory)
        with self._log_lock:
            self._closed = True
            if self._log is not None:
                os.close(self._log)
                self._log = None

    def _clean(self) -> None:
        """Remove what earlier attempts left, except what belongs to an owner that is alive. The record
        of the last failure is kept, and `try-1` with it: see the head of this module."""
        try:
            names = os.listdir(self.artifact.files.directory)
            parsed = {name: parse_numbered(name) or ("", 0) for name in names}
            kept = self._kept({number for _, number in parsed.values() if 0 < number < self.number})
        except (OSError, FuruStoreError) as error:
            logger.warning("could not look at what earlier attempts left: %s", error)
            return
        for name, (kind, number) in parsed.items():
            stale = 0 < number < self.number and (kind, number) not in kept
            if stale or kind == "rejected-":
                _remove(f"{self.artifact.files.directory}/{name}")

    def _kept(self, numbers: set[int]) -> set[tuple[str, int]]:
        kept: set[tuple[str, int]] = set()
        failed = 0
        for number in sorted(numbers, reverse=True):
            found = self.artifact.read_attempt(number)
            if found is not None and found.alive:
                kept |= {("try-", number), ("a", number), ("tmp-", number)}
            elif found is not None and isinstance(found.record, EndedRecord) and not failed:
                failed = number if found.record.outcome == "failed" else 0
        return kept | {("try-", failed), ("try-", 1)} if failed else kept


# The attempts of this process by directory. Not by context, so that a node's own threads find theirs.
_attempts: dict[str, Attempt] = {}
# Attempts of this process that ended and whose end could not be written: their names are used up.
_spent: set[str] = set()
# Who is to be told when this process is no longer at a node.
_waiters: dict[str, list[Callable[[], object]]] = {}
_lock = threading.Lock()


def when_released(artifact: Artifact, tell: Callable[[], object]) -> Callable[[], None] | None:
    """Register `tell` to be called, in any thread, when this process releases a node, published or not.

    Returns a function that takes the registration back; None, and `tell` is not called, if this process
    does not hold the node.
    """
    directory = artifact.files.directory
    with _lock:
        if directory not in running:
            return None
        waiters = _waiters.setdefault(directory, [])
        waiters.append(tell)

    def take_back() -> None:
        with _lock, contextlib.suppress(ValueError):
            waiters.remove(tell)

    return take_back


def _released(directory: str) -> None:
    with _lock:
        _attempts.pop(directory, None)
        del running[directory]
        waiters = list(_waiters.pop(directory, ()))
    for tell in waiters:
        tell()


def _after_fork() -> None:
    """In the child: none of these attempts is the child's, and none ends in its memory."""
    global _lock
    _lock = threading.Lock()
    _attempts.clear()
    _waiters.clear()
    _spent.clear()


os.register_at_fork(after_in_child=_after_fork)


def running_attempt(artifact: Artifact) -> Attempt | None:
    """Return the attempt that this process is making at a node, if any."""
    return _attempts.get(artifact.files.directory)


def _traceback(error: BaseException) -> list[str]:
    text = plain_text("".join(traceback.format_exception(error)))
    if len(text) > MAX_TRACEBACK_CHARS:
        half = MAX_TRACEBACK_CHARS // 2
        left_out = f"... {len(text) - 2 * half} characters left out ..."
        text = f"{text[:half]}\n{left_out}\n{text[-half:]}"
    return text.splitlines()


def _in_progress(artifact: Artifact, number: int, record: AttemptRecord | None) -> FuruInProgressError:
    owner = f"pid {record.pid} on {record.host}" if record is not None else "another process"
    return FuruInProgressError(
        f"{artifact.node_class} {artifact.hash} is being computed by {owner}. "
        f"State: {artifact.files.directory}",
        node_dir=Path(artifact.files.directory),
        attempt=number,
        owner=owner,
    )


def _make_directory(path: str) -> None:
    try:
        os.mkdir(path)
    except FileExistsError:
        pass
    except FileNotFoundError:
        os.makedirs(path, exist_ok=True)


def _link_done(temporary: str, done: str) -> bool:
    try:
        os.link(temporary, done)
    except FileExistsError:
        # A network filesystem may repeat a link that it had made and then call the name taken.
        return _same_file(temporary, done)
    return True


def _same_file(path: str, other: str) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.lstat(other))
    except FileNotFoundError:
        return False


def _remove(path: str) -> None:
    """Remove what nobody reads any more. Where that fails it is left: it does no harm."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        if stat.S_ISDIR(os.lstat(path).st_mode):  # Linux says EISDIR of one, macOS EPERM
            shutil.rmtree(path, ignore_errors=True)
        else:
            logger.warning("could not remove %s: %s", path, error)
