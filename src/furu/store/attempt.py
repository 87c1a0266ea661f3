"""Claiming a node, publishing its artifact once, and recording how else an attempt ended.

State is derived, never stored twice:

    done                                DONE
    no done, highest try-<n>:
        none                            TODO
        ended, failed                   FAILED
        ended, cancelled                TODO
        an owner that is alive          IN_PROGRESS
        an owner that is dead           TODO, taken over as try-<n+1>

A claim is the exclusive link of a name that is never freed until `done` exists, so one claimer wins and
no lock is ever broken. Publishing is the exclusive link of `done`. Nothing here computes.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import shutil
import stat
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from furu.errors import FuruInProgressError, FuruStoreError
from furu.settings import Settings
from furu.store.layout import LOG, NodeFiles, parse_numbered
from furu.store.owner import (
    Owner,
    current_owner,
    forget_owner,
    is_alive,
    own_owner,
    remove_dead,
)
from furu.store.record import (
    FORMAT,
    MAX_RECORD_BYTES,
    MAX_TRACEBACK_CHARS,
    AttemptRecord,
    DoneRecord,
    EndedRecord,
    OwnerRecord,
    decode_attempt,
    encode,
    encode_ended,
    read_done,
    read_open,
    store_failed,
    sync_directory,
    write_new,
)

logger = logging.getLogger("furu.store")

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Status(enum.StrEnum):
    """What the store says of a node."""

    TODO = "TODO"
    IN_PROGRESS = "IN_PROGRESS"
    DONE = "DONE"
    FAILED = "FAILED"


class _Done(enum.Enum):
    ABSENT = enum.auto()
    PUBLISHED = enum.auto()
    # Empty, as a power cut may leave it, or no file at all: it counts as missing and makes way.
    DAMAGED = enum.auto()


@dataclass(frozen=True, slots=True)
class Artifact:
    """One node's place in one store: all that the store knows of a node."""

    settings: Settings
    files: NodeFiles
    node_class: str
    hash: str

    def is_done(self) -> bool:
        """Whether something was published: one stat."""
        return self._done_is() is _Done.PUBLISHED

    def _done_is(self) -> _Done:
        try:
            info = os.lstat(self.files.done)
        except (FileNotFoundError, NotADirectoryError):
            return _Done.ABSENT
        except OSError as error:
            raise store_failed("look at", self.files.done, error) from error
        whole = stat.S_ISREG(info.st_mode) and info.st_size > 0
        return _Done.PUBLISHED if whole else _Done.DAMAGED

    def read(self) -> DoneRecord | None:
        """Read what was published; None where there is nothing. Raises `FuruStoreError`."""
        return read_done(
            self.files.done,
            node_class=self.node_class,
            node_hash=self.hash,
            # The document holds the configuration and some words beside the result.
            max_bytes=self.settings.max_result_bytes + MAX_RECORD_BYTES,
        )


@dataclass(frozen=True, slots=True)
class Survey:
    """What a node's directory says. `highest` is the highest attempt number in any name, 0 for none."""

    status: Status
    highest: int = 0
    attempt: int = 0
    record: AttemptRecord | None = None
    info: os.stat_result | None = None


def survey(artifact: Artifact) -> Survey:
    """Derive a node's status from its directory."""
    while True:
        if artifact.is_done():
            return Survey(Status.DONE)
        numbers = _numbers(artifact)
        highest = max((number for _, number in numbers), default=0)
        attempt = max((number for kind, number in numbers if kind == "try-"), default=0)
        if attempt == 0:
            return Survey(Status.TODO, highest)
        found = _read_attempt(artifact, attempt)
        if found is not None:
            record, info, alive = found
            return Survey(_status_of(record, alive), highest, attempt, record, info)
        # The name is gone, which it may only be once `done` exists, or the whole node is removed.


