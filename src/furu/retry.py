"""When a node that failed is tried again in the same run. Waits for nothing itself."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass

from furu.errors import FuruUsageError

__all__ = ["Retry"]

_MOST_DELAY_SEC = 60.0


@dataclass(frozen=True, slots=True)
class Retry:
    """How often, and after what delay, a node is tried again that raised one of `on`.

    Set it on a class: ``_retry = Retry(attempts=3, on=(ConnectionError,), delay_sec=1)``. Exponential
    backoff: before attempt n + 1 a run waits `delay_sec` times `backoff` to the power of n - 1, at most
    `max_delay_sec`, and up to the fraction `jitter` of that longer or shorter, at random, so that nodes
    that failed together do not come back together. While it waits, the node holds no worker.

    Args:
        attempts: How many attempts one run makes at most, the first included.
        on: The exceptions, with their subclasses, that are worth another attempt; all others fail at once.
        delay_sec: The delay before the second attempt, in seconds.
        backoff: The factor from one delay to the next.
        jitter: A fraction from 0 to 1.
        max_delay_sec: The longest delay, before jitter.

    Raises:
        FuruUsageError: A value is not what it must be.
    """

    attempts: int
    on: tuple[type[Exception], ...]
    delay_sec: float = 0.0
    backoff: float = 2.0
    jitter: float = 0.0
    max_delay_sec: float = _MOST_DELAY_SEC

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int) or self.attempts < 1:
            raise FuruUsageError(f"Retry.attempts must be an int of 1 or more, not {self.attempts!r}")
        given = self.on if isinstance(self.on, Iterable) else (self.on,)
        object.__setattr__(self, "on", tuple(given))
        for kind in self.on:
            if not isinstance(kind, type) or not issubclass(kind, Exception):
                raise FuruUsageError(f"Retry.on must hold subclasses of Exception, not {kind!r}")
        if not self.on:
            raise FuruUsageError("Retry.on is empty: name the exceptions that are worth another attempt")
        self._check("delay_sec", 0, math.inf)
        self._check("backoff", 1, math.inf)
        self._check("jitter", 0, 1)
        self._check("max_delay_sec", 0, math.inf)

    def delay_after(self, attempt: int) -> float:
        """Return how many seconds to wait after attempt number `attempt`, counted from 1, has failed."""
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
