"""When a node that failed is tried again in the same run. Waits for nothing itself."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass

from furu.errors import FuruUsageError

__all__ = ["INSTANT", "Retry"]

_MOST_DELAY_SEC = 60.0

# Whether retries wait for nothing in this context: for tests.
INSTANT: ContextVar[bool] = ContextVar("furu_instant_retries", default=False)


@dataclass(frozen=True, slots=True)
class Retry:
    """Retries nodes that raise one of some exceptions, after a delay that grows.

    Set it on a class: ``_retry = Retry(attempts=3, on=ConnectionError)``. Before attempt n + 1 a run waits
    `delay_sec` times `backoff` to the power of n - 1, at most `max_delay_sec` (exponential backoff). Each
    delay is made longer or shorter at random, by up to the fraction `jitter` of it, so that nodes that
    failed together are not retried together. A node that waits holds no worker. In tests,
    `furu.testing.instant_retries` removes the delays.

    Args:
        attempts: The largest number of attempts in one run, including the first.
        on: An exception class, or several: these and their subclasses are retried, all others fail at once.
        delay_sec: The delay before the second attempt, in seconds.
        backoff: The factor from one delay to the next.
        jitter: A fraction from 0 to 1.
        max_delay_sec: The longest delay in seconds, before jitter.

    Raises:
        FuruUsageError: A value is not allowed.
    """

    attempts: int
    on: type[Exception] | tuple[type[Exception], ...]
    delay_sec: float = 1.0
    backoff: float = 2.0
    jitter: float = 0.5
    max_delay_sec: float = _MOST_DELAY_SEC

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int) or self.attempts < 1:
            raise FuruUsageError(f"Retry.attempts must be an int of 1 or more, not {self.attempts!r}")
        kinds = tuple(self.on) if isinstance(self.on, Iterable) else (self.on,)
        object.__setattr__(self, "on", kinds)
        for kind in kinds:
            if not isinstance(kind, type) or not issubclass(kind, Exception):
                raise FuruUsageError(f"Retry.on must hold subclasses of Exception, not {kind!r}")
        if not kinds:
            raise FuruUsageError("Retry.on is empty: name the exceptions that are worth another attempt")
        self._check("delay_sec", 0, math.inf)
        self._check("backoff", 1, math.inf)
        self._check("jitter", 0, 1)
        self._check("max_delay_sec", 0, math.inf)

    def delay_after(self, attempt: int) -> float:
        """Return how many seconds to wait after attempt number `attempt`, counted from 1, has failed."""
        if INSTANT.get():
            return 0.0
        try:
            delay_sec = min(self.delay_sec * self.backoff ** (attempt - 1), self.max_delay_sec)
        except OverflowError:
            delay_sec = self.max_delay_sec
        return delay_sec * (1 + self.jitter * random.uniform(-1, 1))  # noqa: S311  # spreads load, no secret

    def _check(self, name: str, least: float, most: float) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            bounds = f"from {least} to {most}" if most < math.inf else f"of {least} or more"
            raise FuruUsageError(f"Retry.{name} must be a number {bounds}, not {value!r}")
        if not math.isfinite(value):
            raise FuruUsageError(f"Retry.{name} must be finite, not {value!r}")
