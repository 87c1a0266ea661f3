"""Values with nodes in them as bytes for another process, and back. Trusts whom it talks to: what is
unpickled here comes from this run's own workers, never from a store.

A node is not pickled through its fields, which would need recursion as deep as the graph. Each node at or
below the value crosses once, as its class (by name), its hash, and its own fields, in which other nodes
are numbers. So the cost is linear in the number of nodes, whatever the depth or the sharing:

    value     the value, with numbers in place of nodes
    node 0    class, hash; fields, with numbers in place of nodes
    node 1    ...
"""

from __future__ import annotations

import io
import pickle
from typing import Any

from furu._common.origin import class_name
from furu._common.text import describe_error
from furu.codecs.pickling import Pickler, Unpickler, dumps
from furu.errors import FuruError
from furu.node.base import Node, describe
from furu.node.furu import Furu

_ADVICE = (
    "Define the class at the top level of a module that the workers can import, or compute it in threads "
    "(workers=None)."
)


def pack(value: Any) -> bytes:
    """Return a value, and all nodes at and below it, as bytes.

    Raises `FuruError` for a node that another process cannot have: its class has no name that could be
    imported, or a field holds what cannot be pickled.
    """
    body = io.BytesIO()
    packer = _Packer(body)
    packer.dump(value)
    for node in packer.nodes:  # grows while it is walked
        try:
            packer.dump(node.__getstate__())
        except Exception as error:
            raise FuruError(
                f"{describe(node)} cannot be sent to another process, because a field holds what cannot be "
                f"pickled: {describe_error(error)}. Compute it in threads (workers=None)."
            ) from error
    heads = [(type(node), node.furu_hash) for node in packer.nodes]
    for cls in dict.fromkeys([cls for cls, _ in heads]):
        _refuse_unnamed(cls)
    return dumps((heads, body.getvalue()))


def unpack(content: bytes) -> Any:
    """Return what was packed, with its nodes rebuilt and their hashes compared.

    Raises `FuruError` for a class that cannot be imported here, or is another one here.
    """
    heads, body = _Unpickler(io.BytesIO(content), []).load()
    nodes: list[Any] = []
    for cls, node_hash in heads:
        node = object.__new__(cls)
        # A set of nodes is rebuilt before their fields are, and looks at their hashes.
        vars(node)["_furu_hash"] = node_hash
        nodes.append(node)
    unpickler = _Unpickler(io.BytesIO(body), nodes)
    value = unpickler.load()
    for node, (cls, node_hash) in zip(nodes, heads, strict=True):
        node.__setstate__(unpickler.load())
        if node.furu_hash != node_hash:
            raise FuruError(
                f"{class_name(cls)} is another class here than where its node {node_hash} was made: "
                f"the hash comes out as {node.furu_hash}. Have every worker run the same code (restart "
                "them), and do not modify the lists, dicts and sets in a node."
            )
    return value


def _refuse_unnamed(cls: type) -> None:
    """Raise `FuruError` for a class that no other process can import."""
    try:
        dumps(cls)
    except Exception as error:
        is_local = "<locals>" in cls.__qualname__
        why = (
            "is defined in a function" if is_local else f"has no name of its own ({describe_error(error)})"
        )
        raise FuruError(
            f"{class_name(cls)} {why}, so another process cannot import it. {_ADVICE}"
        ) from error


class _Packer(Pickler):
    """Collects the nodes that it meets, and writes their numbers."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.nodes: list[Node[Any]] = []
        self._numbers: dict[int, int] = {}  # by id: equal nodes may differ in fields outside identity

    def persistent_id(self, obj: Any) -> int | None:
        if not issubclass(type(obj), Furu):
            return None
        number = self._numbers.setdefault(id(obj), len(self.nodes))
        if number == len(self.nodes):
            self.nodes.append(obj)
        return number


class _Unpickler(Unpickler):
    """Puts nodes in place of their numbers, and says what to do about a class that is not here."""

    def __init__(self, file: io.BytesIO, nodes: list[Any]) -> None:
        super().__init__(file)
        self._nodes = nodes

    def persistent_load(self, pid: Any) -> Any:
        return self._nodes[pid]

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        try:
            return super().find_class(module_name, global_name)
        except Exception as error:
            is_main = module_name == "__main__"
            where = "the program's own __main__ (a notebook?)" if is_main else module_name
            raise FuruError(
                f"{global_name}, defined in {where}, cannot be imported in the process that is to compute "
                f"it: {describe_error(error)}. {_ADVICE}"
            ) from error
