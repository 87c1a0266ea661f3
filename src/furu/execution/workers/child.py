"""The child's side of `ProcessWorkers`: answers one request at a time until the connection ends.

The connection is a socket, which the child gets as its standard input. A message is its length in eight
bytes, and that many bytes:

    parent    how to import the program's main module      a node
    child                                        b""  None       b""  how it ended

With the empty message, the child begins a request. If a child dies before that it is replaced; if it dies
later, the node has failed.

A node's standard input is empty. Its output, and that of programs that it starts, goes to its attempt's
log; output between nodes goes to the parent's standard error.
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
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from furu._common.text import describe_error
from furu.execution.workers.remote import compute
from furu.node.compute import AROUND_CREATE
from furu.store.attempt import Attempt

LENGTH_BYTES = 8
# The largest size to ask of a socket at once: recv() allocates all of it.
RECEIVE_BYTES = 2**20


def is_preparing() -> bool:
    """Whether this is a child, of furu or multiprocessing, that is importing the program's modules."""
    return getattr(multiprocessing.process.current_process(), "_inheriting", False)


def main() -> None:
    """Serve until there are no more requests. The first one says how to import the parent's modules."""
    connection = _take_over_streams()
    # An interrupt that is sent to all processes is for the parent, which kills its children if necessary.
    signal.signal(signal.SIGINT, lambda *_: None)
    AROUND_CREATE.set(_around_create)
    pid = os.getpid()
    answer: Callable[[Any], object] = _prepare
    # The parent may die at any time. The current node is still published.
    with contextlib.suppress(ConnectionError):
        while (request := _receive(connection)) is not None:
            _send(connection, b"")
            reply = answer(pickle.loads(request))  # noqa: S301  # from the parent
            if os.getpid() != pid:
                _end_fork(None)
            _send(connection, pickle.dumps(reply, pickle.HIGHEST_PROTOCOL))
            answer = functools.partial(compute, importing=_importing)


def _take_over_streams() -> socket.socket:
    connection = socket.socket(fileno=os.dup(0))
    # A node's fork must not keep the connection open after this process has died. In a fork of the fork the
    # hook runs again, which is safe: a closed socket does not keep its number.
    os.register_at_fork(after_in_child=connection.close)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    for text in (sys.stdout, sys.stderr):
        if isinstance(text, io.TextIOWrapper):
            text.reconfigure(line_buffering=True)
    return connection


def _prepare(data: dict[str, Any]) -> str | None:
    """Import the parent's main module under another name, as multiprocessing does. Returns the error as
    text, if there is one."""
    try:
        with _importing():
            multiprocessing.spawn.prepare(data)
    except BaseException as error:  # also a SystemExit raised by the script
        return describe_error(error)
    return None


@contextlib.contextmanager
def _importing() -> Iterator[None]:
    """Refuse runs that a module starts while it is imported, as `multiprocessing` refuses processes: the
    children of such a run would import the module too, and so on without end."""
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
    """Redirect the standard streams to a file for a block. The block may close or replace them: it gets its
    own stream objects, and the descriptors are restored afterwards."""
    before = sys.stdout, sys.stderr
    _flush(*before)
    saved = {number: os.dup(number) for number in (1, 2)}
    streams = [
        io.TextIOWrapper(
            open(number, "wb", closefd=False),  # noqa: SIM115  # closing it closes nothing
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
        with contextlib.suppress(Exception):  # a node may have closed or replaced it
            stream.flush()


def _end_fork(error: BaseException | None) -> None:
    """End a fork of a node that has left the node's code. The attempt, its log and the connection belong to
    the parent of the fork."""
    code = 1
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        code = error.code or 0
    elif error is not None:
        traceback.print_exception(error)
    else:
        print("a process that was forked in _create() returned from it: it is ended", file=sys.stderr)
    _flush(sys.stdout, sys.stderr)
    os._exit(code & 0xFF)
