"""Nodes that are removed during a live attempt, and leftovers of many failures, processes and stores."""

from __future__ import annotations

import functools
import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from furu import Furu, FuruComputeError, Status, run_local, use_settings
from furu.node.base import artifact_of
from tests.faults.forks import Fork, Signal, another_machine, in_fork
from tests.store.processes import names, remove_by_hand, system_calls

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]

LEASE_SEC = 0.3
HEAD_START_SEC = 0.3
PARTS = ("part1", "part2")
# The name of this process, and the signals that block a node between its two files.
who = ""
at_the_gate: dict[str, Signal] = {}
gates: dict[str, Signal] = {}


def hold_up() -> None:
    """Signal that this process is in the middle of a node, and wait."""
    if who in gates:
        at_the_gate[who].say()
        gates[who].wait()


class Files(Furu[str]):
    """Its two files and its value name the process that computed it."""

    def _create(self) -> str:
        (self.furu_dir / PARTS[0]).write_text(who)
        hold_up()
        (self.furu_dir / PARTS[1]).write_text(who)
        return who

    def _load(self) -> str:
        return "".join(sorted({(self.furu_dir / part).read_text() for part in PARTS}))


class Json(Furu[str]):
    """Like `Files`, but with its value in the document."""

    def _create(self) -> str:
        (self.furu_dir / PARTS[0]).write_text(who)
        hold_up()
        (self.furu_dir / PARTS[1]).write_text(who)
        return who


class Pickled(Furu[object]):
    _codec = "pickle"

    def _create(self) -> object:
        self.logger.info("computing")
        hold_up()
        return who


class Plain(Furu[str]):
    """Has no files, so missing files cannot reveal that the node was removed."""

    def _create(self) -> str:
        hold_up()
        return who


class Fails(Furu[str]):
    """Fails after it was blocked."""

    def _create(self) -> str:
        hold_up()
        if who == "first":
            raise ValueError("bad split")
        return who


KINDS: list[type[Furu[Any]]] = [Files, Json, Pickled, Plain]


@pytest.fixture(autouse=True)
def gates_of_this_test() -> None:
    for name in ("first", "second"):
        at_the_gate[name], gates[name] = Signal(), Signal()


def compute(name: str, node: Furu[Any], *, machine: bool = False) -> Callable[[], object]:
    """Return a function that computes a node, and returns the node's value or the text of its error."""

    def go() -> object:
        global who
        who = name
        try:
            with use_settings(lease_sec=LEASE_SEC):
                if machine:
                    with another_machine(name):
                        return _run_and_get(node)
                return _run_and_get(node)
        except FuruComputeError as error:
            return repr(error.__cause__)

    return go


def _run_and_get(node: Furu[Any]) -> object:
    run_local([node], poll_interval_sec=0.02, progress=False)
    return node.get()


def remove_node(node: Furu[Any]) -> None:
    remove_by_hand(artifact_of(node))


def collect(node: Furu[Any]) -> None:
    """Run `furu gc` until the node's owner counts as dead and the node is removed."""
    from furu.cli.app import app

    with use_settings(lease_sec=LEASE_SEC):
        for _ in range(200):
            app(["gc", "--older-than", "0s", "--yes"], standalone_mode=False)
            if not any(map(os.path.lexists, artifact_of(node).files.all)):
                return
    raise AssertionError("gc did not remove it")


def whole(node: Furu[Any]) -> str:
    """Return the process that made the published artifact. Check that it made all files."""
    assert Status.DONE is node.status()
    value = node.get()
    if isinstance(node, Files | Json):
        assert {(node.furu_dir / part).read_text() for part in PARTS} == {value}
    return str(value)


@pytest.mark.parametrize("kind", KINDS)
def test_owner_whose_node_was_removed_and_computed_again_loads_the_new_value(kind: type[Furu[Any]]) -> None:
    """Another process has published the node while its first owner was computing."""
    node = kind()
    first = Fork(compute("first", node))
    at_the_gate["first"].wait()
    first.stop()
    remove_node(node)
    gates["second"].say()
    assert "second" == Fork(compute("second", node)).result()
    first.go_on()
    gates["first"].say()
    assert "second" == first.result()
    assert "second" == whole(node)


@pytest.mark.parametrize("kind", KINDS)
def test_paused_owner_of_another_machine_loads_the_winners_value(
    kind: type[Furu[Any]],
) -> None:
    """The lease of the owner has expired, and the winner has removed the owner's files."""
    node = kind()
    first = Fork(compute("first", node, machine=True))
    at_the_gate["first"].wait()
    first.stop()
    gates["second"].say()
    assert "second" == Fork(compute("second", node)).result()
    first.go_on()
    gates["first"].say()
    assert "second" == first.result()
    assert "second" == whole(node)


