"""The nodes that a run computes once more, although they are done, because its caller asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, cast

from furu._common.text import a_type, describe_error
from furu.errors import FuruError
from furu.node.base import Node, describe
from furu.node.furu import Furu

__all__ = ["Again", "Chosen"]

# Nodes and classes of nodes, or a function that says whether a node is computed again.
Chosen: TypeAlias = Iterable[Furu[Any] | type[Furu[Any]]] | Callable[[Furu[Any]], bool]


class Again:
    """Decides which nodes are computed again. Raises `TypeError` if `chosen` is not what `run_local` takes
    as `again`."""

    def __init__(self, chosen: Chosen) -> None:
        self._asks: Callable[[Furu[Any]], bool] | None = None
        self._classes: set[type] = set()
        self._nodes: set[str] = set()
        self._unseen: dict[str, Node[Any]] = {}
        if callable(chosen) and not isinstance(chosen, type):
            self._asks = chosen
            return
        if isinstance(chosen, (Furu, type, str, bytes, Mapping)) or not isinstance(chosen, Iterable):
            raise TypeError(
                "again must be an iterable of nodes and classes, or a function of a node, not "
                f"{a_type(chosen)}"
            )
        for item in chosen:
            if isinstance(item, type) and issubclass(item, Furu):
                self._classes.add(item)
            elif isinstance(item, Furu):
                self._nodes.add(item.furu_hash)
                self._unseen[item.furu_hash] = item
            else:
                raise TypeError(f"again must contain nodes and classes of nodes, not {a_type(item)}")

    def saw(self, node: Node[Any]) -> None:
        """Record that a node is in the graph of the run."""
        self._unseen.pop(node._furu_hash, None)

    def includes(self, node: Node[Any]) -> bool:
        """Whether a node is computed again. Raises `FuruError` if the caller's function raises."""
        self.saw(node)
        if self._asks is None:
            return node._furu_hash in self._nodes or type(node) in self._classes
        try:
            return bool(self._asks(cast(Furu[Any], node)))
        except Exception as error:
            raise FuruError(f"again({describe(node)}) raised {describe_error(error)}") from error

    @property
    def unseen(self) -> tuple[Node[Any], ...]:
        """The nodes that the caller has named and that are not in the graph of the run."""
        return tuple(self._unseen.values())