def claim(artifact: Artifact, rejects: Callable[[], bool] | None = None) -> Attempt | None:
    """Become the one that computes a node; None if there is no need: it is DONE.

    `rejects` says whether the `done` that is there counts as missing. Raises `FuruInProgressError` if
    a live owner is at it, `FuruStoreError` if the store cannot be used.
    """
    owner = current_owner(artifact.settings.store, artifact.settings.lease_sec)
    with _running_lock:
        if artifact.files.directory in _running:
            raise _in_progress(artifact, 0, owner.record)
        _running[artifact.files.directory] = None
    attempt = None
    try:
        attempt = _claim(artifact, rejects)
        return attempt
    except OSError as error:
        raise store_failed("claim", artifact.files.directory, error) from error
    finally:
        with _running_lock:
            if attempt is None:
                del _running[artifact.files.directory]
            else:
                _running[artifact.files.directory] = attempt


def _claim(artifact: Artifact, rejects: Callable[[], bool] | None) -> Attempt | None:
    files = artifact.files
    number = 1  # blind: only where the name is taken is the directory worth listing
    _make_directory(files.directory)
    while True:
        owner = current_owner(artifact.settings.store, artifact.settings.lease_sec)
        try:
            os.link(owner.path, files.attempt(number))
        except FileExistsError:
            found = survey(artifact)
            if found.status is Status.DONE:
                if rejects is None or not rejects():
                    return None
                number = _after_rejected(artifact)
                continue
            if found.status is Status.IN_PROGRESS:
                raise _in_progress(artifact, found.attempt, found.record) from None
            if isinstance(found.record, OwnerRecord) and found.info is not None:
                remove_dead(artifact.settings.store, found.record, found.info)
            number = found.highest + 1
            continue
        except FileNotFoundError:
            # Somebody removed the node's directory, or this process's owner file.
            if not os.path.exists(owner.path):
                forget_owner(owner)
            _make_directory(files.directory)
            continue
        attempt = Attempt(artifact, number, owner)
        done = artifact._done_is()
        if done is _Done.ABSENT:
            return attempt
        try:
            replace = done is _Done.DAMAGED or (rejects is not None and rejects())
            if replace and number >= _after_rejected(artifact, besides=number):
                _set_rejected_aside(attempt)
                return attempt
        except BaseException:
            attempt.release()
            raise
        attempt.release()
        if not replace:
            return None
        number = _after_rejected(artifact)


def _after_rejected(artifact: Artifact, besides: int = 0) -> int:
    """Return the first attempt number that the rejected `done` and the names around it leave free."""
    numbers = [n for kind, n in _numbers(artifact) if (kind, n) != ("try-", besides)]
    # A damaged `done` says nothing of its number, and the names beside it are all that counts.
    with contextlib.suppress(FuruStoreError):
        if (record := artifact.read()) is not None:
            numbers.append(record.attempt)
    return max(numbers, default=0) + 1


def _set_rejected_aside(attempt: Attempt) -> None:
    """Take the rejected `done` away, when nobody can mistake that for a node that nobody computes.

    With `done` gone, a blind claim of `try-1` must not succeed, so that name has to be taken; and an
    attempt that is alive could still free it. So: nobody else alive, `try-1` taken, then the rename.
    """
    artifact, files = attempt.artifact, attempt.artifact.files
    if attempt.number > 1:
        with contextlib.suppress(FileExistsError):
            os.link(attempt.owner.path, files.attempt(1))
            attempt.placeholder = True
    for kind, number in _numbers(artifact):
        if kind != "try-" or number == attempt.number or (number == 1 and attempt.placeholder):
            continue
        found = _read_attempt(artifact, number)
        if found is None or found[2]:
            raise _in_progress(artifact, number, found and found[0])
    os.rename(files.done, files.rejected(attempt.number))


