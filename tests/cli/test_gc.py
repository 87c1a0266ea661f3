"""`furu gc` and `furu status` on a store that changes meanwhile or cannot be read completely."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import furu.cli.removing
from furu import Status, run_local
from furu.cli.app import app
from furu.errors import FuruStoreError
from furu.node.base import artifact_of
from furu.testing import Total, flat


def command(*arguments: str) -> Result:
    """Run the command in this process with captured output."""
    return CliRunner().invoke(app, arguments, prog_name="furu")


@pytest.fixture
def nodes() -> list[Total]:
    """Three nodes that are done."""
    nodes = flat(3)
    run_local(nodes, progress=False)
    return nodes


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Return a function that makes a directory impossible to list, even for root."""

    def forbid(path: Path) -> None:
        for name, closed in (("listdir", path), ("scandir", path), ("lstat", path)):
            allowed = getattr(os, name)

            def refuse(given: Any, *, before: Any = allowed, closed: Path = closed, **options: Any) -> Any:
                if str(given) == str(closed):
                    raise PermissionError(13, "Permission denied", str(given))
                return before(given, **options)

            monkeypatch.setattr(os, name, refuse)

    return forbid


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Return a function that makes gc run an action after listing nodes and before the first removal."""

    def happen(act: Callable[[], object]) -> None:
        before = furu.cli.removing.remove_left_over

        def act_first(settings: Any) -> None:
            act()
            before(settings)

        monkeypatch.setattr(furu.cli.removing, "remove_left_over", act_first)

    return happen


def directory_of(node: Total) -> Path:
    """Return the directory of a node's files."""
    return node.furu_dir.parent


def test_gc_names_a_node_that_cannot_be_listed_and_removes_the_others(
    nodes: list[Total], unreadable: Callable[[Path], None]
) -> None:
    """The exit code of the command is 1."""
    kept = directory_of(nodes[1])
    unreadable(kept)
    done = command("gc", "--older-than", "0s", "--yes")
    assert 1 == done.exit_code
    assert "removed 2 nodes\n" in done.stdout
    assert f"{nodes[1].furu_hash} was not removed: cannot list {kept}: Permission denied" in done.stderr
    assert Status.DONE is nodes[1].status()


def test_gc_names_a_node_that_cannot_be_removed_and_removes_the_others(
    nodes: list[Total], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has the reason."""
    remove = furu.cli.removing.remove

    def refuse_one(entry: Any) -> bool:
        if entry.hash == nodes[0].furu_hash:
            raise FuruStoreError("cannot rename it: Read-only file system")
        return remove(entry)

    monkeypatch.setattr(furu.cli.removing, "remove", refuse_one)
    done = command("gc", "--older-than", "0s", "--yes")
    assert 1 == done.exit_code
    assert "removed 2 nodes\n" in done.stdout
    assert f"{nodes[0].furu_hash} was not removed: cannot rename it: Read-only file system" in done.stderr
    assert Status.DONE is nodes[0].status()


def test_gc_names_a_class_that_cannot_be_listed(
    nodes: list[Total], store: Path, unreadable: Callable[[Path], None]
) -> None:
    unreadable(directory_of(nodes[0]).parent)
    for arguments in (["gc", "--older-than", "0s", "--yes"], ["status"]):
        done = command(*arguments)
        assert ": 0 nodes" in done.stdout
        assert f"cannot list {store}/furu.testing/Total: Permission denied" in done.stderr
    assert 1 == len(json.loads(command("status", "--json").stdout)["problems"])
    assert "cannot list" in command("show", nodes[0].furu_hash[:20]).stderr


def test_gc_keeps_a_node_that_changed_since_it_was_listed(
    nodes: list[Total], meanwhile: Callable[[Callable[[], object]], None]
) -> None:
    """Another process may have computed the node again in the meantime."""

    def compute_anew() -> None:
        artifact_of(nodes[2]).path.unlink()
        nodes[2].get()

    meanwhile(compute_anew)
    done = command("gc", "--older-than", "0s", "--yes")
    assert "removed 2 nodes; 1 are being computed, have changed, or were gone\n" in done.stdout
    assert 0 == done.exit_code
    assert nodes[2].exists()


def test_gc_skips_nodes_that_another_gc_has_removed(
    nodes: list[Total], meanwhile: Callable[[Callable[[], object]], None]
) -> None:
    inner: list[Result] = []

    def run_another() -> None:
        if not started:
            started.append(True)
            inner.append(command("gc", "--older-than", "0s", "--yes"))

    started: list[bool] = []
    meanwhile(run_another)
    done = command("gc", "--older-than", "0s", "--yes")
    assert "removed 3 nodes" in done.stdout + inner[0].stdout
    assert (0, 0) == (done.exit_code, inner[0].exit_code)


def test_gc_without_a_terminal_names_the_options_that_confirm(nodes: list[Total]) -> None:
    done = command("gc", "--older-than", "0s")
    assert 2 == done.exit_code
    said = " ".join(done.stderr.replace("│", "").split())
    assert "stdin is not a terminal: pass --yes to confirm or --dry-run to preview" in said
    assert all(node.exists() for node in nodes)
