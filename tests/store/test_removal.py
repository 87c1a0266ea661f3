"""Removing nodes: a removal claims and renames the node. It never removes a node that is being computed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from furu import FuruComputeError, Status, current_settings, run_local
from furu.store.artifact import Artifact
from furu.store.catalog import find
from furu.store.removal import remove, remove_left_over
from tests.graphs import Computed, Node, actions, flat, recording


@pytest.fixture(autouse=True)
def record() -> Iterator[Computed]:
    """The record of the nodes that the test computes."""
    with recording() as record:
        yield record


def entry(node: Node) -> Artifact:
    """Return the artifact of a node."""
    return find(current_settings(), node.furu_hash)


def test_removed_node_is_missing_and_computed_again(record: Computed) -> None:
    (node,) = flat(1)
    run_local([node])
    assert remove(entry(node))
    assert Status.TODO is node.status()
    assert [] == list(node.furu_dir.parent.parent.iterdir())
    assert 1 == run_local([node]).computed
    assert 2 == record.counts()[node.name]


def test_failed_node_can_be_removed() -> None:
    node = Node(name="bad")
    actions["bad"] = lambda: 1 / 0
    with pytest.raises(FuruComputeError):
        run_local([node])
    assert remove(entry(node))
    assert Status.TODO is node.status()


def test_node_that_is_being_computed_is_not_removed() -> None:
    """The node is published afterwards."""
    (node,) = flat(1)
    begun, go_on = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        go_on.wait(10)

    actions[node.name] = block
    run = threading.Thread(target=run_local, args=([node],))
    run.start()
    begun.wait(10)
    removed = remove(entry(node))
    go_on.set()
    run.join()
    assert not removed
    assert Status.DONE is node.status()


def test_removing_a_missing_node_is_not_an_error() -> None:
    """The second removal creates no file in place of the node."""
    (node,) = flat(1)
    run_local([node])
    found = entry(node)
    assert remove(found)
    assert not remove(found)
    assert [] == list(found.path.parent.iterdir())


def test_leftovers_of_a_killed_removal_are_removed_later(store: Path) -> None:
    left = store / "tests.graphs" / "Node" / "removed-0123456789abcdef"
    left.mkdir(parents=True)
    (left / "done").write_text("x")
    remove_left_over(current_settings())
    assert not left.exists()


def test_links_in_a_removed_node_are_not_followed(tmp_path: Path) -> None:
    (node,) = flat(1)
    run_local([node])
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    directory = Path(entry(node).files.directory)
    directory.mkdir()
    (directory / "link").symlink_to(outside)
    assert remove(entry(node))
    assert (outside / "precious").exists()
