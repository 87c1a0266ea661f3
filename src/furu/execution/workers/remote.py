"""Computes one node in another process: the request, the computation in that process, and the reply.

All kinds of workers in other processes use this module. They differ in how they transport requests and
replies.
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
from furu.store.artifact import FileId
from furu.store.record import MAX_TRACEBACK_CHARS


@dataclass(frozen=True, slots=True)
class Request:
    """A node to compute, as bytes, with the settings, the kind of worker, and the artifact to replace."""

    node: bytes
    key: str
    spec_key: str
    backend: str
    settings: Settings
    replaces: FileId | None = None


@dataclass(frozen=True, slots=True)
class SentError:
    """An exception as text, and pickled if possible."""

    pickled: bytes | None
    text: str
    traceback: str


@dataclass(frozen=True, slots=True)
class Reply:
    """How a request ended. `matches_retry` is True if the node's class retries the error. The process that
    raised the error decides this, because the error may not be picklable. Both `matches_retry` and
    `state_path` are None if the node could not be unpacked."""

    end: Literal["computed", "reused", "elsewhere", "failed", "cancelled"]
    duration_sec: float
    error: SentError | None = None
    state_path: Path | None = None
    matches_retry: bool | None = None


class RemoteTraceback(Exception):
    """The traceback of an error in another process. It is the `__cause__` of the error's copy here."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


def make_request(job: Job, backend: str) -> Request:
    """Pack a job's node with the current settings. Raises `FuruError` if the node cannot be packed, or has
    changed since its hash was computed."""
    refuse_changed(job.node)
    settings = current_settings()
    return Request(pack(job.node), job.key, job.spec_key, backend, settings, job.replaces)


def compute(
    request: Request, importing: Callable[[], AbstractContextManager[object]] = nullcontext
) -> Reply:
    """Compute the node of a request in this process. Raises no exception. `importing` returns a context
    manager, in which the node's modules are imported."""
    started = time.monotonic()
    # In a copy of the context, so that context variables that a node sets do not reach other nodes.
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
        job = make_job(node, Lane(False, request.spec_key), request.replaces)
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
        # An exception whose constructor needs more than its `args` can be pickled, but not unpickled.
        if type(unpack(pickled)) is not type(error):
            pickled = None
    except Exception:  # the methods of the error may raise any exception; the error is then sent as text
        pickled = None
    return SentError(pickled, text, trace)


def _received_error(sent: SentError) -> BaseException:
    error: BaseException | None = None
    if sent.pickled is not None:
        try:
            error = cast(BaseException, unpack(sent.pickled))
        except Exception as problem:  # its class cannot be imported here, for example: use the text
            sent = SentError(None, f"{sent.text} (cannot be unpickled here: {problem})", sent.traceback)
    if error is None:
        error = FuruError(sent.text)
    error.__cause__ = RemoteTraceback(sent.traceback)
    return error
