"""The files of one attempt: the directory that a node writes to while it runs, with its log.

A fork of the process that made the attempt may use it too, except to close or remove it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from furu.store.artifact import Artifact
from furu.store.layout import LOG
from furu.store.leftovers import remove_if_empty, remove_strays
from furu.store.local import Process
from furu.store.owner import Descriptor

_LOG_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class AttemptFiles:
    """The directory of attempt `number`. Its name is unique, so any thread or fork of the node may make it.

    `are_made` is whether the directory was made, as far as this object knows.
    """

    __slots__ = ("_artifact", "_forks", "_log", "_nonce", "_number", "_process", "are_made")

    def __init__(self, artifact: Artifact, number: int, nonce: str, process: Process) -> None:
        self.are_made = False
        self._artifact = artifact
        self._number = number
        self._nonce = nonce
        self._process = process
        self._forks = process.forks
        self._log: Descriptor | None = None

    @property
    def path(self) -> str:
        """The path of the directory."""
        return self._artifact.files.files(self._number, self._nonce)

    @property
    def name(self) -> str:
        """The name of the directory."""
        return os.path.basename(self.path)

    def make(self) -> str:
        """Make the directory if necessary, and return its path. Raises `OSError`."""
        path = self.path
        if not self.are_made:
            self._make_node_directory()
            with contextlib.suppress(FileExistsError):
                os.mkdir(path)
            self.are_made = True
        return path

    def _make_node_directory(self) -> None:
        if self._number > 1:  # the attempt's own name is in it
            return
        try:
            os.mkdir(self._artifact.files.directory)
        except FileExistsError:
            if not self._process.is_parents:
                remove_strays(self._artifact)

    def refresh(self) -> None:
        """Check whether the directory exists, and set `are_made`.

        A fork may have created the directory, or the node may have removed it. Raises `OSError` if that
        cannot be determined.
        """
        if self.are_made or self._process.forks != self._forks:
            try:
                os.stat(self.path)
                self.are_made = True
            except FileNotFoundError:
                self.are_made = False

    def remove(self) -> None:
        """Remove the directory, if it was made."""
        if self.are_made:
            import shutil  # takes 2 ms to import, and few attempts lose their files

            shutil.rmtree(self.path, ignore_errors=True)
            if self._number == 1:  # or the attempt's own name is in it
                remove_if_empty(self._artifact.files.directory)

    # ---- the log ----

    def log(self, line: str) -> None:
        """Append one line to the log. Newlines in a message are indented, so they cannot forge a line."""
        content = "\n    | ".join(line.splitlines())
        log = self._open_log()  # keeps the descriptor open until the line is written
        os.write(log.number, (content + "\n").encode("utf-8", "backslashreplace"))

    @contextlib.contextmanager
    def log_descriptor(self) -> Iterator[int]:
        """Lend a descriptor of the log for a block. If the log is empty afterwards it is removed, with the
        directories above it that are then empty."""
        log = self._open_log()
        try:
            yield log.number
        finally:
            with contextlib.suppress(OSError):  # a node may have closed all descriptors
                if os.fstat(log.number).st_size == 0:
                    self._remove_log()

    def close(self) -> None:
        """Forget the log's descriptor. It is closed as soon as no thread uses it."""
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
            if self._number == 1:  # or the attempt's own name is in it
                remove_if_empty(self._artifact.files.directory)
