"""The child's side of `ProcessWorkers`: answers one request at a time until the connection is closed.

The connection is a socket, which the parent passes to the child as its standard input. A message consists
of its length, in eight bytes, and its content:

    parent    how to import the program's main module      a node
    child                                        b""  None       b""  ...  how it ended

The child sends the empty message when it begins a request, and an `Advance` whenever the node reports its
progress. If a child dies before that, the parent uses
another child. If it dies later, the node has failed.

A node's standard input is empty. The output of a node, and of programs that it starts, goes to the log of
its attempt. Output between nodes goes to the parent's standard error.
"""

from __future__ import annotations

import contextlib
import functools
import io
import multiprocessing.process
import multiprocessing.spawn
import os
import pickle
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from furu._common.text import describe_error
from furu.context import REPORT_ADVANCE, Advance
from furu.execution.workers.remote import compute
from furu.node.compute import AROUND_CREATE
from furu.store.attempt import Attempt

LENGTH_BYTES = 8
# The maximum number of bytes to request from a socket at once, because recv() allocates all of them.
RECEIVE_BYTES = 2**20


def is_preparing() -> bool:
    """Whether this process is a child, of furu or multiprocessing, that is importing the main module."""
    return getattr(multiprocessing.process.current_process(), "_inheriting", False)


def main() -> None:
    """Answer requests until the connection is closed. The first one imports the parent's main module."""
    connection = _take_over_streams()
    # Ignore interrupts, which may be sent to all processes: the parent kills its children if necessary.
    signal.signal(signal.SIGINT, lambda *_: None)
    AROUND_CREATE.set(_around_create)
    replies = _Replies(connection)
    REPORT_ADVANCE.set(replies.report)
    pid = os.getpid()
    answer: Callable[[Any], object] = _prepare
    # The parent may die at any time. The child still publishes the current node.
    with contextlib.suppress(ConnectionError):
        while (content := _receive(connection)) is not None:
            _send(connection, b"")
            request = pickle.loads(content)  # noqa: S301  # from the parent
            replies.key = getattr(request, "key", "")
            reply = answer(request)
            if os.getpid() != pid:
                _end_fork(None)
            replies.end(reply)
            answer = functools.partial(compute, importing=_importing)


class _Replies:
    """What the child sends to its parent. `key` is the hash of the node that is being computed. Reports of
    other nodes, from threads that they have left running, are dropped: they would come between two
    requests."""

    def __init__(self, connection: socket.socket) -> None:
        self.key = ""
        self._connection = connection
        self._pid = os.getpid()
        self._sending = threading.Lock()

    def report(self, key: str, advance: Advance) -> None:
        """Send how far a node is. Called in any thread."""
        if os.getpid() != self._pid:  # a process that the node has forked has no connection
            return
        content = pickle.dumps(advance, pickle.HIGHEST_PROTOCOL)
        with self._sending, contextlib.suppress(OSError):  # the parent has died
            if key == self.key:
                _send(self._connection, content)

    def end(self, reply: object) -> None:
        """Send how the request ended."""
        content = pickle.dumps(reply, pickle.HIGHEST_PROTOCOL)
        with self._sending:
            self.key = ""
            _send(self._connection, content)


def _take_over_streams() -> socket.socket:
    connection = socket.socket(fileno=os.dup(0))
    # If a node forks, the fork must not keep the connection open after this process has died. If the fork
    # forks too, the hook runs again. That is safe, because a socket can be closed twice.
    os.register_at_fork(after_in_child=connection.close)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    for text in (sys.stdout, sys.stderr):
        if isinstance(text, io.TextIOWrapper):
            text.reconfigure(line_buffering=True)
    return connection


def _prepare(data: dict[str, Any]) -> str | None:
    """Import the parent's main module under another name, as multiprocessing does. Returns the text of the
    error, or None."""
    try:
        with _importing():
            multiprocessing.spawn.prepare(data)
    except BaseException as error:  # a script may raise SystemExit
        return describe_error(error)
    return None


@contextlib.contextmanager
def _importing() -> Iterator[None]:
    """Reject runs that a module starts during its import, as `multiprocessing` rejects processes. The
    children of such a run would import the module too, and start further runs without end."""
    process: Any = multiprocessing.process.current_process()
    process._inheriting = True
    try:
        yield
    finally:
        del process._inheriting


def _receive(connection: socket.socket) -> bytes | None:
    head = _receive_exactly(connection, LENGTH_BYTES)
    return _receive_exactly(connection, int.from_bytes(head, "big")) if head is not None else None


def _receive_exactly(connection: socket.socket, count: int) -> bytes | None:
    content = bytearray()
    while len(content) < count:
        part = connection.recv(min(count - len(content), RECEIVE_BYTES))
        if not part:
            return None
        content += part
    return bytes(content)


def _send(connection: socket.socket, content: bytes) -> None:
    connection.sendall(len(content).to_bytes(LENGTH_BYTES, "big") + content)


# ---- around _create ----


@contextlib.contextmanager
def _around_create(attempt: Attempt) -> Iterator[None]:
    pid = os.getpid()
    with attempt.log_descriptor() as log, _printing_to(log):
        try:
            yield
        finally:
            if os.getpid() != pid:
                _end_fork(sys.exception())


@contextlib.contextmanager
def _printing_to(log: int) -> Iterator[None]:
    """Redirect standard output and standard error to a file in a block. The block may close or replace the
    streams, because it has its own stream objects. The descriptors are restored afterwards."""
    before = sys.stdout, sys.stderr
    _flush(*before)
    saved = {number: os.dup(number) for number in (1, 2)}
    streams = [
        io.TextIOWrapper(
            open(number, "wb", closefd=False),  # noqa: SIM115  # closing it leaves the descriptor open
            encoding="utf-8",
            errors="backslashreplace",
            line_buffering=True,
        )
        for number in saved
    ]
    try:
        for number in saved:
            os.dup2(log, number)
        sys.stdout, sys.stderr = streams
        yield
    finally:
        _flush(sys.stdout, sys.stderr, *streams)
        sys.stdout, sys.stderr = before
        for number, descriptor in saved.items():
            os.dup2(descriptor, number)
            os.close(descriptor)


def _flush(*streams: Any) -> None:
    for stream in streams:
        with contextlib.suppress(Exception):  # a node may have closed or replaced the stream
            stream.flush()


def _end_fork(error: BaseException | None) -> None:
    """End this process, which a node has forked and which has returned from the node's code. The attempt,
    its log and the connection belong to the process that called fork."""
    code = 1
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        code = error.code or 0
    elif error is not None:
        traceback.print_exception(error)
    else:
        print("a process that was forked in _create() returned from it: it is ended", file=sys.stderr)
    _flush(sys.stdout, sys.stderr)
    os._exit(code & 0xFF)
