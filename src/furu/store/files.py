"""The files of one attempt: the directory that a node writes to while it runs, and the log in it.

A child that the node forks may write to the directory and the log, but must not close or remove them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from furu.store.artifact import Artifact, FileId
from furu.store.layout import LOG
from furu.store.leftovers import remove_checkpoints, remove_if_empty, remove_strays
from furu.store.local import Process
from furu.store.owner import Descriptor

_LOG_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class AttemptFiles:
    """The directory of attempt `number`. Its name is unique, so any thread or forked child may create it.

    `are_made` is True if this object knows that the directory exists.
    """

    __slots__ = (
        *("_artifact", "_forks", "_has_checkpoint", "_log", "_nonce", "_number", "_process"),
        "are_made",
    )

    def __init__(self, artifact: Artifact, number: int, nonce: str, process: Process) -> None:
        self.are_made = False
        self._artifact = artifact
        self._number = number
        self._nonce = nonce
        self._process = process
        self._forks = process.forks
        self._log: Descriptor | None = None
        self._has_checkpoint = False

    @property
    def path(self) -> str:
        """The path of the directory."""
        return self._artifact.files.files(self._number, self._nonce)

    @property
    def name(self) -> str:
        """The name of the directory."""
        return os.path.basename(self.path)

    def make(self) -> str:
        """Create the directory if necessary, and return its path. Raises `OSError`."""
        path = self.path
        if not self.are_made:
            self._make_node_directory()
            with contextlib.suppress(FileExistsError):
                os.mkdir(path)
            self.are_made = True
        return path

    def make_checkpoint(self, replaced: FileId | None) -> str:
        """Create the directory that outlives unfinished attempts if necessary, and return its path. Raises
        `OSError`."""
        path = self._artifact.files.checkpoint(replaced)
        if not self._has_checkpoint:
            self._make_node_directory()
            with contextlib.suppress(FileExistsError):
                os.mkdir(path)
            self._has_checkpoint = True
        return path

    def remove_checkpoint(self) -> None:
        """Remove the directory that outlives unfinished attempts, because this one is published."""
        if self._has_checkpoint or self._process.forks != self._forks:
            remove_checkpoints(self._artifact)
            if self._number == 1 and not self.are_made:
                remove_if_empty(self._artifact.files.directory)

    def _make_node_directory(self) -> None:
        if self._number > 1:  # the node's directory exists, because `try-<n>` is in it
            return
        try:
            os.mkdir(self._artifact.files.directory)
        except FileExistsError:
            if not self._process.is_parents:
                remove_strays(self._artifact)

    def refresh(self) -> None:
        """Check whether the directory exists, and set `are_made`.

        A forked child may have created the directory, or the node may have removed it. Raises `OSError` if
        the check fails.
        """
        if self.are_made or self._process.forks != self._forks:
            try:
                os.stat(self.path)
                self.are_made = True
            except FileNotFoundError:
                self.are_made = False

    def remove(self) -> None:
        """Remove the directory if it was created."""
        if self.are_made:
            import shutil  # imported late: it takes 2 ms, and few attempts need it

            shutil.rmtree(self.path, ignore_errors=True)
            if self._number == 1:  # a later attempt's `try-<n>` is in the node's directory
                remove_if_empty(self._artifact.files.directory)

    # ---- the log ----

    def log(self, line: str) -> None:
        """Append a message to the log. The second and later lines of the message are indented, so that they
        cannot pass for separate messages."""
        content = "\n    | ".join(line.splitlines())
        log = self._open_log()  # this reference keeps the descriptor open during the write
        os.write(log.number, (content + "\n").encode("utf-8", "backslashreplace"))

    @contextlib.contextmanager
    def log_descriptor(self) -> Iterator[int]:
        """Provide the log's descriptor inside a `with` block. If the log is empty after the block, it is
        removed, together with the directories above it that are then empty."""
        log = self._open_log()
        try:
            yield log.number
        finally:
            with contextlib.suppress(OSError):  # the node may have closed the descriptor
                if os.fstat(log.number).st_size == 0:
                    self._remove_log()

    def close(self) -> None:
        """Drop the log's descriptor. The descriptor itself is closed once no thread is using it."""
        self._log = None

    def _open_log(self) -> Descriptor:
        log = self._log
        if log is None:
            log = self._log = Descriptor(os.open(f"{self.make()}/{LOG}", _LOG_FLAGS, 0o666))
        return log

    def _remove_log(self) -> None:
        self._log = None
        with contextlib.suppress(OSError):
            os.unlink(f"{self.path}/{LOG}")
            os.rmdir(self.path)  # fails if the node has written files
            self.are_made = False
            if self._number == 1:  # a later attempt's `try-<n>` is in the node's directory
                remove_if_empty(self._artifact.files.directory)