@dataclass(eq=False, slots=True)
class Attempt:
    """One running try at computing a node, from its claim to its end. Owned by the worker."""

    artifact: Artifact
    number: int
    owner: Owner
    placeholder: bool = False
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
            os.makedirs(directory, exist_ok=True)
            self._has_files = True
        return directory

    def log(self, line: str) -> None:
        """Append one line to the attempt's log; a message's own newlines cannot forge another line."""
        content = line.replace("\r", "\\r").replace("\n", "\n    | ")
        # A thread of the node's own may outlive it: it must not write to a descriptor that is another
        # file's by then.
        with self._log_lock:
            if self._log is None and not self._closed:
                path = f"{self.files_directory()}/{LOG}"
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                self._log = os.open(path, flags, 0o666)
            if self._log is not None:
                os.write(self._log, (content + "\n").encode("utf-8", "backslashreplace"))

    def publish(
        self, codec: Literal["json", "load", "pickle"], result: bytes, config: dict[str, Any]
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
        )
        temporary = files.temporary(self.number, self.owner.record.id)
        try:
            if sync and self._has_files:
                _sync_tree(files.files(self.number))
            write_new(temporary, encode(record), sync=sync)
            published = _link_done(temporary, files.done)
            if sync:
                _sync_upwards(files.directory, settings.store)
        except OSError as error:
            raise store_failed("publish", files.done, error) from error
        _remove(temporary)
        if self.number > 1:
            self._clean()
        self.release()
        return published

    def end(
        self, outcome: Literal["failed", "cancelled"], error: BaseException, config: dict[str, Any]
    ) -> OSError | None:
        """Record how the attempt ended without publishing. Returns why the record could not be written,
        if so: the node's own error matters more, and the next claim is not held up in this process."""
        files = self.artifact.files
        record = EndedRecord(
            format=FORMAT,
            node_class=self.artifact.node_class,
            hash=self.artifact.hash,
            attempt=self.number,
            outcome=outcome,
            error=describe_error(error),
            traceback=_traceback(error),
            config=config,
            started_at=self.started_at,
            duration_sec=time.monotonic() - self._started,
            host=self.owner.record.host,
            pid=self.owner.record.pid,
        )
        temporary = files.temporary(self.number, self.owner.record.id)
        problem = None
        try:
            with contextlib.suppress(FileNotFoundError):  # left by a publish that failed half-way
                os.unlink(temporary)
            write_new(temporary, encode_ended(record), sync=False)
            os.replace(temporary, files.attempt(self.number))
        except FileNotFoundError:
            pass  # the node was removed while it ran; there is nothing to say it of
        except OSError as failure:
            problem = failure
        finally:
            self._close()
        return problem

    def release(self) -> None:
        """Give the claim back. Only where `done` exists: until then an attempt's name stays taken."""
        _remove(self.artifact.files.attempt(self.number))
        if self.placeholder:
            _remove(self.artifact.files.attempt(1))
        self._close()

    def _close(self) -> None:
        with _running_lock:
            if _running.get(self.artifact.files.directory) is self:
                del _running[self.artifact.files.directory]
        with self._log_lock:
            self._closed = True
            if self._log is not None:
                os.close(self._log)
                self._log = None

    def _clean(self) -> None:
        """Remove what earlier attempts left; keep the record of the last failure, and whatever belongs
        to an owner that is alive."""
        files = self.artifact.files
        failed = 0
        spared: set[int] = set()
        names = _numbers(self.artifact)
        for number in sorted({n for _, n in names if n < self.number}, reverse=True):
            found = _read_attempt(self.artifact, number)
            if found is None:
                continue
            record, _, alive = found
            if alive and not (number == 1 and self.placeholder):
                spared.add(number)
            elif isinstance(record, EndedRecord) and record.outcome == "failed" and not failed:
                failed = number
        try:
            for name in os.listdir(files.directory):
                kind, number = parse_numbered(name) or ("", 0)
                if kind == "rejected-" or (kind and number < self.number and number not in spared):
                    path = f"{files.directory}/{name}"
                    if (kind, number) != ("try-", failed):
                        _remove(path)
        except OSError as error:
            logger.warning("could not remove what earlier attempts left: %s", error)


# The attempts of this process by directory; None while one is being claimed. Keyed by directory and
# not by context, so that a node's own threads find its attempt too.
_running: dict[str, Attempt | None] = {}
_running_lock = threading.Lock()


def _after_fork() -> None:
    """In the child: none of these attempts is the child's, and none ends in its memory."""
    global _running_lock
    _running_lock = threading.Lock()
    _running.clear()


os.register_at_fork(after_in_child=_after_fork)


def running_attempt(artifact: Artifact) -> Attempt | None:
    """Return the attempt that this process is making at a node, if any."""
    return _running.get(artifact.files.directory)


