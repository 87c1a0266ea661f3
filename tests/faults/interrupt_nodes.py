"""Small nodes of every kind, for programs that interrupt `get()`. `trial` makes each node new."""

from __future__ import annotations

from furu import Furu


class Sync(Furu[int]):
    trial: int

    def _create(self) -> int:
        return self.trial


class Pickled(Furu[object]):
    """Writes a file and a log."""

    trial: int
    _codec = "pickle"

    def _create(self) -> object:
        (self.furu_dir / "part").write_text(str(self.trial))
        self.logger.info("computing")
        return {self.trial}


class Async(Furu[int]):
    trial: int

    async def _create(self) -> int:
        return self.trial


class Nested(Furu[int]):
    """Gets nodes that it does not declare. One of them is async."""

    trial: int

    def _create(self) -> int:
        return Sync(trial=self.trial).get() + Async(trial=self.trial).get()


class Declared(Furu[int]):
    """Depends on two nodes that are missing."""

    trial: int
    first: Sync
    second: Pickled

    def _create(self) -> int:
        assert self.second.get() == {self.trial}
        return self.first.get()


class Validated(Furu[int]):
    """Validates its artifact."""

    trial: int

    def _create(self) -> int:
        (self.furu_dir / "part").write_text(str(self.trial))
        return self.trial

    def _validate(self) -> bool:
        return (self.furu_dir / "part").exists()


class Failing(Furu[int]):
    trial: int

    def _create(self) -> int:
        raise ValueError("bad split")


KINDS = ("sync", "pickled", "async", "nested", "declared", "validated", "failing")


def make(kind: str, trial: int) -> Furu[object]:
    """Return a node that belongs to this trial only."""
    if kind == "declared":
        return Declared(trial=trial, first=Sync(trial=trial), second=Pickled(trial=trial))
    cls = {
        "sync": Sync,
        "pickled": Pickled,
        "async": Async,
        "nested": Nested,
        "validated": Validated,
        "failing": Failing,
    }[kind]
    node: Furu[object] = cls(trial=trial)  # type: ignore[call-arg, assignment]
    return node


def nodes_of(node: Furu[object]) -> list[Furu[object]]:
    """Return a node and all other nodes that its `get()` computes."""
    trial: int = node.trial  # type: ignore[attr-defined]
    if isinstance(node, Nested):
        return [node, make("sync", trial), make("async", trial)]
    if isinstance(node, Declared):
        return [node, make("sync", trial), make("pickled", trial)]
    return [node]


def expected(kind: str, trial: int) -> object:
    """Return the value of a node, or None if the node fails."""
    values: dict[str, object] = {"pickled": {trial}, "nested": 2 * trial, "failing": None}
    return values.get(kind, trial)
