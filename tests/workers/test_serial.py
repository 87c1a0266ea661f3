"""When thread workers switch between serial and parallel mode, tested on numbers without threads."""

from __future__ import annotations

import pytest

from furu.execution.workers.serial import SerialPolicy, Usage

START = Usage(0.0, 0.0, 0.0, 0, 0.0, 0.0, 0.0)


def after(
    before: Usage,
    *,
    wall: float,
    process: float = 0.0,
    runner: float = 0.0,
    ended: int = 0,
    jobs_wall: float = 0.0,
    jobs_cpu: float = 0.0,
    create: float = 0.0,
) -> Usage:
    """Return the usage at a later moment. The arguments are the additions to it, in milliseconds."""
    more = (wall / 1e3, process / 1e3, runner / 1e3, ended, jobs_wall / 1e3, jobs_cpu / 1e3, create / 1e3)
    return Usage._make(a + b for a, b in zip(before, more, strict=True))


def in_parallel(policy: SerialPolicy, ended: int = 0) -> Usage:
    """Leave serial mode, and return the usage at that moment."""
    now = after(START, wall=1, ended=ended)
    policy.leave(now)
    return now


def test_serial_mode_continues_while_jobs_finish() -> None:
    policy, now = SerialPolicy(), START
    for _ in range(100):
        before, now = now, after(now, wall=2.5, ended=1)
        assert not policy.is_slow(before, now, is_late=False)


@pytest.mark.parametrize(
    ("process", "runner"), [(0.1, 0.1), (2.5, 2.5)], ids=["a job sleeps", "a job computes"]
)
def test_serial_mode_stops_when_no_job_finishes(process: float, runner: float) -> None:
    now = after(START, wall=2.5, process=process, runner=runner)
    assert SerialPolicy().is_slow(START, now, is_late=False)


def test_late_check_counts_half() -> None:
    policy, now = SerialPolicy(), after(START, wall=6)
    assert not policy.is_slow(START, now, is_late=True)
    assert policy.is_slow(now, after(now, wall=6), is_late=True)


def test_runner_that_waits_for_the_interpreter_gets_more_time() -> None:
    """Other threads compute instead. The runner may also be asleep, so the extra time is limited."""
    policy, now, looks = SerialPolicy(), START, 1
    while True:
        before, now = now, after(now, wall=2.5, process=2.4, runner=0.2)
        if policy.is_slow(before, now, is_late=False):
            break
        looks += 1
    assert looks == 8


def test_serial_mode_is_not_tried_again_before_enough_jobs_have_finished() -> None:
    policy = SerialPolicy(try_after=10)
    in_parallel(policy, ended=5)
    assert not policy.is_due(14)
    assert policy.is_due(15)


