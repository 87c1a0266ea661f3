"""What a walk of the graph finds, looks at again, and forgets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from furu import Furu
from furu.execution.discovery import Discovery, Found
from tests.graphs import Node


@pytest.mark.parametrize(("remember", "looks"), [(False, 2), (True, 1)])
def test_node_that_is_done_is_looked_at_again_unless_all_is_remembered(remember: bool, looks: int) -> None:
    """A later root that reaches it may find it removed; and a generator of roots runs in the memory of its
    window."""

    def roots() -> Iterator[Furu[int]]:
        while True:
            yield Node(name="a")

    discovery = Discovery(roots(), remember=remember, retry_failed=True)
    found = [fact for fact in discovery.step(1).facts if isinstance(fact, Found)]
    discovery.forget(Node(name="a").furu_hash)
    found += [fact for fact in discovery.step(1).facts if isinstance(fact, Found)]
    assert [Node(name="a")] * looks == [fact.job.node for fact in found]
