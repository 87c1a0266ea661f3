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

import importlib
import io
import pickle
import sys
from types import FunctionType, ModuleType
from typing import Any

from furu.core import Furu, describe
from furu.errors import FuruError
from furu.origin import class_name
from furu.text import describe_error

# What Python calls the script: where it runs, and in a process that it started.
_MAIN = ("__main__", "__mp_main__")
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
    heads: list[tuple[str, str, str]] = []
    for node in packer.nodes:  # grows while it is walked
        heads.append((*_name_of(type(node)), node._furu_hash))
        try:
            packer.dump(node.__getstate__())
        except Exception as error:
            raise FuruError(
                f"{describe(node)} cannot be sent to another process, because a field holds what cannot be "
                f"pickled: {describe_error(error)}. Compute it in threads (workers=None)."
            ) from error
    return pickle.dumps((heads, body.getvalue()), pickle.HIGHEST_PROTOCOL)


def unpack(content: bytes) -> Any:
    """Return what was packed, with its nodes rebuilt and their hashes compared.

    Raises `FuruError` for a class that cannot be imported here, or is another one here.
    """
    heads, body = pickle.loads(content)  # noqa: S301  # from this run's own process
    nodes: list[Any] = []
    for module, qualname, node_hash in heads:
        cls = _import(module, qualname)
        node = object.__new__(cls)
        # A set of nodes is rebuilt before their fields are, and looks at their hashes.
        vars(node)["_furu_hash"] = node_hash
        nodes.append(node)
    unpacker = _Unpacker(io.BytesIO(body), nodes)
    value = unpacker.load()
    for node, (_, _, node_hash) in zip(nodes, heads, strict=True):
        node.__setstate__(unpacker.load())
        if node._furu_hash != node_hash:
            raise FuruError(
                f"{class_name(type(node))} is another class here than where its node {node_hash} was made: "
                f"the hash comes out as {node._furu_hash}. Have every worker run the same code (restart "
                "them), and do not modify the lists, dicts and sets in a node."
            )
    return value


class _Packer(pickle.Pickler):
    """Collects the nodes that it meets, and writes their numbers."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.nodes: list[Furu[Any]] = []
        self._numbers: dict[int, int] = {}  # by id: equal nodes may differ in fields outside identity

    def persistent_id(self, obj: Any) -> int | None:
        if not issubclass(type(obj), Furu):
            return None
        number = self._numbers.setdefault(id(obj), len(self.nodes))
        if number == len(self.nodes):
            self.nodes.append(obj)
        return number

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, (type, FunctionType)) and obj.__module__ in _MAIN:
            return _import, _name_of(obj)
        return NotImplemented


class _Unpacker(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, nodes: list[Any]) -> None:
        super().__init__(file)
        self._nodes = nodes

    def persistent_load(self, pid: Any) -> Any:
        return self._nodes[pid]


def _name_of(thing: type | FunctionType) -> tuple[str, str]:
    """Return under which module and name another process finds a class or function."""
    module, qualname = thing.__module__, thing.__qualname__
    if "<locals>" in qualname:
        raise FuruError(
            f"{module}:{qualname} is defined in a function, so another process cannot import it. {_ADVICE}"
        )
    if module in _MAIN:
        # `python -m package.module` has a name that can be imported; a script is run again as __mp_main__.
        spec = getattr(sys.modules.get(module), "__spec__", None)
        module = spec.name if spec is not None and spec.name not in _MAIN else "__main__"
    return module, qualname


def _import(module: str, qualname: str) -> Any:
    try:
        found: Any = _main_module(module) or importlib.import_module(module)
        for name in qualname.split("."):
            found = getattr(found, name)
    except Exception as error:
        where = "the program's own __main__ (a notebook?)" if module == "__main__" else module
        raise FuruError(
            f"{qualname}, defined in {where}, cannot be imported in the process that is to compute it: "
            f"{describe_error(error)}. {_ADVICE}"
        ) from error
    return found


def _main_module(module: str) -> ModuleType | None:
    """Return the program's main module if it goes by this name. Imported again, it would be another one,
    and `__main__` whatever file on the path is called so."""
    main = sys.modules.get("__main__")
    if module == "__main__":
        return sys.modules[module]
    spec = getattr(main, "__spec__", None)
    return main if spec is not None and spec.name == module else None
