"""One attempt at computing a node, from before its claim until after its release.

    NEW ──take──> HELD ──publish──> OVER      published, or the node was lost
     │              └────end──────> OVER      failed or cancelled, and recorded as such
     └─────────────close────────────> OVER    closed before it claimed its node

If a step is interrupted, `end` or `close` still frees the node. This process forgets the attempt, and for
other processes the attempt's name is no longer a link to a live owner. `claim.py` explains how an attempt
becomes HELD.
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
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import msgspec

from furu._common.origin import Origin
from furu._common.text import describe_error
from furu._common.version import __version__
from furu.provenance.fingerprint import Provenance
from furu.store.artifact import Artifact, FileId
from furu.store.files import AttemptFiles
from furu.store.layout import TRY
from furu.store.leftovers import remove_if_empty, remove_name, remove_superseded
from furu.store.local import Process, this_process
from furu.store.owner import Owner
from furu.store.record import (
    FORMAT,
    DoneRecord,
    EndedRecord,
    OwnerRecord,
    StoredAs,
    encode_done,
    encode_ended,
    link_new,
    store_failed,
    traceback_lines,
    write_new,
)
from furu.store.sync import sync_directory, sync_tree

logger = logging.getLogger("furu.store")

Outcome = Literal["failed", "cancelled"]

_UNKNOWN = Provenance(Origin(""))


class State(enum.Enum):
    """The state of an attempt."""

    NEW = enum.auto()
    HELD = enum.auto()
    OVER = enum.auto()


class Attempt:
    """One attempt at computing a node, used by the worker that computes the node.

    A forked child of the process that created the attempt may use only `files_directory` and `log`.
    """

    __slots__ = (
        "_files",
        "_name_is_ours",
        "_started",
        "artifact",
        "nonce",
        "number",
        "owner",
        "process",
        "replaced",
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
        # Set before linking, so that `close` can find the link if the attempt is interrupted.
        self.number = 0
        self.owner: Owner | None = None
        self.nonce = ""
        self.sequence = 0
        self.replaces = False
        # Identifies the artifact that stays readable until this attempt publishes, and is replaced then.
        self.replaced: FileId | None = None
        self.started_at = 0.0
        self._started = 0.0
        # Whether a check has just shown that the attempt's name is a link to its owner's file.
        self._name_is_ours = False
        # One step runs at a time: `end` and `close` wait until a step in another thread has finished.
        self.steps = threading.RLock()

    @property
    def node(self) -> str:
        """The path of the node's `done`. `Process` uses this path as the key of the node."""
        return self.artifact.files.done

    @property
    def state_path(self) -> Path:
        """The path of the attempt's `try-<n>`: a link to its owner, or the record of its outcome."""
        return Path(self.artifact.files.attempt(max(self.number, 1)))

    @property
    def is_of_this_process(self) -> bool:
        """Whether this process created the attempt. False in a child that was forked later."""
        return not self.process.is_parents

    @property
    def running_sec(self) -> float:
        """The time since the attempt was claimed."""
        return time.monotonic() - self._started

    @property
    def is_lost(self) -> bool:
        """Whether the attempt has lost its name, because the node was taken over or removed."""
        try:
            return self.state is State.HELD and not self._is_ours()
        except OSError:
            return False

    def held(self, owner: Owner, number: int, nonce: str) -> None:
        """Change the state to HELD: the attempt's name is linked, and no other attempt holds the node."""
        self._files = AttemptFiles(self.artifact, number, nonce, self.process)
        self.owner, self.number, self.nonce = owner, number, nonce
        self.started_at, self._started = time.time(), time.monotonic()
        self.state = State.HELD

    # ---- what a node writes while it runs ----

    def files_directory(self) -> str:
        """Return the directory for this attempt's files. The first call creates it."""
        return self._files.make()

    def checkpoint_directory(self) -> str:
        """Return the directory that this attempt keeps for the next one if it does not publish. The first
        call creates it."""
        return self._files.make_checkpoint(self.replaced)

    def log(self, line: str) -> None:
        """Append one line to the attempt's log, unless the attempt has ended."""
        if self.state is State.HELD:
            self._files.log(line)

    def log_descriptor(self) -> AbstractContextManager[int]:
        """Provide the log's descriptor inside a `with` block. See `AttemptFiles.log_descriptor`."""
        return self._files.log_descriptor()

    # ---- publishing, failing, releasing ----

    def publish(
        self,
        codec: StoredAs,
        result: bytes,
        config: dict[str, Any],
        provenance: Provenance = _UNKNOWN,
    ) -> bool:
        """Publish the artifact. Readers see the whole artifact or none, and a node is published only once.

        Returns False if nothing was published: another attempt has published or holds the node, the node
        was removed, this attempt is not HELD, or this process is a forked child.

        Raises `FuruStoreError` if the artifact cannot be written. Then nothing is published, and the
        attempt still holds the node.
        """
        if not self.is_of_this_process:  # in a child, a thread of the parent may hold `steps`
            return False
        with self.steps:
            if self.state is not State.HELD:
                return False
            had_files = self._files.are_made
            try:
                self._files.refresh()
                content = self._done_record(codec, result, config, provenance)
                if had_files and not self._files.are_made and codec != "json" and not self.is_lost:
                    raise FileNotFoundError(
                        errno.ENOENT, f"the node's files in {self._files.path} were removed"
                    )
                published = self._publish(content)
            except OSError as error:
                raise store_failed("publish", self.artifact.files.done, error) from error
            if not published:  # remove the files now: later, no process would know that they are useless
                self._files.remove()
            elif self.number > 1 or self.replaces:
                remove_superseded(self.artifact, self.number)
                self._name_is_ours = False
            if published:
                self._files.remove_checkpoint()
            self.close()
            return published

    def _done_record(
        self,
        codec: StoredAs,
        result: bytes,
        config: dict[str, Any],
        provenance: Provenance,
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
                duration_sec=self.running_sec,
                files=self._files.name if self._files.are_made else "",
                result=msgspec.Raw(result),
                source=provenance.origin.file,
                from_script=provenance.origin.is_script,
                code=provenance.code,
                commit=provenance.commit,
                python=provenance.python,
                furu=__version__,
                version=provenance.version,
                missing=provenance.missing,
            )
        )

    def _publish(self, content: bytes) -> bool:
        files, sync = self.artifact.files, self.artifact.settings.durability == "power"
        document = self._document()
        try:
            if self._files.are_made:
                if sync:  # otherwise `done` may survive a power cut without its files or their names
                    sync_tree(self._files.path)
                    sync_directory(files.directory)
                    self.process.directory_syncs.sync(files.class_directory, self.artifact.settings.store)
                # Write to `<hash>.d`, beside the files: if that directory is renamed, the link fails.
                document = files.temporary(self.number, self.nonce)
                if not stat.S_ISDIR(os.lstat(self._files.path).st_mode):
                    return False
            self._write(document, content, sync=sync)
            written = os.lstat(document) if self._files.are_made else None
            try:
                # If the document was linked, the attempt's name was ours just before, so `close` can remove
                # the name without checking again.
                published = self._name_is_ours = self._is_ours() and self._link(document)
            finally:
                remove_name(document)
            if published and written is not None:
                published = self._has_its_files(written)
        except FileNotFoundError:
            if self._is_ours() and not self.artifact.is_done():
                raise
            return False  # the node was taken over, removed, or published by another attempt
        if sync:
            self.process.directory_syncs.sync_published(files, self.artifact.settings.store)
        return published

    def _link(self, document: str) -> bool:
        """Give the document its final name. If the attempt replaces an artifact, the name leads to a whole
        artifact at any time. Returns False if another artifact has been published."""
        done = self.artifact.files.done
        if self.replaced is not None:
            current = self.artifact.look_at_done()[1]
            if current is not None:
                if current == self.replaced:
                    os.replace(document, done)
                return current == self.replaced
        return link_new(document, done)

    def _document(self) -> str:
        """Return the path at which a document is written before it gets its final name."""
        assert self.owner is not None  # noqa: S101  # the attempt is HELD
        return self.owner.document(self.sequence)

    def _write(self, document: str, content: bytes, *, sync: bool = False) -> None:
        try:
            write_new(document, content, sync=sync)
        except FileNotFoundError:
            if self._files.are_made or not self._is_ours():
                raise
            # Only the `owners` directory was removed: create it again.
            os.makedirs(os.path.dirname(document), exist_ok=True)
            write_new(document, content, sync=sync)

    def _has_its_files(self, written: os.stat_result) -> bool:
        """Whether the files of a published document still exist. If the node was removed meanwhile, the
        document is removed too. `written` is the stat result of the document."""
        done = self.artifact.files.done
        try:
            os.lstat(self._files.path)
        except FileNotFoundError:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(written, os.lstat(done)):
                    os.unlink(done)
            return False
        except OSError:  # `done` exists, so the node must not fail any more
            pass
        return True

    def end(self, outcome: Outcome, error: BaseException, config: dict[str, Any]) -> BaseException | None:
        """Record that the attempt failed or was cancelled, and release the node in any case.

        If the record cannot be written, returns that error instead of raising it, because the node's own
        error is more important.
        """
        if not self.is_of_this_process:
            return None
        with self.steps:
            if self.state is not State.HELD:
                self.close()
                return None
            assert self.owner is not None  # noqa: S101  # the attempt is HELD
            duration_sec = self.running_sec
            problem: BaseException | None = None
            try:
                self.write_ended(self.number, self.owner.record, outcome, error, config, duration_sec)
            except FileNotFoundError:
                pass  # the node was removed during the attempt
            except BaseException as failure:
                problem = failure
            finally:
                self._let_go(ended=problem is None)
            return problem

    def end_before(
        self, outcome: Outcome, error: BaseException, config: dict[str, Any], duration_sec: float
    ) -> int:
        """Record how the previous attempt ended, if its dead owner did not. This attempt must be HELD.

        Returns the number of the previous attempt, or 0 if there is nothing to record.
        """
        numbers = (n for kind, n in self.artifact.numbers() if kind == TRY and n < self.number)
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
        """Replace the link of attempt `number` with a record, if this attempt still holds the node. Raises
        `OSError`."""
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
        """Replace the file of attempt `number`, if this attempt still holds the node."""
        if not self._is_ours():
            return
        document = self._document()
        self._write(document, content)
        try:
            os.replace(document, self.artifact.files.attempt(number))
        except OSError:
            remove_name(document)
            raise

    def close(self) -> None:
        """Remove the attempt's name and release the node, in any state. Does nothing in a forked child."""
        if not self.is_of_this_process:
            return
        with self.steps:
            removed = False
            try:
                if self.owner is not None and self.number and (self._name_is_ours or self._is_ours()):
                    self._name_is_ours = False  # another attempt may take the name after this
                    os.unlink(self.artifact.files.attempt(self.number))
                    if self.number > 1 or self.replaces:
                        remove_if_empty(self.artifact.files.directory)
                removed = True
            except FileNotFoundError:
                removed = True
            except OSError as error:
                logger.warning("could not remove %s: %s", self.state_path, error)
            finally:
                self._let_go(ended=removed)

    def take_first_name(self) -> None:
        """Move the attempt to the name `try-1`, replacing any file there, so that the node's directory can
        be removed. The attempt must be HELD. Raises `OSError`."""
        if self.number > 1:
            assert self.owner is not None  # noqa: S101  # the attempt is HELD
            link = self._document()
            os.link(self.owner.path, link)
            os.replace(link, self.artifact.files.attempt(1))
            self.number = 1

    def _let_go(self, *, ended: bool) -> None:
        """Release the node in this process. If `ended` is False, the attempt's name is still on disk. Then
        the owner is retired: once the owner has ended, all processes see that the attempt is dead.

        The attempt is OVER only after that, so that `close` can repeat a release that failed.
        """
        if self.nonce:  # the attempt was HELD
            self._files.close()
        self.process.leave(self, self.owner, retire=not ended)
        self.state, self.owner = State.OVER, None

    def _is_ours(self) -> bool:
        """Whether the attempt's name is a link to its owner's file. Raises `OSError`."""
        try:
            info = os.lstat(self.artifact.files.attempt(self.number))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return self.owner is not None and self.owner.is_linked_at(info)


def running_attempt(artifact: Artifact) -> Attempt | None:
    """Return this process's running attempt at a node, or in a forked child, the parent's."""
    found = this_process().attempt_at(artifact.files.done)
    return found if isinstance(found, Attempt) and found.nonce else None
