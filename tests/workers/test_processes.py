"""Processes: what is sent to a child and back, and what happens if a child dies or is killed."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

import furu
from furu import (
    File,
    Furu,
    FuruComputeError,
    FuruTimeoutError,
    FuruUsageError,
    FuruWorkerError,
    Retry,
    Status,
    run_local,
    run_local_async,
    use_settings,
)
from furu.errors import FuruError
from furu.execution.workers import ProcessWorkers
from furu.execution.workers.transfer import pack, unpack
from furu.node.base import artifact_of
from furu.node.failure import end_of_dead
from tests.node.nodes import Holder
from tests.store.processes import OtherProcess
from tests.workers.nodes import Act, Gate, Late, Link


class Wants(Furu[int]):
    """Carries a value that does not count for the identity of the node."""

    value: Any = dataclasses.field(default=None, compare=False)
    name: str = ""

    def _create(self) -> int:
        return 1


class Stubborn(Act):
    """Is retried if its process dies."""

    _retry = Retry(attempts=2, on=FuruWorkerError, delay_sec=0)


def chain(length: int) -> Link:
    """0 <- 1 <- 2 ..."""
    node = Link(number=0)
    for number in range(1, length):
        node = Link(number=number, below=node)
    return node


def run_failing(*nodes: Furu[Any], **options: Any) -> FuruComputeError:
    """Run nodes in processes, and return the error of the run, which fails."""
    with pytest.raises(FuruComputeError) as caught:
        run_local(nodes, workers=ProcessWorkers(), max_workers=2, **options)
    return caught.value


def record_of(error: FuruComputeError) -> dict[str, Any]:
    """Read the record of the attempt that an error names."""
    assert error.state_path is not None
    found: dict[str, Any] = json.loads(error.state_path.read_text())
    return found


# ---- what is sent ----


def test_node_at_the_end_of_a_long_chain_is_sent_without_recursion() -> None:
    """The whole chain is sent with the node."""
    end = chain(10_000)
    assert sys.getrecursionlimit() <= 1000
    copy = unpack(pack(end))
    assert end == copy
    depth = 0
    while copy.below is not None:
        copy, depth = copy.below, depth + 1
    assert 9_999 == depth


def test_size_of_a_request_is_linear_in_the_number_of_nodes() -> None:
    short, long = len(pack(chain(100))), len(pack(chain(1_000)))
    assert long < 12 * short
    rung: Act = Act(does="sum")
    for number in range(200):
        rung = Act(does="sum", below=(Act(does=f"sum l{number}", below=(rung,)), rung))
    assert rung == unpack(pack(rung))


def test_long_chain_is_computed_in_a_child() -> None:
    """Only the last node runs in the child, because the others are DONE."""
    end = chain(2_000)
    run_local([end.below])  # type: ignore[list-item]
    assert 1 == run_local([end], workers=ProcessWorkers(), max_workers=1).computed


def test_sharing_and_sets_of_nodes_survive_the_transfer() -> None:
    shared = Wants(name="shared")
    node = Wants(value=[shared, {shared: frozenset({shared})}], name="top")
    copy = unpack(pack(node))
    inside, mapping = copy.value
    (key,) = mapping
    assert inside is key
    assert frozenset({inside}) == mapping[key]


def test_equal_nodes_with_different_uncounted_fields_stay_different() -> None:
    top = Wants(value=(Wants(value=1), Wants(value=2)))
    assert [1, 2] == [node.value for node in unpack(pack(top)).value]


def test_file_keeps_its_stamp(tmp_path: Path) -> None:
    """With the stamp, the child notices that the file has changed."""
    path = tmp_path / "data"
    path.write_text("old")
    content = pack(File(path=path))
    assert path == unpack(content).get()
    path.write_text("new text")
    with pytest.raises(FuruError, match="has changed since"):
        unpack(content).get()


def test_class_that_differs_in_the_child_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """With another `_version` the child would compute a different node."""
    content = pack(Wants(name="n"))
    monkeypatch.setattr(Wants, "_version", 2)
    with pytest.raises(FuruError, match="differs between this process"):
        unpack(content)


def test_value_that_cannot_be_pickled_is_the_nodes_error() -> None:
    """The error suggests threads instead."""
    error = run_failing(Wants(value=threading.Lock()))
    assert "Wants(" in str(error)
    assert "cannot be pickled" in str(error.__cause__)
    assert "threads" in str(error.__cause__)


def test_class_defined_in_a_function_is_the_nodes_error() -> None:

    class Local(Furu[int]):
        def _create(self) -> int:
            return 1

    error = run_failing(Local())
    assert "is defined in a function" in str(error)
    assert "threads" in str(error)
    assert Status.TODO == Local().status()


def test_modified_node_is_rejected() -> None:
    node = Holder(value=[1])
    node.value.append(2)
    with pytest.raises(FuruComputeError, match="was changed after it was made"):
        run_local([node], workers=ProcessWorkers())


def test_settings_are_sent_with_the_node(tmp_path: Path) -> None:
    """The child uses the settings of the `use_settings` block, not of its environment."""
    with use_settings(store=tmp_path / "other"):
        node = Act(does="context")
        run_local([node], workers=ProcessWorkers())
        assert str(tmp_path / "other") == node.get()[3]


# ---- what a node prints ----


def test_output_of_a_node_goes_to_its_log(capfd: pytest.CaptureFixture[str]) -> None:
    """The log has both streams, also of programs that the node starts."""
    node = Act(does="print")
    run_local([node], workers=ProcessWorkers())
    assert ["printed", "complained", "from a program"] == (node.furu_dir / "furu.log").read_text().split(
        "\n"
    )[:3]
    assert ("", "") == capfd.readouterr()


def test_node_that_prints_nothing_leaves_no_directory() -> None:
    node = Act(does="sum")
    run_local([node], workers=ProcessWorkers())
    assert not node.furu_dir.exists()


# ---- how a child dies ----


@pytest.mark.parametrize(
    ("how", "text", "exit_code"),
    [("exit", "exit code 3", 3), ("kill", "killed by SIGKILL (out of memory?)", -signal.SIGKILL)],
)
def test_death_of_a_child_is_its_nodes_failure_and_the_run_continues(
    how: str, text: str, exit_code: int
) -> None:
    """The store has the failed attempt and the node's output. The other nodes are computed."""
    node = Act(does=f"die {how}")
    error = run_failing(node, *(Act(does=f"sum {number}") for number in range(4)), on_failure="continue")
    assert isinstance(error.__cause__, FuruWorkerError)
    assert exit_code == error.__cause__.exit_code
    assert text in str(error)
    assert 4 == error.report.computed
    assert Status.FAILED == node.status()
    assert ("failed", 1) == (record_of(error)["outcome"], record_of(error)["attempt"])
    assert "last words\n" == (node.furu_dir / "furu.log").read_text()


