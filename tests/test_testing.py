"""`furu.testing`: a separate store for each test, graphs, and a check of declared dependencies."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from blockbuster import BlockBuster

from furu import File, Furu, FuruComputeError, FuruMissingArtifactError, Retry, current_settings, run_local
from furu.testing import Total, chain, check_declared, diamond, flat, from_edges, instant_retries


class Hidden(Furu[int]):
    """Gets another node, and declares this dependency only if `declares` is set."""

    secret: int
    declares: bool = dataclasses.field(default=False, compare=False)

    def _dependencies(self) -> Iterable[Furu[int]]:
        return [Total(name=str(self.secret))] if self.declares else []

    def _create(self) -> int:
        return Total(name=str(self.secret)).get()


class RunsAnother(Furu[int]):
    """Starts another run, which computes the node that `Hidden(secret=7)` gets."""

    def _create(self) -> int:
        return run_local([Total(name="7")]).computed


class Reaches(Furu[int]):
    """Gets a dependency of its dependency without declaring it."""

    top: Total

    def _create(self) -> int:
        return self.top.get() + self.top.below[0].get()


class Length(Furu[int]):
    """Reads an input file."""

    source: File

    def _create(self) -> int:
        return len(self.source.get().read_bytes())


class Waits(Furu[int]):
    """Computes on the event loop, and writes a file."""

    below: Total

    async def _create(self) -> int:
        Path(self.furu_dir, "left.txt").write_text("x")
        return await self.below.aget()


class After(Furu[str]):
    """Reads the file of its dependency."""

    waits: Waits

    def _create(self) -> str:
        return Path(self.waits.furu_dir, "left.txt").read_text()


def test_graphs_compute_the_expected_values() -> None:
    edges = from_edges([[], [0], [0, 1]])
    for node, value in [(chain(3), 3), (diamond(), 5), (edges[2], 4)]:
        run_local([node])
        assert value == node.get()
    assert 4 == len({node.furu_hash for node in flat(4)})


def test_node_that_declares_all_dependencies_passes(tmp_path: Path, no_blocking_calls: BlockBuster) -> None:
    no_blocking_calls.deactivate()
    (tmp_path / "in.txt").write_text("abc")
    check_declared(
        diamond(), Length(source=File(path=tmp_path / "in.txt")), After(waits=Waits(below=chain(2)))
    )


def test_undeclared_get_is_found_although_the_node_exists() -> None:
    """A run would not notice the undeclared node, because its artifact exists."""
    run_local([Total(name="7")])
    run_local([Hidden(secret=7)])
    with pytest.raises(FuruComputeError, match="_dependencies") as caught:
        check_declared(Hidden(secret=7))
    assert isinstance(caught.value.__cause__, FuruMissingArtifactError)
    check_declared(Hidden(secret=7, declares=True))


def test_dependencies_of_dependencies_must_be_declared() -> None:
    with pytest.raises(FuruComputeError) as caught:
        check_declared(Reaches(top=chain(2)))
    assert isinstance(caught.value.__cause__, FuruMissingArtifactError)


def test_check_sees_only_declared_nodes() -> None:
    """The check fails even if an earlier node has computed the undeclared node in a separate run."""
    for before in (Total(name="7"), RunsAnother()):
        with pytest.raises(FuruComputeError, match="_dependencies"):
            check_declared(before, Hidden(secret=7))


def test_check_of_many_nodes_holds_few_files_open() -> None:
    check_declared(*flat(2))
    before = len(os.listdir("/dev/fd"))
    check_declared(*flat(40), chain(20))
    assert len(os.listdir("/dev/fd")) <= before + 4


def test_check_leaves_the_store_alone(store: Path) -> None:
    check_declared(chain(2))
    assert not store.exists()


def test_plugin_gives_each_test_its_own_store(furu_store: Path) -> None:
    assert furu_store == current_settings().store
    run_local([chain(1)])
    assert furu_store.is_dir()


def test_instant_retries_have_no_delay() -> None:
    failures = [ConnectionError("busy")]

    class Flaky(Furu[int]):
        _retry = Retry(attempts=2, on=ConnectionError, delay_sec=3600)

        def _create(self) -> int:
            if failures:
                raise failures.pop()
            return 1

    with instant_retries():
        assert 1 == run_local([Flaky()]).retried
    assert 0.5 <= Retry(attempts=2, on=OSError).delay_after(1) <= 1.5