def describe_error(error: BaseException) -> str:
    """Say an exception in one line: its type and message."""
    lines = traceback.format_exception_only(error)
    return " ".join(lines[-1].split())[:2000]


def _traceback(error: BaseException) -> list[str]:
    text = "".join(traceback.format_exception(error))
    if len(text) > MAX_TRACEBACK_CHARS:
        half = MAX_TRACEBACK_CHARS // 2
        left_out = f"... {len(text) - 2 * half} characters left out ..."
        text = f"{text[:half]}\n{left_out}\n{text[-half:]}"
    return text.splitlines()


def _numbers(artifact: Artifact) -> list[tuple[str, int]]:
    directory = artifact.files.directory
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise store_failed("list", directory, error) from error
    return [parsed for parsed in map(parse_numbered, names) if parsed is not None]


def _read_attempt(
    artifact: Artifact, number: int
) -> tuple[AttemptRecord | None, os.stat_result, bool] | None:
    """Return an attempt's record (None for what is no record), its stat, and whether its owner lives;
    None if the name is gone."""
    path = artifact.files.attempt(number)
    try:
        descriptor = os.open(path, _OPEN)
    except FileNotFoundError:
        return None
    except OSError:
        # A symbolic link, or a file that may not be read: the name is taken, and by nobody alive.
        try:
            return None, os.lstat(path), False
        except FileNotFoundError:
            return None
    try:
        info = os.fstat(descriptor)
        try:
            record = decode_attempt(read_open(descriptor, path, MAX_RECORD_BYTES))
        except FuruStoreError:
            record = None
        if isinstance(record, EndedRecord) and record.hash != artifact.hash:
            record = None
        alive = isinstance(record, OwnerRecord) and _is_alive(artifact, number, descriptor, record)
        return record, info, alive
    finally:
        os.close(descriptor)


def _is_alive(artifact: Artifact, number: int, descriptor: int, record: OwnerRecord) -> bool:
    own = own_owner(record)
    if own is None:
        return is_alive(descriptor, record, lease_sec=artifact.settings.lease_sec)
    # This process lives, which says nothing of its attempt: an interrupt may have ended that before it
    # was written down, or the disk was full. The owner may know the store by another path.
    store = os.fspath(artifact.settings.store)
    directory = f"{own.store}{artifact.files.directory.removeprefix(store)}"
    if directory not in _running:
        return False
    attempt = _running[directory]
    if attempt is None:  # being claimed: by the asker itself, unless it goes by another path
        return directory != artifact.files.directory
    return attempt.number == number


def _status_of(record: AttemptRecord | None, alive: bool) -> Status:
    if isinstance(record, EndedRecord):
        return Status.FAILED if record.outcome == "failed" else Status.TODO
    return Status.IN_PROGRESS if alive else Status.TODO


def _in_progress(artifact: Artifact, number: int, record: AttemptRecord | None) -> FuruInProgressError:
    owner = f"pid {record.pid} on {record.host}" if record is not None else "another process"
    return FuruInProgressError(
        f"{artifact.node_class} {artifact.hash} is being computed by {owner}. "
        f"State: {artifact.files.directory}",
        node_dir=Path(artifact.files.directory),
        attempt=number,
        owner=owner,
    )


def _remove(path: str) -> None:
    """Remove what nobody reads any more. Where that fails it is left: it does no harm."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        shutil.rmtree(path, ignore_errors=True)
    except OSError as error:
        if os.path.isdir(path) and not os.path.islink(path):  # macOS says EPERM of a directory
            shutil.rmtree(path, ignore_errors=True)
        else:
            logger.warning("could not remove %s: %s", path, error)


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
        return os.path.samefile(temporary, done)
    return True


def _sync_tree(directory: str) -> None:
    for parent, _, names in os.walk(directory):
        for name in names:
            path = f"{parent}/{name}"
            if stat.S_ISREG(os.lstat(path).st_mode):
                descriptor = os.open(path, _OPEN)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        sync_directory(parent)


def _sync_upwards(directory: str, store: Path) -> None:
    """Sync a node's directory and those above it, which may be as new."""
    root = os.fspath(store)
    while directory.startswith(root):
        sync_directory(directory)
        directory = os.path.dirname(directory)
