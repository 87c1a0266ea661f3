"""When thread workers compute serially, one job after another in one thread, and when in parallel.

Threads that compute tiny nodes fight for the interpreter's lock, and a hop from the loop to a thread and
back costs more than storing such a node does: serially they take a third of the time. Slow nodes need all
the threads that there are, at once.

Decides on numbers that its caller has measured; reads no clock and knows no threads.
"""

from __future__ import annotations

from typing import NamedTuple

# As long as the runner waits for the interpreter's lock, it is given this many times the patience.
_MOST_STARVED = 8
# The processor time of the process in a second, from which on some other thread must have had the lock.
_BUSY = 0.7
# Up to this much, more than one thread gains nothing: they take turns with the lock. Much of what a job
# then takes is the turns, so it counts as short up to so many times the usual limit.
_ONE_CORE = 1.5
_LONGER_BY_TURNS = 3
_MOST_TRY_AFTER = 4096


class Usage(NamedTuple):
    """What a run had used at one moment: seconds, each from some start of its own, and how many jobs had
    ended. `jobs_cpu_sec` counts only jobs that ran in parallel.
    """

    wall_sec: float
    process_cpu_sec: float
    runner_cpu_sec: float
    ended: int
    jobs_wall_sec: float
    jobs_cpu_sec: float


class SerialPolicy:
    """Decides between serial and parallel mode. Begins in serial mode.

    Serial mode is left when no job has ended within `patience_sec`. It is tried again once `try_after` jobs
    have ended in parallel mode of which each took less than `short_sec`; after a try that was in vain, the
    next comes later.
    """

    def __init__(
        self, *, patience_sec: float = 0.0025, short_sec: float = 0.0005, try_after: int = 64
    ) -> None:
        self.patience_sec = patience_sec
        self.is_serial = True
        self._short_sec = short_sec
        self._shortest_try_after = self._try_after = try_after
        self._since = Usage(0.0, 0.0, 0.0, 0, 0.0, 0.0)
        self._quiet = 0  # looks in a row at which no job had ended
        self._seen_ended = 0

    def is_slow(self, before: Usage, now: Usage, *, is_late: bool) -> bool:
        """Whether to leave serial mode. To be asked each `patience_sec` while there are jobs.

        Args:
            before: The usage at the last look.
            now: The usage now.
            is_late: Whether the loop itself has looked late, so that threads may not have had their turn.
        """
        if now.ended != self._seen_ended or now.ended != before.ended:
            self._seen_ended, self._quiet = now.ended, 0
            if now.ended != before.ended:
                return False
        self._quiet += 1
        most = _MOST_STARVED if self._is_starved(before, now) else 1
        return self._quiet >= most + is_late

    def _is_starved(self, before: Usage, now: Usage) -> bool:
        """Whether the runner would go on if it had the interpreter's lock: it is not computing, and others
        are. A node that sleeps looks the same while others compute."""
        wall_sec = now.wall_sec - before.wall_sec
        runner_sec = now.runner_cpu_sec - before.runner_cpu_sec
        busy_sec = now.process_cpu_sec - before.process_cpu_sec
        return runner_sec < wall_sec / 2 and busy_sec > _BUSY * wall_sec

    def leave(self, now: Usage) -> None:
        """Go on in parallel mode."""
        if self.is_serial and now.ended - self._since.ended > self._shortest_try_after:
            self._try_after = self._shortest_try_after
        self.is_serial, self._since, self._quiet = False, now, 0

    def is_due(self, ended: int) -> bool:
        """Whether so many jobs have ended in parallel mode that `try_again` is worth a look."""
        return ended - self._since.ended >= self._try_after

    def try_again(self, now: Usage) -> bool:
        """Go back to serial mode if the jobs since the last look were short; return whether they were."""
        since, self._since = self._since, now
        count = now.ended - since.ended
        wall_sec = now.wall_sec - since.wall_sec
        short_sec = count * self._short_sec
        took_turns = _BUSY * wall_sec < now.process_cpu_sec - since.process_cpu_sec < _ONE_CORE * wall_sec
        self.is_serial = (
            wall_sec < short_sec
            or now.jobs_wall_sec - since.jobs_wall_sec < short_sec
            # Where threads fight for the lock, neither their pace nor their own clocks say much.
            or (took_turns and now.jobs_cpu_sec - since.jobs_cpu_sec < _LONGER_BY_TURNS * short_sec)
        )
        if self.is_serial:
            self._try_after = min(2 * self._try_after, _MOST_TRY_AFTER)
        return self.is_serial
