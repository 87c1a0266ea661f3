"""Retry: whether and when a run tries a failed node again."""

from __future__ import annotations

import random
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass

from furu._common.checks import check_int, check_number

__all__ = ["INSTANT", "Retry"]

_MOST_DELAY_SEC = 60.0

# Whether retries in this context have no delay. Only tests set this.
INSTANT: ContextVar[bool] = ContextVar("furu_instant_retries", default=False)


@dataclass(frozen=True, slots=True)
class Retry:
    """Retries nodes that raise certain exceptions, after increasing delays.

    Set it on a class: ``_retry = Retry(attempts=3, on=ConnectionError)``. Before attempt n + 1 a run waits
    `delay_sec` times `backoff` to the power of n - 1, at most `max_delay_sec` (exponential backoff). Each
    delay is randomly lengthened or shortened by up to the fraction `jitter`, so that nodes that failed
    together are not all retried at the same moment. A node does not occupy a worker during the delay. In
    tests, `furu.testing.instant_retries` removes the delays.

    Args:
        attempts: The maximum number of attempts in one run, including the first.
        on: An exception class, or several. They and their subclasses are retried; others are not.
        delay_sec: The delay before the second attempt, in seconds.
        backoff: The factor by which the delay grows with each attempt.
        jitter: The largest random change of a delay, as a fraction from 0 to 1.
        max_delay_sec: The maximum delay in seconds, before jitter.

    Raises:
        TypeError, ValueError: An argument is not allowed.
    """

    attempts: int
    on: type[Exception] | tuple[type[Exception], ...]
    delay_sec: float = 1.0
    backoff: float = 2.0
    jitter: float = 0.5
    max_delay_sec: float = _MOST_DELAY_SEC

    def __post_init__(self) -> None:
        kinds = tuple(self.on) if isinstance(self.on, Iterable) else (self.on,)
        object.__setattr__(self, "on", kinds)
        for kind in kinds:
            if not isinstance(kind, type) or not issubclass(kind, Exception):
                raise TypeError(f"Retry.on must hold subclasses of Exception, not {kind!r}")
        if not kinds:
            raise ValueError("Retry.on is empty: name the exceptions to retry")
        check_int("Retry.attempts", self.attempts, least=1)
        check_number("Retry.delay_sec", self.delay_sec, least=0)
        check_number("Retry.backoff", self.backoff, least=1)
        check_number("Retry.jitter", self.jitter, least=0, most=1)
        check_number("Retry.max_delay_sec", self.max_delay_sec, least=0)

    def delay_after(self, attempt: int) -> float:
        """Return the delay in seconds after failed attempt number `attempt`, counted from 1."""
        if INSTANT.get():
            return 0.0
        try:
            delay_sec = min(self.delay_sec * self.backoff ** (attempt - 1), self.max_delay_sec)
        except OverflowError:
            delay_sec = self.max_delay_sec
        return delay_sec * (1 + self.jitter * random.uniform(-1, 1))  # noqa: S311  # spreads load, no secret
