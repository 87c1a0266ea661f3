"""The policy of serial mode: decides whether thread workers compute one job after another in one thread, or
several jobs in parallel.

Threads that compute tiny nodes compete for the interpreter's lock, and passing a job from the loop to a
thread and back takes longer than storing a tiny node. In serial mode, such nodes take a third of the time.
Slow nodes need parallel mode.

Nodes in between are faster in parallel if they wait, or compute without the interpreter's lock. So if the
runner waits, or its jobs compute for long, parallel mode is tried. It is kept if more jobs end per second.

The policy uses no clocks and no threads: the caller passes all measurements.
"""

from __future__ import annotations

from typing import NamedTuple

# While the runner waits for the interpreter's lock, the patience is multiplied by this number.
_MOST_STARVED = 8
# If the runner does not compute, but the process uses more than this share of a processor, another thread
# has the lock.
_BUSY = 0.7
# If the process uses fewer processors than this, its threads take turns with the lock, so that several
# threads are not faster than one. Jobs then wait for most of their time, so a short job may take longer.
_ONE_CORE = 1.5
_LONGER_BY_TURNS = 3
_MOST_TRY_AFTER = 4096
_MOST_WAIT = 16384
# Parallel mode is kept if its jobs per second are at least this many times those of serial mode.
_GAIN = 1.1
# The rate of serial mode is used for this many comparisons. After that, jobs may be of another kind.
_MOST_COMPARISONS = 8


class Usage(NamedTuple):
    """The time that a run has used so far, by several clocks, and the number of jobs that have ended.
    `jobs_cpu_sec` includes only jobs that ran in parallel mode. `create_sec` is the time in `_create`.
    """

    wall_sec: float
    process_cpu_sec: float
    runner_cpu_sec: float
    ended: int
    jobs_wall_sec: float
    jobs_cpu_sec: float
    create_sec: float


class SerialPolicy:
    """Decides between serial and parallel mode, and begins with serial mode.

    Serial mode ends if no job ends within `patience_sec`, if the runner waits for half of that time, or if
    `_create` computes for at least `heavy_sec` in an average job. After `try_after` jobs in parallel mode,
    serial mode is tried again if these jobs took less than `short_sec` each, or did not end at a higher
    rate than before. If serial mode soon ends again, the next try comes later.
    """

    def __init__(
        self,
        *,
        patience_sec: float = 0.0025,
        short_sec: float = 0.0005,
        heavy_sec: float = 0.0002,
        try_after: int = 64,
    ) -> None:
        self.patience_sec = patience_sec
        self.is_serial = True
        self._short_sec = short_sec
        self._heavy_sec = heavy_sec
        self._serial_rate: float | None = None  # jobs per second, while parallel mode is compared with it
        self._comparisons = 0
        self._may_gain_from = 0  # the number of jobs that must have ended before the next comparison
        self._wait = 2 * try_after  # jobs between comparisons; multiplied by 4 if there was no gain
        self._shortest_try_after = self._try_after = try_after
        self._since = Usage(0.0, 0.0, 0.0, 0, 0.0, 0.0, 0.0)
        self._quiet = 0  # how many checks in a row saw no job end
        self._seen_ended = 0

    def is_slow(self, before: Usage, now: Usage, *, is_late: bool) -> bool:
        """Whether to leave serial mode. Called every `patience_sec` while there are jobs.

        Args:
            before: The usage `patience_sec` ago.
            now: The current usage.
            is_late: Whether this check is late. In that case, the threads may not have run in time either.
        """
        if now.ended != self._seen_ended or now.ended != before.ended:
            self._seen_ended, self._quiet = now.ended, 0
            if now.ended != before.ended:
                return not is_late and self._may_gain(before, now)
        self._quiet += 1
        most = _MOST_STARVED if self._is_starved(before, now) else 1
        return self._quiet >= most + is_late

    def _may_gain(self, before: Usage, now: Usage) -> bool:
        """Whether to try parallel mode now, and compare its rate with the rate of serial mode."""
        ended, wall_sec = now.ended - before.ended, now.wall_sec - before.wall_sec
        if ended < 2 or now.ended < self._may_gain_from:
            return False
        runner_sec = now.runner_cpu_sec - before.runner_cpu_sec
        busy_sec = now.process_cpu_sec - before.process_cpu_sec
        waits = runner_sec < wall_sec / 2 and busy_sec < _BUSY * wall_sec
        # Only `_create` can be faster in threads: the rest of a job is furu's own work. If the runner waits
        # for the lock, it does so in `_create` too.
        create_sec = (now.create_sec - before.create_sec) * runner_sec / wall_sec
        if not waits and create_sec < ended * self._heavy_sec:
            return False
        self._serial_rate, self._comparisons = ended / wall_sec, 0
        return True

    def _is_starved(self, before: Usage, now: Usage) -> bool:
        """Whether the runner seems to wait for the interpreter's lock: it is not computing, but other
        threads are. A runner whose node sleeps looks the same."""
        wall_sec = now.wall_sec - before.wall_sec
        runner_sec = now.runner_cpu_sec - before.runner_cpu_sec
        busy_sec = now.process_cpu_sec - before.process_cpu_sec
        return runner_sec < wall_sec / 2 and busy_sec > _BUSY * wall_sec

    def leave(self, now: Usage) -> None:
        """Change to parallel mode."""
        if self.is_serial and now.ended - self._since.ended > self._shortest_try_after:
            self._try_after = self._shortest_try_after
        self.is_serial, self._since, self._quiet = False, now, 0

    def is_due(self, ended: int) -> bool:
        """Whether enough jobs have ended in parallel mode to call `try_again`."""
        return ended - self._since.ended >= self._try_after

    def try_again(self, now: Usage) -> bool:
        """Change to serial mode if the jobs since the last check were short, or did not end faster in
        parallel mode. Returns whether the mode changed."""
        since, self._since = self._since, now
        count = now.ended - since.ended
        wall_sec = now.wall_sec - since.wall_sec
        if self._serial_rate is not None:
            return self._compare(count / wall_sec, now.ended)
        short_sec = count * self._short_sec
        took_turns = _BUSY * wall_sec < now.process_cpu_sec - since.process_cpu_sec < _ONE_CORE * wall_sec
        self.is_serial = (
            wall_sec < short_sec
            or now.jobs_wall_sec - since.jobs_wall_sec < short_sec
            # While threads compete for the lock, the wall-clock time of a job is mostly waiting.
            or (took_turns and now.jobs_cpu_sec - since.jobs_cpu_sec < _LONGER_BY_TURNS * short_sec)
        )
        if self.is_serial:
            self._try_after = min(2 * self._try_after, _MOST_TRY_AFTER)
        return self.is_serial

    def _compare(self, rate: float, ended: int) -> bool:
        """Change to serial mode if parallel mode was not faster. Returns whether the mode changed."""
        assert self._serial_rate is not None  # noqa: S101  # checked by the caller
        self.is_serial = rate < _GAIN * self._serial_rate
        self._comparisons += 1
        if self.is_serial:
            self._may_gain_from = ended + self._wait
            self._wait = min(4 * self._wait, _MOST_WAIT)
        if self.is_serial or self._comparisons == _MOST_COMPARISONS:
            self._serial_rate = None
        return self.is_serial
