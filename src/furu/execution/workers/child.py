"""The child's side of `ProcessWorkers`: answers requests, one at a time, until its standard input ends.

A message is eight bytes that say how long it is, and that many bytes. Messages have descriptors of their
own: what a node reads is empty, and what it prints, by itself or from programs that it starts, goes to its
attempt's log; what is printed between nodes, to the parent's standard error.
"""

from __future__ import annotations

import contextlib
import functools
import io
import multiprocessing.spawn
import os
import pickle
import signal
import sys
from collections.abc import Iterator
from typing import IO, Any

from furu.core import AROUND_CREATE
from furu.execution.workers.remote import compute
from furu.store.attempt import Attempt
from furu.text import describe_error

LENGTH_BYTES = 8

# Whether this process is a child that imports the program's main module.
_is_preparing = False


def is_preparing() -> bool:
    """Whether this is a child that runs the program's main module only to have what it defines."""
    return _is_preparing


def main() -> None:
    """Serve until there are no more requests. The first message says how to have the parent's modules."""
    requests, replies = _take_over_streams()
    # Ctrl-C reaches every process of a terminal. The parent decides what it means, and kills.
    signal.signal(signal.SIGINT, lambda *_: None)
    AROUND_CREATE.set(_prints_to_log)
    preparation = _receive(requests)
    if preparation is None:
        return
    _send(replies, _prepare(pickle.loads(preparation)))  # noqa: S301  # from the parent
    while (request := _receive(requests)) is not None:
        _send(replies, compute(pickle.loads(request)))  # noqa: S301  # from the parent


def _take_over_streams() -> tuple[IO[bytes], IO[bytes]]:
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # A fork of a node's own must not keep the pipes open after this process has died.
    for stream in (requests, replies):
        os.register_at_fork(after_in_child=functools.partial(os.close, stream.fileno()))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    for text in (sys.stdout, sys.stderr):
        if isinstance(text, io.TextIOWrapper):
            text.reconfigure(line_buffering=True)
    return requests, replies


def _prepare(data: dict[str, Any]) -> str | None:
    """Import what the parent's main module defines, as multiprocessing does: it is run under another name.
    Returns what went wrong, if anything."""
    global _is_preparing
    _is_preparing = True
    try:
        multiprocessing.spawn.prepare(data)
    except BaseException as error:  # a SystemExit of the script's own, too
        return describe_error(error)
    finally:
        _is_preparing = False
    return None


def _receive(requests: IO[bytes]) -> bytes | None:
    head = requests.read(LENGTH_BYTES)
    return requests.read(int.from_bytes(head, "big")) if len(head) == LENGTH_BYTES else None


def _send(replies: IO[bytes], reply: object) -> None:
    content = pickle.dumps(reply, pickle.HIGHEST_PROTOCOL)
    replies.write(len(content).to_bytes(LENGTH_BYTES, "big") + content)
    replies.flush()


@contextlib.contextmanager
def _prints_to_log(attempt: Attempt) -> Iterator[None]:
    with attempt.log_descriptor() as log:
        _flush()
        saved = {number: os.dup(number) for number in (1, 2)}
        for number in saved:
            os.dup2(log, number)
        try:
            yield
        finally:
            _flush()
            for number, descriptor in saved.items():
                os.dup2(descriptor, number)
                os.close(descriptor)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a node may have closed or replaced it
            stream.flush()
