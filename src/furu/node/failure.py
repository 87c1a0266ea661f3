"""Errors for failed nodes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from furu._common.text import describe_error, sentence
from furu.errors import Failure, FuruComputeError, FuruError, FuruInProgressError, FuruTimeoutError
from furu.node.base import Node, artifact_of, configuration, describe
from furu.store.artifact import Artifact
from furu.store.attempt import Attempt
from furu.store.claim import claim

# How long a killed process may still hold its locks, and how often to check.
_DYING_SEC = 2.0
_DYING_POLL_SEC = 0.01


def compute_error(node: Node[Any], error: BaseException, state_path: Path) -> FuruComputeError:
    """Return the error for a failed node. The message names the node, the cause and the node's state file,
    and says what to do."""
    text = f"failed: {sentence(describe_error(error))} State: {state_path}. Run again to retry."
    failure = Failure(node, error, state_path, f"{describe(node)} {text}")
    return FuruComputeError(failure.message, node=node, state_path=state_path, failures=[failure])


def run_error(failures: Sequence[Failure]) -> FuruComputeError:
    """Return one error for all failures of a run. Its message is the first failure's, with the number of
    other failures."""
    first = failures[0]
    message = first.message
    if len(failures) > 1:
        others = len(failures) - 1
        message += f" {others} other node{'s' if others > 1 else ''} failed too: see the report."
    error = FuruComputeError(message, node=first.node, state_path=first.state_path, failures=failures)
    error.__cause__ = first.error
    return error


def timeout_error(node: Node[Any]) -> FuruTimeoutError:
    """Return the error for a node that exceeded its time limit."""
    limit = node._timeout_sec or 0.0
    return FuruTimeoutError(
        f"{describe(node)} took longer than its _timeout_sec of {limit:g} s", node=node, timeout_sec=limit
    )


def end_of_dead(
    node: Node[Any], outcome: Literal["failed", "cancelled"], error: BaseException, duration_sec: float
) -> FuruComputeError:
    """Return the error for a node whose process died. Also record the error in the store, if the process
    had an attempt at the node and no other process has claimed the node since."""
    artifact = artifact_of(node)
    state_path = Path(artifact.files.done)
    try:
        attempt = _claim_of_dead(artifact)
        if attempt is not None:
            try:
                number = attempt.end_before(outcome, error, configuration(node), duration_sec)
            finally:
                attempt.close()
            state_path = Path(artifact.files.attempt(number)) if number else state_path
    except (OSError, FuruError) as problem:  # the node was taken over, or a lease has not expired
        error.add_note(f"furu could not record this in {state_path}: {problem}")
    failure = compute_error(node, error, state_path)
    failure.__cause__ = error
    return failure


def _claim_of_dead(artifact: Artifact) -> Attempt | None:
    """Claim a node whose owner is dead or dying. A dying process may close its connection to the parent
    before it releases its locks, so this tries for a while."""
    deadline = time.monotonic() + _DYING_SEC
    while True:
        try:
            return claim(artifact)
        except FuruInProgressError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_DYING_POLL_SEC)
