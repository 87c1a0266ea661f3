"""Inspecting a store: its nodes are found, and hostile files in it do no harm."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from furu import Furu, FuruComputeError, FuruStoreError, Status, current_settings, run_local
from furu._common.text import printable
from furu.store import catalog
from furu.store.artifact import Artifact
from tests.graphs import Node, actions, diamond, recording
from tests.store.processes import put


class Talker(Furu[int]):
    """Writes a line to its log, and fails if `fails` is set."""

    fails: bool = False

    def _create(self) -> int:
        self.logger.info("about to")
        if self.fails:
            raise ValueError("\x1b[2Jno")
        return 7


def entries() -> list[Artifact]:
    """Return all nodes in the test's store."""
    return list(catalog.walk(current_settings()))


def info(node: Furu[int]) -> catalog.NodeInfo:
    """Return everything that the store knows about a node."""
    return catalog.inspect(catalog.find(current_settings(), node.furu_hash))


def test_missing_store_is_empty() -> None:
    assert [] == entries()


def test_walk_finds_every_node_with_its_state() -> None:
    """The nodes are sorted by class, then by hash."""
    with recording():
        run_local([diamond()])
        actions["bad"] = lambda: 1 / 0
        with pytest.raises(FuruComputeError):
            run_local([Node(name="bad")])
    assert ["DONE"] * 4 + ["FAILED"] == sorted(entry.status() for entry in entries())
    assert {"tests.graphs:Node"} == {node.node_class for node in entries()}
    assert [entry.hash for entry in entries()] == sorted(entry.hash for entry in entries())


def test_information_about_a_published_node_is_complete() -> None:
    """The information has the configuration, the attempt, the duration, and the hashes of dependencies."""
    with recording():
        top = diamond()
        run_local([top])
    found = info(top)
    assert Status.DONE is found.status
    assert found.config is not None
    assert "top" == found.config["name"]
    assert tuple(node.furu_hash for node in top.below) == found.depends_on
    assert [("published", 1)] == [(one.state, one.number) for one in found.attempts]
    assert b"5" == found.result
    assert found.duration_sec is not None
    record = catalog.read_small(found.artifact)
    assert record is not None
    assert found.duration_sec == record.duration_sec
    assert catalog.size_bytes(found.artifact) > 100


def test_information_about_a_failed_node_is_complete() -> None:
    """The information has the owner, the traceback and the log of the attempt."""
    node = Talker(fails=True)
    with pytest.raises(FuruComputeError):
        run_local([node])
    found = info(node)
    (attempt,) = found.attempts
    assert (Status.FAILED, "failed") == (found.status, attempt.state)
    assert f"pid {os.getpid()} on " in attempt.owner
    assert "raise ValueError" in "\n".join(attempt.traceback)
    log = catalog.read_log(found.artifact, attempt.number)
    assert log is not None
    assert log.text.endswith("INFO about to\n")


def test_only_the_end_of_a_long_log_is_read() -> None:
    node = Talker()
    run_local([node])
    log = catalog.read_log(info(node).artifact, 1, max_bytes=3)
    assert log is not None
    assert "to\n" == log.text
    assert log.left_out_bytes > 10


def test_node_is_found_by_a_unique_prefix() -> None:
    """If the prefix is not unique, the error asks for more digits."""
    with recording():
        nodes = [Node(name=f"n{number}") for number in range(17)]
        run_local(nodes)
    for node in nodes:
        assert node.furu_hash == catalog.find(current_settings(), node.furu_hash[:20].upper()).hash
    first = next(digit for digit in "0123456789abcdef" if sum(n.furu_hash[0] == digit for n in nodes) > 1)
    with pytest.raises(FuruStoreError, match="Give more digits"):
        catalog.find(current_settings(), first)
    with pytest.raises(FuruStoreError, match="no node whose hash begins"):
        catalog.find(current_settings(), "0" * 32)
    with pytest.raises(FuruStoreError, match="is not a hash"):
        catalog.find(current_settings(), "../etc")


def test_hostile_names_and_links_are_skipped(store: Path, tmp_path: Path) -> None:
    """Links that lead out of the store are not followed."""
    outside = tmp_path / "outside" / "Class" / ("0" * 32)
    put(outside, "{}")
    store.mkdir()
    (store / "linked").symlink_to(tmp_path / "outside")
    (store / "module").mkdir()
    (store / "module" / "Class").symlink_to(tmp_path / "outside" / "Class")
    (store / "module" / "Other").mkdir()
    (store / "module" / "Other" / ("1" * 32)).symlink_to(outside)
    (store / "module" / "Other" / "not a hash").mkdir()
    (store / "module" / "%1B[2J%FF").mkdir()
    (store / "module" / "%1B[2J%FF" / ("2" * 32 + ".d")).mkdir()
    (store / "file").write_text("x")
    hostile, linked = entries()
    assert "module:\\x1b[2J\ufffd" == hostile.node_class
    assert ("module:Other", "1" * 32) == (linked.node_class, linked.hash)
    assert [Status.TODO] * 2 == [hostile.status(), linked.status()]
    assert "it is a symbolic link" in catalog.inspect(linked).problem


def test_damaged_files_are_problems_of_their_node(store: Path) -> None:
    """The walk continues after a damaged file."""
    directory = store / "tests.graphs" / "Node"
    for number, content in enumerate([b"{", b"[" * 100_000, b'{"record":"done"}']):
        put(directory / (f"{number}" * 32), content)
        put(directory / (f"{number}" * 32 + ".try-1"), content)
    (directory / ("a" * 32)).symlink_to("/etc/passwd")
    beside = directory / ("a" * 32 + ".d")
    beside.mkdir()
    (beside / "a1-0f").symlink_to("/etc")
    os.mkfifo(beside / "try-2")
    infos = [catalog.inspect(entry) for entry in entries()]
    assert ["cannot be used"] * 4 == [
        "cannot be used" if "cannot be used" in one.problem else one.problem for one in infos
    ]
    assert "unreadable" == infos[-1].attempts[0].state
    assert catalog.read_log(infos[-1].artifact, 1) is None
    assert catalog.size_bytes(infos[-1].artifact) == 0


def test_record_of_another_class_is_a_problem() -> None:
    """The `done` file was moved to the directory of another class."""
    with recording():
        node = Node(name="a")
        run_local([node])
    entry = info(node).artifact
    moved = entry.path.parent.parent / "Other" / node.furu_hash
    moved.parent.mkdir()
    entry.path.rename(moved)
    (found,) = [catalog.inspect(one) for one in entries()]
    assert "it belongs to tests.graphs:Node" in found.problem
    assert found.config is None


def test_text_for_a_terminal_has_no_control_sequences() -> None:
    assert "a\\x1b[2Jb" == printable("a\x1b[2Jb")
    assert "\\u202eabc\\n" == printable("\u202eabc\n")
    assert "é" == printable("é")
