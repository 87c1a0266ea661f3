"""Claimers of one node run their filesystem calls in many orders, with crashes at any call.

For two claimers, the long form tries every plan with one switch between them, and every single crash. Plans
with more switches, and plans for three claimers, are drawn at random. The number of switches is bounded,
because most concurrency faults need few (Musuvathi and Qadeer, "Iterative context bounding", 2007).

A plan that finds a fault is printed, and can be run again:

    explore(Scenario("cold", 2), [parse_plan("3>1 7x")])
"""

from __future__ import annotations

import itertools
import json
import os
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from furu import FuruInProgressError
from furu.store.artifact import Artifact
from furu.store.attempt import Attempt
from furu.store.claim import claim
from tests.faults import figures
from tests.faults.interleaver import Crashed, Interleaver, Plan, interleaver, parse_plan, write_plan
from tests.store.processes import (
    artifact,
    begin,
    done_document,
    fail,
    leave_attempt,
    publish,
    put,
    rejecting,
    result,
)

LONG = os.environ.get("FURU_FAULTS") == "long"
# The number of plans that are drawn of each kind, if the kind has more.
DRAWN = 250 if LONG else 6
FILE = 5000


def put_done(place: Artifact, value: str) -> None:
    put(place.files.done, done_document(place, result=value))


def rejected_and(number: int) -> Callable[[Artifact], None]:
    """Prepare a `done` to replace, and an attempt of a dead owner beside it."""

    def prepare(place: Artifact) -> None:
        put_done(place, "old")
        leave_attempt(place, number)

    return prepare


def rejected_and_failed(place: Artifact) -> None:
    """Prepare a `done` to replace, and the record of an earlier failure."""
    fail(begin(place))
    put(place.files.done, done_document(place, attempt=2, result="old"))


def died_replacing(place: Artifact) -> None:
    """Prepare a `done` that a dead owner has set aside."""
    for number in (1, 2):
        leave_attempt(place, number)
    put(place.files.rejected(2), done_document(place, result="old"))


PREPARE: dict[str, Callable[[Artifact], Any]] = {
    "cold": lambda place: os.makedirs(place.files.directory),
    "a dead owner's": leave_attempt,
    "failed": lambda place: fail(begin(place)),
    "died while replacing": died_replacing,
    "done and good": lambda place: put_done(place, "good"),
    "rejected": lambda place: put_done(place, "old"),
    "rejected, with a dead attempt": rejected_and(2),
    "rejected, with try-1": rejected_and(1),
    "rejected, with a failure's record": rejected_and_failed,
    "empty done": lambda place: put(place.files.done, b""),
}


# The states in which the first claimer replaces a `done`.
REPLACING = {state for state in PREPARE if state.startswith(("rejected", "empty"))}


@dataclass(frozen=True)
class Scenario:
    """The state of the disk, the number of claimers, whether the first claimer fails, and whether the other
    claimers may reject a `done` too. If `expired`, every lease has expired, so that live owners of other
    machines may be taken for dead."""

    state: str
    claimers: int = 2
    first_fails: bool = False
    all_judge: bool = True
    expired: bool = False


class Trial:
    """One node, its claimers and the problems that they caused."""

    def __init__(self, scenario: Scenario, name: str) -> None:
        self._scenario = scenario
        self.place = artifact(name)
        PREPARE[scenario.state](self.place)
        self._at_it: list[str] = []
        self._published: set[str] = set()
        self._plan: Plan = {}
        self.problems: list[str] = []

    def work(self, name: str, *, fails: bool = False, judges: bool = True) -> Callable[[], str]:
        """Return the function of one claimer, from its claim to its end."""

        def compute() -> str:
            rejects = rejecting(self.place) if judges else None
            try:
                attempt = claim(self.place, rejects)
            except FuruInProgressError:
                return "elsewhere"
            if attempt is None:
                return "there"
            self._at_it.append(name)
            try:
                return self._compute(attempt, name, fails)
            finally:
                self._at_it.remove(name)

        return compute

    def _compute(self, attempt: Attempt, name: str, fails: bool) -> str:
        if len(self._at_it) > 1 and not self._scenario.expired:
            self.problems.append(f"a live owner's claim was taken: {self._at_it} are at it")
        try:
            put(f"{attempt.files_directory()}/data", name * FILE)
        except FileNotFoundError:
            assert self._scenario.expired, "files of a live owner were removed"
        if fails:
            assert fail(attempt) is None
            return "failed"
        return "published" if publish(attempt, name) else "lost"

    def look(self) -> None:
        """Check that a DONE artifact is whole, and that a published artifact stays."""
        # A replacer that is taken for dead may set aside the artifact that the taker published. It puts the
        # artifact back, unless it crashes or is taken for dead again before that.
        may_replace = self._scenario.expired and self._scenario.state in REPLACING
        if not self.place.is_done():
            if self._published and not may_replace:
                self.problems.append(f"the artifact of {self._published} is gone")
            return
        document = json.loads(Path(self.place.files.done).read_bytes())
        value = document["result"]
        if value in ("old", "good"):
            if self._published and not may_replace:
                self.problems.append(f"the artifact of {self._published} became {value}")
            return
        self._published.add(value)
        if len(self._published) > 1 and not (may_replace and len(self._plan) > 1):
            self.problems.append(f"published twice: {self._published}")
        files = Path(self.place.files.directory, document["files"], "data")
        if not files.exists() or files.read_text() != value * FILE:
            self.problems.append(f"DONE and half: {files} of {value}")

    def run(self, between: Interleaver, plan: Plan) -> int:
        """Run the claimers by a plan, then a later claimer. Return the number of calls of the former."""
        self._plan = plan
        claimers = [
            self.work(
                f"{n}",
                fails=self._scenario.first_fails and n == 0,
                judges=self._scenario.all_judge or n == 0,
            )
            for n in range(self._scenario.claimers)
        ]
        made = between.run(claimers, plan, self.look)
        crashed = [one for one in made.results if isinstance(one, Crashed)]
        for one in made.results:
            if not isinstance(one, (str, Crashed)) or (one == "lost" and not self._scenario.expired):
                self.problems.append(f"a claimer ended with {one!r}")
        was_done = result(self.place) not in (None, "old")
        later = between.run([self.work("later")], {}, self.look)
        if ["there" if was_done else "published"] != later.results:
            self.problems.append(f"of {made.results}, with {len(crashed)} crashes, then {later.results}")
        between.let_die()
        return made.steps


