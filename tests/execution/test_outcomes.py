"""Nodes that can do without others: they are computed although some of their inputs have failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import furu
from furu import (
    Furu,
    FuruComputeError,
    FuruMissingArtifactError,
    FuruUsageError,
    RunReport,
    catalog,
    current_settings,
    outcome,
    outcomes,
    plan_local,
    run_local,
)

COUNTS: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with five files, of which two are broken."""
    COUNTS.clear()
    for name, text in {"a": "1", "b": "x", "c": "3", "d": "y", "e": "5"}.items():
        (tmp_path / name).write_text(text)
    FOLDER.append(tmp_path)
    yield tmp_path
    FOLDER.clear()


FOLDER: list[Path] = []


class Names(Furu[list[str]]):
    def _create(self) -> list[str]:
        return ["a", "b", "c", "d", "e"]


class Read(Furu[int]):
    name: str

    def _create(self) -> int:
        COUNTS[self.name] += 1
        return int((FOLDER[0] / self.name).read_text())


class Twice(Furu[int]):
    """Depends on a node that may fail, so that it may be skipped."""

    read: Read

    def _create(self) -> int:
        COUNTS[f"twice {self.read.name}"] += 1
        return 2 * self.read.get()


class Total(Furu[int]):
    """
    Total -> Names, and then -> Twice -> Read for each name, as far as they do not fail
    """

    _partial = True
    names: Names = Names()

    def _parts(self) -> list[Twice]:
        return [Twice(read=Read(name=name)) for name in self.names.get()]

    def _dependencies(self) -> Iterable[Twice]:
        COUNTS["asked"] += 1
        outcomes(self._parts())
        return self._parts()

    def _create(self) -> int:
        COUNTS["total"] += 1
        return sum(one.value for one in outcomes(self._parts()) if one.is_done)


class Above(Furu[int]):
    total: Total = Total()

    def _create(self) -> int:
        COUNTS["above"] += 1
        return 10 + self.total.get()


def run_with_failures(*roots: Furu[Any], **options: Any) -> RunReport:
    with pytest.raises(FuruComputeError) as caught:
        run_local(roots, on_failure="continue", **options)
    assert caught.value.report is not None
    return caught.value.report


@pytest.mark.parametrize("window", ["dfs", "bfs", 1])
@pytest.mark.parametrize("max_workers", [1, 3])
def test_node_is_computed_from_what_has_succeeded(window: Any, max_workers: int) -> None:
    report = run_with_failures(Above(), window_size=window, max_workers=max_workers)
    assert (9, 2, 2) == (report.computed, report.failed, report.skipped)
    assert (18, 28) == (Total().get(), Above().get())
    assert 3 == COUNTS["asked"]  # for the names, for the parts, and then for nothing


def test_next_run_computes_exactly_what_was_mended(folder: Path) -> None:
    run_with_failures(Above())
    (folder / "b").write_text("2")
    COUNTS.clear()
    plan = plan_local([Above()])
    assert {"partial", "stale input"} <= {node.reason for node in plan.nodes}
    report = run_with_failures(Above())
    assert (4, 1) == (report.computed, report.failed)
    assert {"b": 1, "d": 1, "twice b": 1, "total": 1, "above": 1} == {
        name: count for name, count in COUNTS.items() if name != "asked"
    }
    assert (22, 32) == (Total().get(), Above().get())
    (folder / "d").write_text("4")
    COUNTS.clear()
    assert 4 == run_local([Above()]).computed
    assert (30, 40) == (Total().get(), Above().get())
    assert 0 == run_local([Above()]).computed


def test_partial_artifact_names_what_is_missing() -> None:
    run_with_failures(Total())
    info = catalog.inspect(next(catalog.walk(current_settings(), node_class=f"{__name__}:Total")))
    missing = {Twice(read=Read(name=name)).furu_hash for name in ("b", "d")}
    assert missing == set(info.missing)


def test_failure_stops_a_run_that_stops_at_failures() -> None:
    with pytest.raises(FuruComputeError):
        run_local([Total()], max_workers=1)
    assert not Total().exists()


class Whole(Total):
    """Does not say that it can do without some of its inputs."""

    _partial = False


def test_class_must_say_that_its_value_may_be_partial() -> None:
    report = run_with_failures(Whole())
    assert 3 == report.failed
    assert "Write _partial = True in the class" in report.failures[-1].message


def test_process_workers_see_the_same_outcomes() -> None:
    """They read the failures from the store."""
    report = run_with_failures(Divided(), workers=furu.ProcessWorkers(), max_workers=2)
    assert (3, 1) == (report.computed, report.failed)
    assert 6 == Divided().get()


class Quotient(Furu[int]):
    by: int

    def _create(self) -> int:
        return 4 // self.by


class Divided(Furu[int]):
    """The nodes that may fail are in a field."""

    _partial = True
    parts: tuple[Quotient, ...] = (Quotient(by=0), Quotient(by=1), Quotient(by=2))

    def _dependencies(self) -> Iterable[Quotient]:
        outcomes(self.parts)
        return ()

    def _create(self) -> int:
        return sum(one.value for one in outcomes(self.parts) if one.is_done)


def test_interactive_get_does_without_failures_too() -> None:
    assert 6 == Divided().get()


def test_outcome_in_interactive_code_computes_the_node() -> None:
    good, bad = outcome(Quotient(by=2)), outcome(Quotient(by=0))
    assert (True, 2, None) == (good.is_done, good.value, good.error)
    assert not bad.is_done
    with pytest.raises(FuruMissingArtifactError, match=r"has no value: .*ZeroDivisionError"):
        _ = bad.value


class Undeclared(Furu[int]):
    """Asks in its `_create` only."""

    _partial = True

    def _create(self) -> int:
        return len(outcomes([Quotient(by=3)]))


def test_outcome_that_no_run_has_tried_is_an_error() -> None:
    report = run_with_failures(Undeclared())
    assert "Call outcomes() in _dependencies(), too" in report.failures[0].message


def test_setting_must_be_a_bool() -> None:
    with pytest.raises(FuruUsageError, match="_partial must be True or False"):

        class Wrong(Furu[int]):
            _partial = "yes"  # type: ignore[assignment]