def test_claim_of_an_owner_that_is_dying_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent can learn that a process has died before the locks of the process are released."""
    node = Act(does="nothing")
    with OtherProcess() as dying:
        dying.begin(artifact_of(node))
        monkeypatch.setattr(time, "sleep", lambda _: dying.die())
        error = end_of_dead(node, "failed", FuruWorkerError("it was killed", exit_code=-9), 0.1)
        assert Status.FAILED == node.status()
    assert [] == getattr(error.__cause__, "__notes__", [])


def test_node_of_a_dead_child_can_be_retried(tmp_path: Path) -> None:
    node = Stubborn(does="die_once", folder=tmp_path)
    report = run_local([node], workers=ProcessWorkers())
    assert (1, 1) == (report.computed, report.retried)
    assert "survived" == node.get()


def test_node_that_takes_too_long_is_killed(gate: Gate) -> None:
    """The store records the attempt as failed."""
    error = run_failing(Late(does="gate", folder=gate.folder))
    assert isinstance(error.__cause__, FuruTimeoutError)
    assert "failed" == record_of(error)["outcome"]
    assert Status.FAILED == error.node.status()


@pytest.mark.anyio
async def test_cancelled_run_kills_the_child_and_records_the_cancellation(gate: Gate) -> None:
    """The node is neither running nor failed, so the next run computes it."""
    node = Act(does="gate", folder=gate.folder)

    def owner() -> int:
        found: dict[str, Any] = json.loads(Path(artifact_of(node).files.attempt(1)).read_text())
        return int(found["pid"])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_in_processes, node)
        await gate.wait_for_arrival()
        pid = await anyio.to_thread.run_sync(owner)
        tasks.cancel_scope.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    record = await anyio.to_thread.run_sync(
        lambda: json.loads(Path(artifact_of(node).files.attempt(1)).read_text())
    )
    assert ("cancelled", pid) == (record["outcome"], record["pid"])
    assert Status.TODO == await anyio.to_thread.run_sync(node.status)
    gate.open()
    assert 1 == (await run_in_processes(node)).computed


async def run_in_processes(*nodes: Furu[Any]) -> furu.RunReport:
    return await run_local_async(nodes, workers=ProcessWorkers())


def test_children_leave_no_owner_and_no_process_behind(store: Path) -> None:
    nodes = [Act(does=f"pid {number}") for number in range(4)]
    run_local(nodes, workers=ProcessWorkers(), max_workers=2)
    for pid in {node.get() for node in nodes}:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert 1 == len(list((store / "owners").iterdir()))  # the owner file of this process


# ---- the program's main module ----

SCRIPT = """
import enum, os
from furu import Furu, FuruComputeError, run_local
from furu.execution.workers import ProcessWorkers