def explore(scenario: Scenario, plans: Iterable[Plan]) -> int:
    """Run a scenario by each plan; return their number. A fault is an `AssertionError` with its plan."""
    count = 0
    with interleaver(expired=scenario.expired) as between:
        for plan in plans:
            trial = Trial(scenario, f"{scenario}{count}")
            trial.run(between, plan)
            count += 1
            figures.count(figures.TWICE, sum("twice" in one for one in trial.problems))
            figures.count(figures.TORN, sum("half" in one for one in trial.problems))
            assert [] == trial.problems, f"{scenario}, plan {write_plan(plan)!r}"
    return count


def count_steps(scenario: Scenario) -> int:
    with interleaver(expired=scenario.expired) as between:
        return Trial(scenario, f"{scenario} counted").run(between, {})


def plans_for_two(steps: int, draw: random.Random) -> list[dict[int, int | None]]:
    """Return plans with one switch, one crash, two switches, a switch and a crash, or up to three switches
    with a crash. Of each kind, return all plans or a random sample."""
    all_steps = range(1, steps + 1)
    changes = [{step: 1} for step in all_steps]
    twice = [{one: 1, two: 0} for one, two in itertools.combinations(all_steps, 2)]
    crashes: list[dict[int, int | None]] = [{step: None} for step in all_steps]
    change_and_crash = [{one: 1, two: None} for one in all_steps for two in all_steps if one != two]
    both = [
        {**draw.choice(twice), draw.choice(all_steps): None, draw.choice(all_steps): draw.choice((0, 1))}
        for _ in range(DRAWN)
    ]
    chosen: list[dict[int, int | None]] = [{}]
    for kind in (changes, crashes, twice, change_and_crash, both):
        chosen += kind if len(kind) <= DRAWN else draw.sample(kind, DRAWN)
    return chosen


def plans_drawn(claimers: int, steps: int, draw: random.Random) -> list[dict[int, int | None]]:
    """Return random plans with up to six switches and up to two crashes."""

    def one() -> dict[int, int | None]:
        plan: dict[int, int | None] = {
            draw.randint(1, steps): draw.randrange(claimers) for _ in range(draw.randint(1, 6))
        }
        return plan | {draw.randint(1, steps): None for _ in range(draw.randint(0, 2))}

    return [one() for _ in range(DRAWN)]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("expired", [False, True], ids=["one machine", "leases expired"])
@pytest.mark.parametrize("state", PREPARE)
def test_two_claimers_compute_a_node_once_in_any_order_with_a_crash_anywhere(
    state: str, expired: bool
) -> None:
    """At most one claimer publishes. DONE artifacts are whole and stay. A later claimer always succeeds."""
    draw = random.Random(state)
    count = 0
    for first_fails, all_judge in ((False, True), (True, True), (False, False)):
        scenario = Scenario(state, first_fails=first_fails, all_judge=all_judge, expired=expired)
        count += explore(scenario, plans_for_two(count_steps(scenario), draw))
    figures.count("schedules of two claimers", count)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("expired", [False, True], ids=["one machine", "leases expired"])
@pytest.mark.parametrize("state", PREPARE)
def test_three_claimers_compute_a_node_once_in_drawn_orders(state: str, expired: bool) -> None:
    """The guarantees are those for two claimers. The orders are a random sample."""
    scenario = Scenario(state, 3, expired=expired)
    plans = plans_drawn(3, count_steps(scenario), random.Random(state))
    figures.count("schedules of three claimers", explore(scenario, plans))


def test_plan_that_found_a_fault_can_be_repeated() -> None:
    """A plan is written as text, which can be parsed."""
    assert {3: 1, 7: None, 9: 0} == parse_plan("3>1 7x 9>0")
    assert "3>1 7x 9>0" == write_plan({9: 0, 3: 1, 7: None})