@pytest.mark.parametrize(
    ("usage", "why"),
    [
        ({"wall": 20, "jobs_wall": 400, "jobs_cpu": 60}, "they end at a pace of 0.2 ms"),
        ({"wall": 400, "jobs_wall": 20, "jobs_cpu": 10}, "each takes 0.2 ms by its own clock"),
        ({"wall": 100, "process": 105, "jobs_wall": 800, "jobs_cpu": 20}, "they fight for the interpreter"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_short_jobs_bring_serial_mode_back(usage: dict[str, float], why: str) -> None:
    policy = SerialPolicy()
    now = in_parallel(policy)
    assert policy.try_again(after(now, ended=100, **usage)), why
    assert policy.is_serial


@pytest.mark.parametrize(
    ("usage", "why"),
    [
        ({"wall": 700, "process": 50, "jobs_wall": 5000, "jobs_cpu": 20}, "they wait for something"),
        ({"wall": 100, "process": 190, "jobs_wall": 200, "jobs_cpu": 20}, "two cores are in use"),
        ({"wall": 300, "process": 310, "jobs_wall": 2000, "jobs_cpu": 290}, "each computes for 3 ms"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_jobs_stay_in_parallel_mode(usage: dict[str, float], why: str) -> None:
    policy = SerialPolicy()
    now = in_parallel(policy)
    assert not policy.try_again(after(now, ended=100, **usage)), why
    assert not policy.is_serial


def test_next_try_comes_later_after_a_failed_try_and_soon_after_a_good_one() -> None:
    """A try fails if serial mode is left again after a few jobs."""
    policy = SerialPolicy(try_after=10)
    now = in_parallel(policy)
    tries = []
    for lasted in (0, 0, 100, 0):
        ended = now.ended
        while not policy.is_due(ended):
            ended += 1
        tries.append(ended - now.ended)
        now = after(now, wall=0.1, ended=ended - now.ended)
        assert policy.try_again(now)
        now = after(now, wall=1, ended=lasted)
        policy.leave(now)
    assert [10, 20, 40, 10] == tries


# ---- jobs that may be faster in threads ----

WAITING = {"wall": 2.5, "process": 0.8, "runner": 0.7, "ended": 5}
HEAVY = {"wall": 2.5, "process": 2.5, "runner": 2.4, "create": 1.8, "ended": 5}


@pytest.mark.parametrize("usage", [WAITING, HEAVY], ids=["waits", "computes for 0.4 ms"])
def test_parallel_mode_is_tried_within_5_ms_if_threads_may_help(usage: dict[str, float]) -> None:
    assert SerialPolicy().is_slow(START, after(START, **usage), is_late=False)


@pytest.mark.parametrize(
    ("usage", "why"),
    [
        ({**HEAVY, "ended": 20}, "each computes for 0.1 ms"),
        ({**HEAVY, "create": 0.2}, "the store takes most of the time"),
        ({**HEAVY, "process": 2.4, "runner": 0.8}, "`_create` waits for the interpreter"),
        ({"wall": 2.5, "process": 2.4, "runner": 0.4, "ended": 5}, "the runner waits for the interpreter"),
        ({**WAITING, "ended": 1}, "one job is no sample"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_parallel_mode_is_not_tried_for_jobs_that_threads_cannot_help(
    usage: dict[str, float], why: str
) -> None:
    assert not SerialPolicy().is_slow(START, after(START, **usage), is_late=False), why


def tried(policy: SerialPolicy, before: Usage) -> Usage:
    """Leave serial mode while jobs finish every 0.5 ms, and return the usage at that moment."""
    now = after(before, **WAITING)
    assert policy.is_slow(before, now, is_late=False)
    policy.leave(now)
    return now


@pytest.mark.parametrize(("pace_ms", "is_serial"), [(0.2, False), (0.44, False), (0.46, True), (0.6, True)])
def test_mode_that_finishes_more_jobs_per_second_is_kept(pace_ms: float, is_serial: bool) -> None:
    """Parallel mode must finish a tenth more jobs per second."""
    policy = SerialPolicy()
    now = tried(policy, START)
    assert is_serial is policy.try_again(after(now, wall=64 * pace_ms, ended=64))
    assert is_serial is policy.is_serial


def test_comparison_without_gain_is_repeated_later_each_time() -> None:
    policy, now, compared_at = SerialPolicy(), START, []
    for _ in range(3):
        before, now = now, after(now, **WAITING)
        while not policy.is_slow(before, now, is_late=False):
            before, now = now, after(now, **WAITING)
        compared_at.append(now.ended)
        policy.leave(now)
        now = after(now, wall=64, ended=64)
        assert policy.try_again(now)
    first, second, third = compared_at
    assert second - first - 64 >= 128
    assert third - second - 64 >= 256


def test_rate_of_serial_mode_expires() -> None:
    """Later jobs may be so short that serial mode is faster for them."""
    policy = SerialPolicy()
    now = tried(policy, START)
    for _ in range(8):
        now = after(now, wall=64 * 0.2, ended=64)
        assert not policy.try_again(now)
    assert policy.try_again(after(now, wall=64 * 0.2, ended=64))
