"""Computes one node in another process: the request, the computation there, and the reply.

Used by all kinds of workers in other processes, which differ in how they transport bytes.
"""

from __future__ import annotations

import contextvars
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from furu._common.text import describe_error
from furu.context import Cancellation
from furu.errors import FuruComputeError, FuruError, FuruInProgressError
from furu.execution.workers.base import Job, Lane, Outcome, make_job
from furu.execution.workers.call import call
from furu.execution.workers.transfer import pack, unpack
from furu.node.base import artifact_of
from furu.node.compute import refuse_changed
from furu.node.failure import compute_error
from furu.settings import Settings, current_settings, use_settings
from furu.store.record import MAX_TRACEBACK_CHARS


@dataclass(frozen=True, slots=True)
class Request:
    """A node to compute, with settings and the kind of worker."""

    node: bytes
    key: str
    spec_key: str
    backend: str
    settings: Settings


@dataclass(frozen=True, slots=True)
class SentError:
    """An exception as text, and pickled if possible."""

    pickled: bytes | None
    text: str
    traceback: str


@dataclass(frozen=True, slots=True)
class Reply:
    """How a request ended. `matches_retry` says whether the node's class retries the error; the child
    decides that, because the error may not be picklable. Both it and `state_path` are None if the request
    failed before there was a node."""

    end: Literal["computed", "reused", "elsewhere", "failed", "cancelled"]
    duration_sec: float
    error: SentError | None = None
    state_path: Path | None = None
    matches_retry: bool | None = None


class RemoteTraceback(Exception):
    """The traceback of an error from another process, as the cause of its copy here."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


def make_request(job: Job, backend: str) -> Request:
    """Pack a job's node with the current settings. Raises `FuruError` if it cannot be packed."""
    refuse_changed(job.node)
    return Request(pack(job.node), job.key, job.spec_key, backend, current_settings())


def compute(
    request: Request, importing: Callable[[], AbstractContextManager[object]] = nullcontext
) -> Reply:
    """Compute a node in this process. Raises nothing. `importing` is a context manager around the import of
    the node's modules."""
    started = time.monotonic()
    # In a copy of the context, so that no other node sees what this one sets.
    return contextvars.copy_context().run(_compute, request, importing, started)


def _compute(
    request: Request, importing: Callable[[], AbstractContextManager[object]], started: float
) -> Reply:
    with use_settings(request.settings):
        try:
            with importing():
                node = unpack(request.node)
        except BaseException as error:
            return Reply("failed", time.monotonic() - started, _send_error(error))
        job = make_job(node, Lane(False, request.spec_key))
        outcome = call(job, request.backend, Cancellation())
    raised: BaseException | None = outcome.error
    state_path = None
    if isinstance(outcome.error, FuruComputeError):
        failure = outcome.error.failures[0]
        raised, state_path = failure.error, failure.state_path
    sent = _send_error(raised) if raised is not None else None
    return Reply(outcome.end, outcome.duration_sec, sent, state_path, outcome.matches_retry)


def outcome_of(job: Job, reply: Reply) -> Outcome:
    """Turn a reply into the outcome of its job."""
    if reply.error is None:
        return Outcome(job, reply.end, reply.duration_sec)
    error = _received_error(reply.error)
    if reply.end == "elsewhere" and isinstance(error, FuruInProgressError):
        return Outcome(job, "elsewhere", reply.duration_sec, error)
    failure = compute_error(job.node, error, reply.state_path or Path(artifact_of(job.node).files.done))
    failure.__cause__ = error
    return Outcome(job, "failed", reply.duration_sec, failure, reply.matches_retry)


def _send_error(error: BaseException) -> SentError:
    text = describe_error(error)
    trace = "".join(traceback.format_exception(error))[-MAX_TRACEBACK_CHARS:]
    pickled: bytes | None
    try:
        pickled = pack(error)
        # If an exception's constructor needs more than its args, it can be pickled but not unpickled.
        if type(unpack(pickled)) is not type(error):
            pickled = None
    except Exception:  # anything that the exception's methods raise: it is sent as text
        pickled = None
    return SentError(pickled, text, trace)


def _received_error(sent: SentError) -> BaseException:
    error: BaseException | None = None
    if sent.pickled is not None:
        try:
            error = cast(BaseException, unpack(sent.pickled))
        except Exception as problem:  # its class is unknown here: use the text
            sent = SentError(None, f"{sent.text} (cannot be unpickled here: {problem})", sent.traceback)
    if error is None:
        error = FuruError(sent.text)
    error.__cause__ = RemoteTraceback(sent.traceback)
    return error
