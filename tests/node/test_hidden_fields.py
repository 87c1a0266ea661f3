"""Fields with `repr=False` are neither shown nor recorded."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from furu import Furu, FuruComputeError, current_settings, plan_local
from furu.store import catalog
from tests.graphs import Node


@dataclasses.dataclass(frozen=True)
class Account:
    """A value with a secret."""

    user: str
    password: str = dataclasses.field(repr=False)


class Query(Furu[int]):
    """A node with secrets, and with dependencies that are not shown."""

    account: Account
    token: str = dataclasses.field(repr=False)
    sources: tuple[Furu[Any], ...] = dataclasses.field(default=(), repr=False)
    fails: bool = False

    def _create(self) -> int:
        if self.fails:
            raise ValueError("no answer")
        return 1


@pytest.mark.parametrize("fails", [False, True])
def test_fields_that_are_not_shown_are_not_recorded(fails: bool, store: Path) -> None:
    """Neither done nor failed nodes record hidden fields. The hashes of nodes in such fields are
    recorded."""
    source = Node(name="n")
    node = Query(account=Account("ann", "swordfish"), token="xyzzy", sources=(source,), fails=fails)
    source.get()
    with pytest.raises(FuruComputeError) if fails else contextlib.nullcontext():
        node.get()
    [artifact] = catalog.walk(current_settings(), node_class=f"{node.__module__}:Query")
    info = catalog.inspect(artifact)
    assert info.config is not None
    assert ({"user": "ann", "password": "<hidden>"}, "<hidden>") == (
        info.config["account"],
        info.config["token"],
    )
    assert (source.furu_hash,) == info.depends_on
    written = b"".join(path.read_bytes() for path in store.rglob("*") if path.is_file())
    assert not [secret for secret in (b"swordfish", b"xyzzy") if secret in written]


def test_nodes_that_differ_in_hidden_fields_are_not_called_stale() -> None:
    Query(account=Account("ann", "a"), token="a").get()
    plan = plan_local([Query(account=Account("ann", "b"), token="b")])
    assert {"missing"} == {node.reason for node in plan.nodes}