@pytest.mark.parametrize("remove", [remove_node, collect])
@pytest.mark.parametrize("kind", KINDS)
def test_owner_whose_node_was_removed_leaves_the_next_owners_attempt_alone(
    kind: type[Furu[Any]], remove: Callable[[Furu[Any]], None]
) -> None:
    """The first owner finishes while the second owner computes. One of them publishes."""
    node = kind()
    first = Fork(compute("first", node, machine=remove is collect))
    at_the_gate["first"].wait()
    first.stop()
    remove(node)
    second = Fork(compute("second", node))
    at_the_gate["second"].wait()
    first.go_on()
    gates["first"].say()
    first.ends_within(HEAD_START_SEC)  # it publishes if all files are its own, or waits for the second
    gates["second"].say()
    values = [second.result(), first.result()]
    winner = whole(node)
    assert winner in ("first", "second")
    assert set(values) == {winner}, values


def test_owner_whose_node_was_removed_does_not_fail_the_next_owners_attempt() -> None:
    """The failure belongs to the first attempt. The second attempt is still in progress."""
    node = Fails()
    first = Fork(compute("first", node))
    at_the_gate["first"].wait()
    first.stop()
    remove_node(node)
    second = Fork(compute("second", node))
    at_the_gate["second"].wait()
    first.go_on()
    gates["first"].say()
    assert "ValueError('bad split')" == first.result()
    assert Status.IN_PROGRESS is node.status()
    gates["second"].say()
    assert "second" == second.result()
    assert Status.DONE is node.status()


# ---- leftovers ----


class AlwaysFails(Furu[int]):
    way: str

    def _create(self) -> int:
        if self.way == "with files":
            (self.furu_dir / "part").write_text("x")
        if self.way == "with a log":
            self.logger.info("trying")
        if self.way == "cancelled":
            raise KeyboardInterrupt
        raise ValueError("bad split")


MOST_NAMES = 12


@pytest.mark.parametrize("way", ["plain", "with files", "with a log", "cancelled"])
def test_many_failures_of_a_node_leave_few_names_and_do_not_slow_down(way: str) -> None:
    node, costs = AlwaysFails(way=way), list[int]()
    for _ in range(60):
        with system_calls() as made, pytest.raises((FuruComputeError, KeyboardInterrupt)):
            node.get()
        costs.append(len(made))
    left = names(artifact_of(node))
    assert len(left) <= MOST_NAMES, left
    assert max(costs[-10:]) <= max(costs[5:15]) + 5, costs


class Number(Furu[int]):
    number: int

    def _create(self) -> int:
        return self.number


class Killed(Furu[int]):
    """Its process dies during the computation."""

    number: int

    def _create(self) -> int:
        if who == "victim":
            os.kill(os.getpid(), signal.SIGKILL)
        return self.number


@pytest.mark.parametrize("kind", [Number, Killed])
def test_files_of_killed_processes_do_not_accumulate_in_owners(kind: type[Furu[int]], store: Path) -> None:
    def die(number: int) -> None:
        global who
        who = "victim"
        kind(number=number).get()  # type: ignore[call-arg]
        os.kill(os.getpid(), signal.SIGKILL)

    for number in range(30):
        with pytest.raises(RuntimeError, match="without a word"):
            in_fork(functools.partial(die, number))
    in_fork(lambda: run_local([kind(number=number) for number in range(40)], progress=False).computed)  # type: ignore[call-arg]
    assert len(list((store / "owners").iterdir())) <= 5


@pytest.mark.parametrize("tidies_up", [False, True])
def test_four_hundred_stores_need_few_descriptors(tidies_up: bool, tmp_path: Path) -> None:
    """A store that is not in use needs no open descriptor, lock or heartbeat."""

    def use_many() -> tuple[int, int]:
        before = _descriptors()
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (before + 60, hard))
        for number in range(400):
            store = tmp_path / f"store{number}"
            with use_settings(store=store):
                assert number == Number(number=number).get()
            if tidies_up:
                shutil.rmtree(store)
        return 400, _descriptors() - before

    used, more = in_fork(use_many)
    assert 400 == used
    assert more < 10


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_four_hundred_stores_used_by_runs_need_few_descriptors(tmp_path: Path) -> None:
    def use_many() -> int:
        before = _descriptors()
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (before + 60, hard))
        for number in range(300):
            with use_settings(store=tmp_path / f"store{number}"):
                run_local([Number(number=number)], progress=False)
        return _descriptors() - before

    assert in_fork(use_many) < 30


def test_store_that_is_used_again_later_works(tmp_path: Path) -> None:
    """The owner may have ended, or the store may have been removed, in the meantime."""

    def use_many() -> list[int]:
        values = []
        for number in range(30):
            with use_settings(store=tmp_path / f"store{number % 3}"):
                values.append(Number(number=number).get())
            if number % 4 == 3:
                shutil.rmtree(tmp_path / f"store{number % 3}")
        return values

    assert list(range(30)) == in_fork(use_many)
