"""Encodes results as pickles, for classes that opt in. Class names in a pickle are valid in every process.

Python calls the program's main module `__main__`, and multiprocessing calls a child's copy `__mp_main__`.
These pickles instead contain the module name that identity uses: the name of the script's file, or of the
module that was started with `python -m`. If the reader's own main module has the same name, the reader uses
that module. Otherwise the reader imports the module.

The pickles do not refer to furu, so `pickle.load` can read them if the names in them can be imported.
"""

from __future__ import annotations

import errno
import io
import os
import pickle
import pkgutil
import stat
import sys
from types import FunctionType
from typing import Any, cast

from furu._common.origin import class_name, module_name
from furu._common.text import describe_error
from furu.codecs.declared import refuse_awaitable
from furu.errors import FuruResultError

_MAIN = "__main__"
_NAMES_OF_MAIN = (_MAIN, "__mp_main__")


def dumps(value: Any) -> bytes:
    """Return a value as a pickle. Exceptions from pickle and from the value's methods propagate."""
    file = io.BytesIO()
    Pickler(file, pickle.HIGHEST_PROTOCOL).dump(value)
    return file.getvalue()


class Pickler(pickle.Pickler):
    """Writes classes and functions of the main module under names that other processes can import."""

    def reducer_override(self, obj: Any) -> Any:
        """Replace a class or function of the main module with its name; see `pickle.Pickler`."""
        if not isinstance(obj, (type, FunctionType)) or obj.__module__ not in _NAMES_OF_MAIN:
            return NotImplemented
        found: Any = sys.modules.get(obj.__module__)
        for name in obj.__qualname__.split("."):
            found = getattr(found, name, None)
        if found is not obj:
            raise pickle.PicklingError(f"{obj!r} is not what the main module has as {obj.__qualname__}")
        return pkgutil.resolve_name, (class_name(cast(type, obj)),)


class Unpickler(pickle.Unpickler):
    """Reads pickles that `Pickler` wrote."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Return the class or function that a pickle names; see `pickle.Unpickler`."""
        if (module_name, global_name) == ("pkgutil", "resolve_name"):
            return self._find_written
        return super().find_class(module_name, global_name)

    def _find_written(self, name: str) -> Any:
        module, _, qualname = name.partition(":")
        return self.find_class(_MAIN if is_main(module) else module, qualname)


def is_main(module: str) -> bool:
    """Whether `module` is a name of this process's main module."""
    if module in _NAMES_OF_MAIN:
        return True
    # Use a new class each time: names are cached by class, and a child process may replace its main module.
    return module == module_name(type("OfMain", (), {"__module__": _MAIN}))


def encode_pickle(cls: type, value: Any) -> tuple[bytes, Any]:
    """Return a result as a pickle, and the value that loading this pickle gives. Raises `FuruResultError`
    if the result cannot be pickled or loaded."""
    try:
        content = dumps(value)
    except Exception as error:  # the value's methods may raise anything
        refuse_awaitable(cls.__qualname__, value)
        raise FuruResultError(
            f"{cls.__qualname__}._create() returned a {type(value).__qualname__} that cannot be pickled: "
            f"{describe_error(error)}. Return plain data, or define _load() and write files to "
            "self.furu_dir in _create()."
        ) from error
    try:
        return content, _StoredUnpickler(io.BytesIO(content)).load()
    except Exception as error:
        raise FuruResultError(
            f"{cls.__qualname__}._create() returned a {type(value).__qualname__} whose pickle cannot be "
            f"loaded: {describe_error(error)}. Define _load() and write files to self.furu_dir in "
            "_create()."
        ) from error


def decode_pickle(path: str) -> Any:
    """Load a result from a pickle file, for a class that opts in. Raises `OSError` if the path is not a
    regular file. Symbolic links are not followed, and opening a FIFO does not block."""
    with open(path, "rb", opener=_open_regular) as file:
        return _StoredUnpickler(file).load()  # only because the class opted in


class _StoredUnpickler(Unpickler):
    """Finds classes in the main module even if the pickle's writer had imported that module under its own
    name. Importing the main module here would execute it again and define every class twice."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        in_main = module_name not in sys.modules and is_main(module_name)
        return super().find_class("__main__" if in_main else module_name, global_name)


def _open_regular(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", path)
    return descriptor
