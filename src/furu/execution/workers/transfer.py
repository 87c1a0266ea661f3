"""Converts values that contain nodes to bytes for another process, and back. The bytes to unpickle come
from a process of the same run, never from a store.

Pickling a node through its fields would need recursion as deep as the graph. Instead, each node in the
value, and each node below it, is sent once: its class (by name), its hash, and its fields, with numbers in
place of other nodes. So the cost is linear in the number of nodes:

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
from furu.codecs.pickle import Pickler, Unpickler, dumps
from furu.errors import FuruError
from furu.node.base import Node, describe
from furu.node.furu import Furu

_ADVICE = (
    "Define the class at the top level of a module that the workers can import, or compute it in threads "
    "(workers=None)."
)


def pack(value: Any) -> bytes:
    """Return a value as bytes, with all nodes in the value and below them.

    Raises `FuruError` if a node's class cannot be imported by another process, or a field cannot be
    pickled.
    """
    body = io.BytesIO()
    packer = _Packer(body)
    packer.dump(value)
    for node in packer.nodes:  # this list grows during the loop
        try:
            packer.dump(node.__getstate__())
        except Exception as error:
            raise FuruError(
                f"{describe(node)} cannot be sent to another process, because a field cannot be pickled: "
                f"{describe_error(error)}. Compute it in threads (workers=None)."
            ) from error
    heads = [(type(node), node.furu_hash) for node in packer.nodes]
    for cls in dict.fromkeys([cls for cls, _ in heads]):
        _refuse_unnamed(cls)
    return dumps((heads, body.getvalue()))


def unpack(content: bytes) -> Any:
    """Return a packed value, with its nodes rebuilt and their hashes checked.

    Raises `FuruError` if a class cannot be imported here, or differs here.
    """
    heads, body = _Unpickler(io.BytesIO(content), []).load()
    nodes: list[Any] = []
    for cls, node_hash in heads:
        node = object.__new__(cls)
        # The hash is set first, because sets of nodes use it, and are rebuilt before the fields of nodes.
        vars(node)["_furu_hash"] = node_hash
        nodes.append(node)
    unpickler = _Unpickler(io.BytesIO(body), nodes)
    value = unpickler.load()
    for node, (cls, node_hash) in zip(nodes, heads, strict=True):
        node.__setstate__(unpickler.load())
        if node.furu_hash != node_hash:
            raise FuruError(
                f"{class_name(cls)} differs between this process and the one where node {node_hash} was "
                f"made: here the hash is {node.furu_hash}. Run the same code in all workers (restart "
                "them), and do not modify the lists, dicts and sets in a node."
            )
    return value


def _refuse_unnamed(cls: type) -> None:
    """Raise `FuruError` if other processes cannot import a class."""
    try:
        dumps(cls)
    except Exception as error:
        is_local = "<locals>" in cls.__qualname__
        why = (
            "is defined in a function" if is_local else f"has no importable name ({describe_error(error)})"
        )
        raise FuruError(
            f"{class_name(cls)} {why}, so another process cannot import it. {_ADVICE}"
        ) from error


class _Packer(Pickler):
    """Writes numbers in place of nodes, and collects the nodes."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.nodes: list[Node[Any]] = []
        self._numbers: dict[int, int] = {}  # by id(), as equal nodes may differ in fields outside the hash

    def persistent_id(self, obj: Any) -> int | None:
        if not issubclass(type(obj), Furu):
            return None
        number = self._numbers.setdefault(id(obj), len(self.nodes))
        if number == len(self.nodes):
            self.nodes.append(obj)
        return number


class _Unpickler(Unpickler):
    """Replaces numbers with nodes, and raises a helpful error if a class cannot be imported."""

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
                f"{global_name}, defined in {where}, cannot be imported in the worker's process: "
                f"{describe_error(error)}. {_ADVICE}"
            ) from error