class Colour(enum.Enum):
    RED = "red"

class Paint(Furu[str]):
    colour: Colour = Colour.RED
    kind: type = Colour
    def _create(self) -> str:
        return f"{self.colour.value} {self.kind is Colour} {os.getpid()}"

class Broken(Furu[int]):
    def _create(self) -> int:
        raise OwnError("own")

class OwnError(Exception):
    pass

def main():
    print(run_local([Paint()], workers=ProcessWorkers()).computed, Paint().get().rpartition(" ")[0])
    assert str(os.getpid()) not in Paint().get()
    try:
        run_local([Broken()], workers=ProcessWorkers())
    except FuruComputeError as error:
        print(type(error.__cause__) is OwnError)
"""


def run_python(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a Python program in a folder, with furu on its path."""
    paths = [str(Path(furu.__file__).parent.parent), *(path for path in sys.path if path)]
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )


GUARDED = SCRIPT + '\nif __name__ == "__main__":\n    main()\n'


def test_nodes_of_a_script_are_computed_in_processes(tmp_path: Path) -> None:
    """The nodes use enums, types and exceptions that the script defines."""
    (tmp_path / "script.py").write_text(GUARDED)
    done = run_python("script.py", folder=tmp_path)
    assert ("1 red True\nTrue\n", "") == (done.stdout, done.stderr)


def test_nodes_of_a_module_run_with_m_are_computed_in_processes(tmp_path: Path) -> None:
    """The module uses relative imports."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "other.py").touch()
    (package / "program.py").write_text("from . import other\n" + GUARDED)
    done = run_python("-m", "package.program", folder=tmp_path)
    assert ("1 red True\nTrue\n", "") == (done.stdout, done.stderr)


def test_script_without_a_guard_is_an_error(tmp_path: Path) -> None:
    """Without the error, each child would start more children."""
    (tmp_path / "script.py").write_text(SCRIPT + "\nmain()\n")
    done = run_python("script.py", folder=tmp_path)
    assert 0 != done.returncode
    assert 'if __name__ == "__main__":' in done.stderr


def test_class_of_a_main_without_a_file_is_an_error(tmp_path: Path) -> None:
    """Notebooks have such a main module. The error suggests threads instead."""
    done = run_python("-c", SCRIPT + "\nmain()\n", folder=tmp_path)
    assert "a notebook?" in done.stderr
    assert "threads" in done.stderr


def test_ctrl_c_cancels_the_run_and_kills_its_children(tmp_path: Path) -> None:
    """Only the program receives the signal, because children have their own session."""
    (tmp_path / "script.py").write_text(
        textwrap.dedent(
            """
            import os, signal
            from furu import Furu, run_local
            from furu.execution.workers import ProcessWorkers
            from furu.node.base import artifact_of
            class Hangs(Furu[int]):
                def _create(self):
                    os.killpg(os.getpgid(os.getppid()), signal.SIGINT)
                    while True:
                        signal.pause()
            if __name__ == "__main__":
                try:
                    run_local([Hangs()], workers=ProcessWorkers())
                except KeyboardInterrupt:
                    print(Hangs().status(), artifact_of(Hangs()).read_attempt(1).record.outcome)
            """
        )
    )
    program = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        start_new_session=True,
        check=False,
    )
    assert "TODO cancelled\n" == program.stdout


# ---- bad input ----


@pytest.mark.parametrize("workers", [4, "processes", ProcessWorkers, object()])
def test_non_workers_are_rejected(workers: Any) -> None:
    with pytest.raises(TypeError, match=r"ThreadWorkers\(\), ProcessWorkers\(\) or DaskWorkers"):
        run_local([Act(does="sum")], workers=workers)
    assert Status.TODO == Act(does="sum").status()


def test_worker_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(FuruWorkerError("gone", exit_code=-9)))
    assert ("gone", -9) == (str(error), error.exit_code)
    assert not isinstance(error, FuruUsageError)
