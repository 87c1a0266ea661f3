"""Steps that an interrupt must not split: `furu._common.steps`."""

from __future__ import annotations

import signal
import threading
from contextvars import ContextVar

import pytest

from furu._common.steps import hand_over, uninterrupted

VARIABLE: ContextVar[str] = ContextVar("variable", default="none")


def test_step_runs_to_its_end_if_its_caller_is_interrupted() -> None:
    """The next step runs after the step of the interrupted caller."""
    ended: list[str] = []

    def step() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        ended.append("step")

    with pytest.raises(KeyboardInterrupt):
        uninterrupted(step)
    uninterrupted(ended.append, "next")
    assert ["step", "next"] == ended


def test_step_has_the_context_of_its_caller() -> None:
    """The step sees, for example, the caller's settings."""
    token = VARIABLE.set("the caller's")
    try:
        step = hand_over(VARIABLE.get)
        assert "the caller's" == uninterrupted(VARIABLE.get) == step.wait()
    finally:
        VARIABLE.reset(token)


def test_error_of_a_step_is_raised_in_its_caller() -> None:
    """The next step runs as usual."""
    with pytest.raises(ZeroDivisionError):
        uninterrupted(divmod, 1, 0)
    assert (2, 1) == uninterrupted(divmod, 7, 3)
