"""Runs that reuse artifacts that were made by other code: they warn, ignore it, or compute them again."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import furu
from furu import FuruComputeError, ProcessWorkers, catalog, events, plan_local, run_local, use_settings

SOURCE = """
from furu import Furu
CALLS = []

def doubled(value):
    return 2 * value

class Data(Furu[int]):
    number: int
    def _create(self) -> int:
        CALLS.append(self.number)
        return doubled(self.number)

class Train(Furu[int]):
    data: Data
    def _create(self) -> int:
        return self.data.get() + 1

class Other(Furu[int]):
    number: int
    def _create(self) -> int:
        return -self.number
"""
CHANGED = SOURCE.replace("2 * value", "3 * value")

Import = Callable[[str], Any]


@pytest.fixture
def import_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Import]:
    """A function that writes a module, imports it as if it were new, and returns its names."""
    monkeypatch.syspath_prepend(str(tmp_path / "project"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "project").mkdir()

    def write(text: str) -> Any:
        sys.modules.pop("training", None)
        (tmp_path / "project" / "training.py").write_text(text)
        return __import__("training")

    with use_settings(store=tmp_path / "store"):
        yield write
    sys.modules.pop("training", None)


def trains(module: Any, count: int = 3) -> list[Any]:
    return [module.Train(data=module.Data(number=number)) for number in range(count)]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "furu.code"]


def test_run_warns_once_for_each_class_made_by_other_code(
    import_code: Import, caplog: pytest.LogCaptureFixture
) -> None:
    """Also for a class that is below the reused nodes. The values stay as they are."""
    first = import_code(SOURCE)
    run_local([*trains(first), first.Other(number=1)])
    second = import_code(CHANGED)
    seen: list[furu.Event] = []
    nodes = [*trains(second), second.Other(number=1)]
    report = run_local(nodes, on_event=seen.append)
    assert 0 == report.computed
    [message] = warnings(caplog)
    assert "artifacts of training:Data: at least 3 made by other code" in message
    assert "_version" in message
    assert 'on_code_change="recompute"' in message
    changes = [event.change for event in seen if isinstance(event, events.CodeChanged)]
    assert report.code_changes == tuple(changes)
    assert ["training:Data"] == [change.node_class for change in changes]
    assert "training:Data: at least 3 made by other code" in report.summary()
    assert [1, 3, 5] == [node.get() for node in nodes[:3]]
    run_local(nodes)
    assert 2 == len([one for one in warnings(caplog) if "training:Data" in one])


def test_same_code_does_not_warn(import_code: Import, caplog: pytest.LogCaptureFixture) -> None:
    """A module that is imported again, with other comments and another unused function."""
    run_local(trains(import_code(SOURCE)))
    run_local(trains(import_code(f"# comment\n{SOURCE}\ndef more():\n    return 3\n")))
    run_local(trains(import_code(SOURCE), 5))
    assert [] == warnings(caplog)


def test_artifacts_that_a_node_loads_are_all_compared(
    import_code: Import, caplog: pytest.LogCaptureFixture
) -> None:
    """The sample alone would not reach the node: it is neither among the first nor at a power of two."""
    first = import_code(SOURCE)
    run_local([first.Data(number=11)])
    second = import_code(CHANGED)
    numbers = [number for number in range(15) if number != 11]
    run_local([second.Data(number=number) for number in numbers])
    roots = [second.Data(number=number) for number in range(15)]
    run_local(roots)
    assert [] == warnings(caplog)
    run_local([*roots, second.Train(data=second.Data(number=11))])
    assert 1 == len(warnings(caplog))


def test_ignore_does_not_warn_and_is_a_setting_too(
    import_code: Import, caplog: pytest.LogCaptureFixture
) -> None:
    run_local(trains(import_code(SOURCE)))
    nodes = trains(import_code(CHANGED), 5)
    assert () == run_local(nodes, on_code_change="ignore").code_changes
    with use_settings(on_code_change="ignore"):
        assert () == plan_local(nodes).code_changes
        nodes[0].data.get()
    assert [] == warnings(caplog)


@pytest.mark.parametrize("workers", [None, ProcessWorkers()], ids=["threads", "processes"])
def test_recompute_computes_changed_nodes_and_their_dependents(
    import_code: Import, caplog: pytest.LogCaptureFixture, workers: Any
) -> None:
    """The roots are DONE, and their own code has not changed. Nodes of other classes are reused."""
    first = import_code(SOURCE)
    run_local([*trains(first), first.Other(number=1)])
    second = import_code(CHANGED)
    roots = [*trains(second), second.Other(number=1)]
    plan = plan_local(roots, on_code_change="recompute")
    assert {
        "training:Data": {"made by other code": 3},
        "training:Train": {"stale input": 3},
    } == plan.reasons
    report = run_local(roots, on_code_change="recompute", workers=workers, max_workers=1)
    assert (6, 1) == (report.computed, report.reused)
    assert [1, 4, 7] == [node.get() for node in roots[:3]]
    assert 0 == run_local(roots, on_code_change="recompute").computed
    assert [] == warnings(caplog)


def test_recompute_leaves_missing_dependencies_of_unchanged_nodes_alone(import_code: Import) -> None:
    """They are computed only below a node that is computed again."""
    first = import_code(SOURCE)
    nodes = trains(first)
    run_local(nodes)
    for node in nodes:
        node.data.furu_dir.parent.with_suffix("").unlink()
    assert 0 == run_local(nodes, on_code_change="recompute").computed
    second = import_code(SOURCE.replace("+ 1", "+ 2"))
    assert 6 == run_local(trains(second), on_code_change="recompute").computed


@pytest.mark.parametrize("window_size", ["dfs", "bfs", 2])
def test_recompute_computes_each_node_once_for_roots_from_a_generator(
    import_code: Import, window_size: Any
) -> None:
    """A node that the run has forgotten is not computed again for a later root."""
    first = import_code(SOURCE)
    run_local([*trains(first), *trains(first)])
    second = import_code(CHANGED)
    roots = (node for node in [*trains(second), *(node.data for node in trains(second)), *trains(second)])
    report = run_local(roots, window_size=window_size, on_code_change="recompute")
    assert 6 == report.computed
    assert [0, 1, 2] == sorted(second.CALLS)


def test_old_artifact_is_served_until_the_new_one_is_published(import_code: Import) -> None:
    first = import_code(SOURCE)
    first.Data(number=1).get()
    second = import_code(CHANGED)
    node = second.Data(number=1)
    seen: list[Any] = []

    def look(value: int) -> int:
        thread = threading.Thread(target=lambda: seen.append((first.Data(number=1).get(), node.status())))
        thread.start()
        thread.join()
        return 3 * value

    second.doubled = look
    report = run_local([node], on_code_change="recompute")
    assert 1 == report.computed
    assert [(2, "DONE")] == seen
    assert 3 == node.get()


def test_old_artifact_stays_if_the_new_computation_fails(import_code: Import) -> None:
    import_code(SOURCE).Data(number=1).get()
    node = import_code(SOURCE.replace("2 * value", "1 / 0")).Data(number=1)
    with pytest.raises(FuruComputeError, match="division by zero"):
        run_local([node], on_code_change="recompute")
    assert ("DONE", 2) == (node.status(), node.get())
    third = import_code(CHANGED).Data(number=1)
    assert 1 == run_local([third], on_code_change="recompute").computed
    assert 3 == third.get()


def test_two_runs_that_recompute_the_same_node_compute_it_once(import_code: Import) -> None:
    import_code(SOURCE).Data(number=1).get()
    second = import_code(CHANGED)
    begun, others = threading.Event(), SimpleNamespace(report=None)

    def slow(value: int) -> int:
        begun.set()
        assert waiting.wait(30)
        return 3 * value

    waiting = threading.Event()

    def note(event: furu.Event) -> None:
        if isinstance(event, events.NodeWaiting):
            waiting.set()

    def run_other() -> None:
        begun.wait(30)
        node = second.Data(number=1)
        others.report = run_local([node], on_code_change="recompute", on_event=note)

    second.doubled = slow
    with use_settings() as settings:

        def in_thread() -> None:
            with use_settings(settings):
                run_other()

        thread = threading.Thread(target=in_thread)
        thread.start()
        report = run_local([second.Data(number=1)], on_code_change="recompute")
        thread.join()
    assert (1, 0) == (report.computed, others.report.computed)
    assert [1] == second.CALLS


def test_plan_counts_every_artifact_of_other_code(import_code: Import) -> None:
    """Also those below the nodes that would be reused."""
    run_local(trains(import_code(SOURCE), 20))
    plan = plan_local(trains(import_code(CHANGED), 20))
    assert (0, 20) == (plan.to_compute, plan.reused)
    [change] = plan.code_changes
    assert ("training:Data", 20, 20, True) == (
        change.node_class,
        change.made_by_other_code,
        change.seen,
        change.is_exact,
    )
    assert "training:Data: 20 of 20 made by other code" in str(plan)


def test_interactive_get_warns_once_for_each_class(
    import_code: Import, caplog: pytest.LogCaptureFixture
) -> None:
    run_local(trains(import_code(SOURCE)))
    nodes = trains(import_code(CHANGED))
    assert [0, 2, 4] == [node.data.get() for node in nodes]
    [message] = warnings(caplog)
    assert "training:Data" in message


def test_commit_of_the_repository_is_recorded_and_named(
    import_code: Import, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    (tmp_path / ".git" / "refs" / "heads").mkdir(parents=True)
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / ".git" / "refs" / "heads" / "main").write_text(f"{commit}\n")
    node = import_code(SOURCE).Data(number=1)
    node.get()
    info = catalog.inspect(catalog.find(furu.current_settings(), node.furu_hash))
    assert info.made_by is not None
    assert commit[:12] == info.made_by.commit
    assert str(tmp_path / "project" / "training.py") == info.made_by.source
    run_local([import_code(CHANGED).Data(number=1)])
    assert f"(commit {commit[:12]})" in warnings(caplog)[0]


@pytest.mark.parametrize("value", ["always", "", 1])
def test_wrong_value_is_rejected(value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="on_code_change must be"):
        run_local([], on_code_change=value)
    with pytest.raises((TypeError, ValueError), match="on_code_change must be"):
        plan_local([], on_code_change=value)
