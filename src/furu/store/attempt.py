"""One attempt at computing a node, from before its claim until after its release.

    NEW ──take──> HELD ──publish──> OVER      `done` exists, of this or of another attempt
     │              └────end──────> OVER      a record says how it ended
     └──────────────────────────────> OVER    ended before its claim

If a step is interrupted, `end` or `close` still frees the node: for this process, because its memory
forgets the attempt; for others, because the attempt's name is no longer a link to a live owner. `claim.py`
says how an attempt gets HELD.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import logging
import os
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
    """The state of an attempt."""

    NEW = enum.auto()
    HELD = enum.auto()
    OVER = enum.auto()


class Attempt:
    """One attempt at computing a node, used by the worker that computes it.

    A fork of the process that made the attempt may use `files_directory` and `log`, and nothing else.
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
        # Set before linking, so that an interrupted attempt knows which name may be its own.
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
        # Whether the attempt's name was just seen to be a link to its owner's file.
        self._name_is_ours = False
        # One step at a time: ending an attempt waits for the step that it interrupts.
        self.steps = threading.RLock()

    @property
    def directory(self) -> str:
        """The node's directory."""
        return self.artifact.files.directory

    @property
    def state_path(self) -> Path:
        """The file that holds the state of the attempt, or how it ended."""
        return Path(self.artifact.files.attempt(max(self.number, 1)))

    @property
    def is_of_this_process(self) -> bool:
        """Whether this process made the attempt, rather than a process that it was forked from."""
        return not self.process.is_parents

    @property
    def is_lost(self) -> bool:
        """Whether the attempt has lost its name, because the node was taken over or removed."""
        try:
            return self.state is State.HELD and not self._is_ours()
        except OSError:
            return False

    def held(self, owner: Owner, number: int, nonce: str) -> None:
        """Note that the attempt holds the node: its name is linked, and no other owner is there."""
        self.owner, self.number, self.nonce = owner, number, nonce
        self.started_at, self._started = time.time(), time.monotonic()
        self.state = State.HELD

    # ---- what a node writes while it runs ----

    def files_directory(self) -> str:
        """Return the directory for this attempt's files, which is made on first use.

        Its name is unique to this attempt, so any thread or fork of the node may make it.
        """
        directory = self.artifact.files.files(self.number, self.nonce)
        if self._files is None:
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory)
            self._files = os.path.basename(directory)
        return directory

    def log(self, line: str) -> None:
        """Append one line to the attempt's log. Newlines in a message are indented, so they cannot forge a
        line."""
        content = "\n    | ".join(line.splitlines())
        # Keeps the descriptor open until the line is written.
        log = self._open_log()
        if log is not None:
            os.write(log.number, (content + "\n").encode("utf-8", "backslashreplace"))

    @contextlib.contextmanager
    def log_descriptor(self) -> Iterator[int]:
        """Lend a descriptor of the attempt's log for a block. If the log is empty afterwards it is removed,
        and so is the attempt's directory if that is empty too."""
        log = self._open_log()
        assert log is not None  # noqa: S101  # the attempt is running
        try:
            yield log.number
        finally:
            with contextlib.suppress(OSError):  # a node may have closed all descriptors
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
            os.rmdir(directory)  # fails if the node has written files
            self._files = None

    def _has_files(self) -> bool:
        """Whether the attempt's directory exists: a fork may have made it, or the node removed it.

        Raises `OSError` if that cannot be determined.
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
        """Make the artifact visible, whole and once. Returns False if another attempt has published, or
        holds the node.

        Raises `FuruStoreError`; then nothing is published, and the attempt still holds the node.
        """
        if not self.is_of_this_process:  # `steps` may be locked by a thread that a fork does not have
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
            if not published:  # later, no process would know that these files are useless
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
                    sync_directory(files.directory)  # or `done` may survive without the directory's name
                # From here on by a descriptor, so that `done` is put beside its files even if the directory
                # is renamed.
                directory = Descriptor(os.open(files.directory, _DIRECTORY))
                temporary, done = os.path.basename(temporary), os.path.basename(done)
                if not stat.S_ISDIR(os.lstat(self._files, dir_fd=directory.number).st_mode):
                    return False
            where = directory.number if directory is not None else None
            # The temporary name is unique. While it exists, the directory is the one in which the attempt's
            # name was checked, so the name need not be checked again before it is removed.
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
            return False  # the node was taken over or removed
        if sync:
            self._sync_name()
        return published

    def _has_its_directory(self, descriptor: int) -> bool:
        """Whether the directory that `done` was put into still has its name: it may have been removed."""
        try:
            return os.path.samestat(os.stat(self.directory), os.fstat(descriptor))
        except FileNotFoundError:
            return False
        except OSError:  # `done` exists, so the node cannot fail any more
            return True

    def _sync_name(self) -> None:
        settings = self.artifact.settings
        try:
            sync_upwards(self.directory, settings.store, self.process.synced_above)
        except OSError as error:  # others may have read `done` already, so it stays
            logger.error(
                "%s is published, but may not survive a power cut: %s", self.artifact.files.done, error
            )

    def end(self, outcome: Outcome, error: BaseException, config: dict[str, Any]) -> BaseException | None:
        """Record how the attempt ended without publishing, and release the node in any case.

        If the record cannot be written, returns the reason: the node's own error is more important.
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
                pass  # the node was removed while it ran
            except BaseException as failure:
                problem = failure
            finally:
                self._let_go(ended=problem is None)
            return problem

    def end_before(
        self, outcome: Outcome, error: BaseException, config: dict[str, Any], duration_sec: float
    ) -> int:
        """Record the end of the previous attempt, whose owner is dead. This attempt holds the node. Returns
        the number of the previous attempt; 0 if there is none."""
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
        """Replace an attempt's link by a record, if the node is still held. Raises `OSError`."""
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
        """Replace an attempt's file in the directory that has this attempt's name."""
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
        """Free the attempt's name and the node, in any state. Does nothing in a fork of the process that
        made the attempt."""
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
        """End an attempt whose directory was renamed: the old name may belong to another attempt by now."""
        with self.steps:
            self._let_go(ended=True)

    def _let_go(self, *, ended: bool) -> None:
        """Release the node in this process's memory. If its name could not be freed on disk, the owner is
        retired: when it ends, the attempt is dead for all observers."""
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
            import shutil  # takes 2 ms to import, and few attempts lose their files

            shutil.rmtree(self.artifact.files.files(self.number, self.nonce), ignore_errors=True)


def running_attempt(artifact: Artifact) -> Attempt | None:
    """Return the attempt that is running at a node in this process, or in the process it was forked
    from."""
    found = this_process().attempt_at(artifact.files.directory)
    return found if isinstance(found, Attempt) and found.nonce else None
