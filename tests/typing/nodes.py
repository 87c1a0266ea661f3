"""What type checkers see of nodes; mypy and pyright run over this file, nothing executes it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, TypeVar, assert_type

import furu
from furu import File, Furu, RunReport, Status, Table, load, run_local, run_local_async, table

T = TypeVar("T")


class Tokens(Furu[list[str]]):
    text: str
    limit: int = 10
    verbose: bool = dataclasses.field(default=False, compare=False)

    def _create(self) -> list[str]:
        return self.text.split()[: self.limit]


class Count(Furu[int]):
    source: Furu[list[str]]

    async def _create(self) -> int:
        return len(await self.source.aget())


class Base(Furu[T]):
    name: str


class Concrete(Base[bytes]):
    def _create(self) -> bytes:
        return self.name.encode()

    def _load(self) -> bytes:
        return (self.furu_dir / "x").read_bytes()


class Tuned(Furu[float]):
    rate: float = furu.field(known_as="lr")
    stratify: bool = furu.field(default=False, added=True)
    tags: list[str] = furu.field(default_factory=list, added=True)
    device: str = furu.field(default="cpu", counts=False)
    token: str = furu.field(default="", secret=True)


class Over(Furu[float]):
    part: Furu[float]
    parts: tuple[Furu[float | None], ...] = ()


tuned = Tuned(rate=0.1, tags=["a"])
assert_type(tuned.stratify, bool)
assert_type(tuned.tags, list[str])
# A node of ints is accepted where a node of floats is declared.
Over(part=Count(source=Tokens(text="a")), parts=(tuned,))
floats: Furu[float] = Count(source=Tokens(text="a"))
Tuned()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Tuned(rate="0.1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Over(part=Tokens(text="a"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

tokens = Tokens(text="a b")
assert_type(tokens.get(), list[str])
assert_type(tokens.furu_dir, Path)
assert_type(tokens.furu_hash, str)
assert_type(tokens.status(), Status)
assert_type(Count(source=tokens).get(), int)
assert_type(Concrete(name="x").get(), bytes)
assert_type(File(path="x").get(), Path)
assert_type(run_local([tokens, Count(source=tokens)]), RunReport)

assert_type(load("3fa9", Tokens), list[str])
assert_type(load("3fa9"), Any)
assert_type(table(Tokens), Table)
assert_type(table("module:Tokens", limit=3)[0], dict[str, Any])
assert_type(table(Tokens).sorted_by("limit").to_csv(), str)
for found, value in Tokens.stored(limit=3):
    assert_type(value, list[str])
    if isinstance(found, Tokens):
        assert_type(found.limit, int)
for stored_node, concrete in Concrete.stored():
    assert_type(stored_node, Concrete | dict[str, Any])
    assert_type(concrete, bytes)


async def on_a_loop() -> None:
    assert_type(await tokens.aget(), list[str])
    assert_type(await run_local_async([tokens]), RunReport)


def some(roots: list[Furu[Any]]) -> None:
    run_local(roots, window_size=3)


# What has to be an error; an ignore that is not needed is one too.
Tokens("a b")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Tokens(text=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Tokens()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
tokens.text = "c"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
Count(source=Concrete(name="x"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
run_local([1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
