"""What discovery finds, looks up again and forgets while it walks the graph."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from furu import Furu
from furu.execution.discovery import Discovery, Found
from tests.graphs import Node


@pytest.mark.parametrize(("remember", "looks"), [(False, 2), (True, 1)])
def test_done_node_is_looked_up_again_unless_all_are_remembered(remember: bool, looks: int) -> None:
    """The artifact may have been removed before a later root needs it."""

    def roots() -> Iterator[Furu[int]]:
        while True:
            yield Node(name="a")

    discovery = Discovery(roots(), remember=remember, retry_failed=True)
    found = [fact for fact in discovery.step(1).facts if isinstance(fact, Found)]
    discovery.forget(Node(name="a").furu_hash)
    found += [fact for fact in discovery.step(1).facts if isinstance(fact, Found)]
    assert [Node(name="a")] * looks == [fact.job.node for fact in found]
