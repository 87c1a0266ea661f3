"""Results as pickles, for classes that opt in."""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import Any

from furu._common.text import describe_error
from furu.codecs.declared import refuse_awaitable
from furu.codecs.pickling import Unpickler, dumps, is_main
from furu.errors import FuruResultError


def encode_pickle(cls: type, value: Any) -> bytes:
    """Return a result as a pickle. Raises `FuruResultError` if it cannot be pickled."""
    try:
        return dumps(value)
    except Exception as error:  # anything that methods of the value raise
        refuse_awaitable(cls.__qualname__, value)
        raise FuruResultError(
            f"{cls.__qualname__}._create() returned a {type(value).__qualname__} that cannot be pickled: "
            f"{describe_error(error)}. Return plain data, or define _load() and write files to "
            "self.furu_dir in _create()."
        ) from error


def decode_pickle(path: str) -> Any:
    """Return a result from a pickle file, for a class that opts in. Raises `OSError` if it is not a regular
    file: symbolic links are not followed, and a FIFO is not waited for."""
    with open(path, "rb", opener=_open_regular) as file:
        return _StoredUnpickler(file).load()  # the class opted in


class _StoredUnpickler(Unpickler):
    """Finds classes of the main module there, even if the pickle was written by a program that had imported
    the module. Importing it here would run it again, and make every class twice."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        in_main = module_name not in sys.modules and is_main(module_name)
        return super().find_class("__main__" if in_main else module_name, global_name)


def _open_regular(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", path)
    return descriptor
