"""One attempt at computing a node: from before its claim to after its release, in one object.

    NEW ──take──> HELD ──publish──> OVER      `done` exists, or another attempt's does
     │              └────end──────> OVER      a record says how it ended
     └──────────────────────────────> OVER    ended before it was claimed

Whatever interrupts a step, `end` or `close` called afterwards leaves the node free: for this process,
because its memory forgets the attempt; for others, because the attempt's name is no longer a link to a
live owner. `claim.py` says how an attempt comes to be HELD. Nothing here computes.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import logging
import os
import shutil
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from furu._common.origin import Origin
from furu._common.text import describe_error
from furu.store.artifact import Artifact
from furu.store.layout import LOG
from furu.store.leftovers import remove_name, remove_superseded
from furu.store.local import Process, this_process
from furu.store.owner import Descriptor, Owner
from furu.store.record import (
    FORMAT,
    DoneRecord,
    EndedRecord,
    OwnerRecord,
    encode_done,
    encode_ended,
    link_new,
    store_failed,
    traceback_lines,
    write_new,
)
from furu.store.sync import sync_directory, sync_tree, sync_upwards

logger = logging.getLogger("furu.store")

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

Outcome = Literal["failed", "cancelled"]

_UNKNOWN = Origin("")


class State(enum.Enum):
    """Where an attempt is."""

    NEW = enum.auto()
    HELD = enum.auto()
    OVER = enum.auto()


class Attempt:
    """One try at computing a node. The worker that computes the node owns it.

    A fork of the process that made it may use `files_directory` and `log`; nothing else is the fork's.
    """

    __slots__ = (
        "_files",
        "_forks",
        "_log",
        "_name_is_ours",
        "_started",
        "artifact",
        "nonce",
        "number",
        "owner",
        "process",
        "replaces",
        "sequence",
        "started_at",
        "state",
        "steps",
    )

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.process: Process = this_process()
        self.state = State.NEW
        # Set before the link is made: an attempt that was interrupted knows which name may be its own.
        self.number = 0
        self.owner: Owner | None = None
        self.nonce = ""
        self.sequence = 0
        self.replaces = False
        self.started_at = 0.0
        self._started = 0.0
        self._forks = self.process.forks
        self._files: str | None = None
        self._log: Descriptor | None = None
        # Whether it has just been seen that the attempt's name is a link to its owner's file.
        self._name_is_ours = False
        # One step at a time: what ends an attempt waits for the step that it interrupts.
        self.steps = threading.RLock()

    @property
    def directory(self) -> str:
        """The node's directory."""
        return self.artifact.files.directory

    @property
    def state_path(self) -> Path:
        """The file that says how the attempt goes, or how it ended."""
        return Path(self.artifact.files.attempt(max(self.number, 1)))

    @property
    def is_of_this_process(self) -> bool:
        """Whether this process made the attempt, rather than a process that it was forked from."""
        return not self.process.is_parents

    @property
    def is_lost(self) -> bool:
        """Whether the attempt's name is another's by now, or is gone: the node was taken over, or
        removed.
        """
        try:
            return self.state is State.HELD and not self._is_ours()
        except OSError:
            return False

    def held(self, owner: Owner, number: int, nonce: str) -> None:
        """Record that the attempt's name is linked, and that no other owner is at the node."""
        self.owner, self.number, self.nonce = owner, number, nonce
        self.started_at, self._started = time.time(), time.monotonic()
        self.state = State.HELD

    # ---- what a node writes while it runs ----

    def files_directory(self) -> str:
        """Return the directory for this attempt's files, made when it is first asked for.

        Its name is this attempt's alone, so threads and forks of the node may all make it.
        """
        directory = self.artifact.files.files(self.number, self.nonce)
        if self._files is None:
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory)
            self._files = os.path.basename(directory)
        return directory

    def log(self, line: str) -> None:
        """Append one line to the attempt's log; a message's own newlines cannot forge another line."""
        content = "\n    | ".join(line.splitlines())
        # Held here until it is written, so that the number is not closed, and another file's, meanwhile.
        log = self._open_log()
        if log is not None:
            os.write(log.number, (content + "\n").encode("utf-8", "backslashreplace"))

    @contextlib.contextmanager
    def log_descriptor(self) -> Iterator[int]:
        """Lend a descriptor of the attempt's log for a block. A log that is empty afterwards is removed,
        and the attempt's directory with it if nothing else is in there."""
        log = self._open_log()
        assert log is not None  # noqa: S101  # the attempt runs
        try:
            yield log.number
        finally:
            with contextlib.suppress(OSError):  # a node may have closed every descriptor that it found
                if os.fstat(log.number).st_size == 0:
                    self._remove_log()

    def _open_log(self) -> Descriptor | None:
        log = self._log
        if log is None and self.state is State.HELD:
            path = f"{self.files_directory()}/{LOG}"
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            log = self._log = Descriptor(os.open(path, flags, 0o666))
        return log

    def _remove_log(self) -> None:
        directory = self.artifact.files.files(self.number, self.nonce)
        self._log = None
        with contextlib.suppress(OSError):
            os.unlink(f"{directory}/{LOG}")
            os.rmdir(directory)  # refused where the node has files of its own
            self._files = None

    def _has_files(self) -> bool:
        """Whether the attempt's directory is there: a fork may have made it, and the node removed it.

        Raises `OSError` where that cannot be found out.
        """
        if self._files is not None or self.process.forks != self._forks:
            directory = self.artifact.files.files(self.number, self.nonce)
            try:
                os.stat(directory)
                self._files = os.path.basename(directory)
            except FileNotFoundError:
                self._files = None
        return self._files is not None

    # ---- the end ----

    def publish(
        self,
        codec: Literal["json", "load", "pickle"],
        result: bytes,
        config: dict[str, Any],
        origin: Origin = _UNKNOWN,
    ) -> bool:
        """Make the artifact visible, whole and once. False: another attempt has published, or has the node.

        Raises `FuruStoreError`, and then nothing was published and the attempt still runs.
        """
        if not self.is_of_this_process:  # its lock may be held by a thread that is not here
            return False
        with self.steps:
            if self.state is not State.HELD:
                return False
            had_files = self._files is not None
            try:
                content = self._done_record(codec, result, config, origin)
                if had_files and self._files is None and codec != "json" and not self.is_lost:
                    files = self.artifact.files.files(self.number, self.nonce)
                    raise FileNotFoundError(errno.ENOENT, f"the node's files in {files} were removed")
                published = self._publish(content)
            except OSError as error:
                raise store_failed("publish", self.artifact.files.done, error) from error
            if not published:  # later no process could tell whose files these are
                self._remove_files()
            elif self.number > 1 or self.replaces:
                remove_superseded(self.artifact, self.number)
                self._name_is_ours = False
            self.close()
            return published

    def _done_record(
        self,
        codec: Literal["json", "load", "pickle"],
        result: bytes,
        config: dict[str, Any],
        origin: Origin,
    ) -> bytes:
        return encode_done(
            DoneRecord(
                format=FORMAT,
                node_class=self.artifact.node_class,
                hash=self.artifact.hash,
                attempt=self.number,
                codec=codec,
                config=config,
                started_at=self.started_at,
                duration_sec=time.monotonic() - self._started,
                files=(self._files or "") if self._has_files() else "",
                result=msgspec.Raw(result),
                source=origin.file,
                from_script=origin.is_script,
            )
        )

    def _publish(self, content: bytes) -> bool:
        files, settings = self.artifact.files, self.artifact.settings
        sync = settings.durability == "power"
        temporary, done = files.temporary(self.number, self.nonce), files.done
        directory = None
        try:
            if self._files is not None:
                if sync:
                    sync_tree(files.files(self.number, self.nonce))
                    sync_directory(files.directory)  # or `done` may survive without the name of the files
                # From here on in one directory, whatever becomes of its name: `done` beside its own files.
                directory = Descriptor(os.open(files.directory, _DIRECTORY))
                temporary, done = os.path.basename(temporary), os.path.basename(done)
                if not stat.S_ISDIR(os.lstat(self._files, dir_fd=directory.number).st_mode):
                    return False
            where = directory.number if directory is not None else None
            # The temporary name is this attempt's alone. As long as it exists, the directory is the one in
            # which the attempt's name was compared, so that name need not be compared again to remove it.
            write_new(temporary, content, sync=sync, directory=where)
            try:
                published = self._is_ours(where) and link_new(temporary, done, where)
            finally:
                removed = remove_name(temporary, where)
            self._name_is_ours = published and removed and where is None
            if published and where is not None:
                published = self._has_its_directory(where)
        except FileNotFoundError:
            if self._is_ours() and not self.artifact.is_done():
                raise
            return False  # the node was taken over and tidied, or removed
        if sync:
            self._sync_name()
        return published

    def _has_its_directory(self, descriptor: int) -> bool:
        """Whether the directory that was published in still has its name: it may have been removed."""
        try:
            return os.path.samestat(os.stat(self.directory), os.fstat(descriptor))
        except FileNotFoundError:
            return False
        except OSError:  # `done` is linked: it is too late to call the node failed
            return True

    def _sync_name(self) -> None:
        settings = self.artifact.settings
        try:
            sync_upwards(self.directory, settings.store, self.process.synced_above)
        except OSError as error:  # others may have read it: it is too late to take it back
            logger.error(
                "%s is published, but may not survive a power cut: %s", self.artifact.files.done, error
            )

    def end(self, outcome: Outcome, error: BaseException, config: dict[str, Any]) -> BaseException | None:
        """Record how the attempt ended without publishing, and release the node whatever happens.

        Returns why the record could not be written, if so: the node's own error matters more.
        """
        if not self.is_of_this_process:
            return None
        with self.steps:
            if self.state is not State.HELD:
                self.close()
                return None
            assert self.owner is not None  # noqa: S101  # it is held
            duration_sec = time.monotonic() - self._started
            problem: BaseException | None = None
            try:
                self.write_ended(self.number, self.owner.record, outcome, error, config, duration_sec)
            except FileNotFoundError:
                pass  # the node was removed while it ran; there is nothing to say it of
            except BaseException as failure:
                problem = failure
            finally:
                self._let_go(ended=problem is None)
            return problem

    def end_before(
        self, outcome: Outcome, error: BaseException, config: dict[str, Any], duration_sec: float
    ) -> int:
        """Record how the attempt before this one ended, whose owner is dead and could not. This one's claim
        keeps all others from the node. Returns its number; 0 if there is no such attempt."""
        numbers = (n for kind, n in self.artifact.numbers() if kind == "try-" and n < self.number)
        number = max(numbers, default=0)
        found = self.artifact.read_attempt(number) if number else None
        if found is None or not isinstance(found.record, OwnerRecord):
            return 0
        self.write_ended(number, found.record, outcome, error, config, duration_sec)
        return number

    def write_ended(
        self,
        number: int,
        owner: OwnerRecord,
        outcome: Outcome,
        error: BaseException,
        config: dict[str, Any],
        duration_sec: float,
    ) -> None:
        """Put a record in the place of an attempt's link, if that still is the one it was. Raises
        `OSError`.
        """
        record = EndedRecord(
            format=FORMAT,
            node_class=self.artifact.node_class,
            hash=self.artifact.hash,
            attempt=number,
            outcome=outcome,
            error=describe_error(error),
            traceback=traceback_lines(error),
            config=config,
            started_at=time.time() - duration_sec,
            duration_sec=duration_sec,
            host=owner.host,
            pid=owner.pid,
        )
        self._replace(number, encode_ended(record))

    def _replace(self, number: int, content: bytes) -> None:
        """Replace an attempt's name in the directory in which this attempt's own name is."""
        files = self.artifact.files
        directory = Descriptor(os.open(files.directory, _DIRECTORY))
        if not self._is_ours(directory.number):
            return
        temporary = os.path.basename(files.temporary(number, self.nonce))
        write_new(temporary, content, sync=False, directory=directory.number)
        name = os.path.basename(files.attempt(number))
        try:
            os.replace(temporary, name, src_dir_fd=directory.number, dst_dir_fd=directory.number)
        except OSError:
            remove_name(temporary, directory.number)
            raise

    def close(self) -> None:
        """Free the attempt's name and the node, whatever state the attempt is in. In a fork of the process
        that made the attempt this does nothing."""
        if not self.is_of_this_process:
            return
        with self.steps:
            removed = False
            try:
                if self.owner is not None and self.number and (self._name_is_ours or self._is_ours()):
                    os.unlink(self.artifact.files.attempt(self.number))
                removed = True
            except FileNotFoundError:
                removed = True
            except OSError as error:
                logger.warning("could not remove %s: %s", self.state_path, error)
            finally:
                self._let_go(ended=removed)

    def forget(self) -> None:
        """End the attempt where its directory was renamed away: the name there may be another's by now."""
        with self.steps:
            self._let_go(ended=True)

    def _let_go(self, *, ended: bool) -> None:
        """Release the node in this process's memory. A name that could not be freed on disk is dead to all
        others once its owner ends, so the owner gets no new attempts."""
        self.state = State.OVER
        self._log = None
        owner, self.owner = self.owner, None
        self.process.leave(self, owner, retire=not ended)

    def _is_ours(self, directory: int | None = None) -> bool:
        """Whether the attempt's name is a link to its owner's file. Raises `OSError`."""
        path = self.artifact.files.attempt(self.number)
        try:
            name = path if directory is None else os.path.basename(path)
            info = os.lstat(name, dir_fd=directory)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return self.owner is not None and self.owner.is_linked_at(info)

    def _remove_files(self) -> None:
        if self._files is not None:
            shutil.rmtree(self.artifact.files.files(self.number, self.nonce), ignore_errors=True)


def running_attempt(artifact: Artifact) -> Attempt | None:
    """Return the attempt that runs at a node in this process, or in the one that it was forked from."""
    found = this_process().attempt_at(artifact.files.directory)
    return found if isinstance(found, Attempt) and found.nonce else None
