"""Numbers the filesystem calls of furu in this process, so that a fault can be injected at the n-th call.

Wraps the functions of `os` and `fcntl` that furu's store calls, and counts the calls with a path or a
descriptor in the store. It does not use ptrace, so it works everywhere.
"""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

# The calls whose first argument is a path, and the calls whose first argument is a descriptor.
BY_PATH = ("open", "stat", "lstat", "link", "unlink", "rename", "replace", "mkdir", "listdir", "rmdir")
BY_DESCRIPTOR = ("read", "write", "close", "fstat", "fsync", "utime", "flock")

Act = Callable[[str, str, tuple[Any, ...], Callable[[], Any]], Any]


class Syscalls:
    """While installed, passes every call to `act(name, path, arguments, real)`, which may make the call
    with `real()`."""

    def __init__(self, store: str, act: Act) -> None:
        self._store = store
        self._act = act
        self._paths: dict[int, str] = {}
        self._originals: dict[tuple[Any, str], Any] = {}
        self._inside = threading.local()

    def install(self) -> None:
        for name in (*BY_PATH, *BY_DESCRIPTOR):
            self._wrap(fcntl if name == "flock" else os, name)

    def uninstall(self) -> None:
        for (module, name), original in self._originals.items():
            setattr(module, name, original)
        self._originals.clear()

    def _wrap(self, module: Any, name: str) -> None:
        original = self._originals[module, name] = getattr(module, name)

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            directory = kwargs.get("dir_fd", kwargs.get("dst_dir_fd"))
            path = self._path(args, directory, by_descriptor=name in BY_DESCRIPTOR)
            if path is None or getattr(self._inside, "busy", False):
                return original(*args, **kwargs)
            self._inside.busy = True
            try:
                result = self._act(name, path, args, lambda: original(*args, **kwargs))
            finally:
                self._inside.busy = False
            if name == "open":
                self._paths[result] = path
            elif name == "close":
                self._paths.pop(args[0], None)
            return result

        setattr(module, name, wrapper)

    def _path(self, args: tuple[Any, ...], directory: int | None, *, by_descriptor: bool) -> str | None:
        """Return the path that a call operates on, or the second of two; None if it is not in the store."""
        if by_descriptor and args and isinstance(args[0], int):
            return self._paths.get(args[0])
        if directory in self._paths:  # a relative path, as in `shutil.rmtree`; of two, the second
            names = [one for one in args[:2] if isinstance(one, str)]
            return f"{self._paths[directory]}/{names[-1]}"
        paths = [os.fspath(value) for value in args[:2] if isinstance(value, (str, os.PathLike))]
        return next((path for path in reversed(paths) if path.startswith(self._store)), None)


class AtNumber:
    """Injects a fault at call number `number`, counted from 1, and records every call."""

    def __init__(
        self, number: int, fault: Callable[[str, str], None], *, from_then_on: bool = False
    ) -> None:
        self._number = number
        self._fault = fault
        self._from_then_on = from_then_on
        self._lock = threading.Lock()
        self.calls: list[tuple[str, str]] = []

    @property
    def reached(self) -> bool:
        return len(self.calls) >= self._number

    def __call__(self, name: str, path: str, args: tuple[Any, ...], real: Callable[[], Any]) -> Any:
        with self._lock:
            self.calls.append((name, path))
            count = len(self.calls)
        if count == self._number or (self._from_then_on and count > self._number):
            self._fault(name, path)
        return real()


def kill(name: str, path: str) -> None:
    """Kill this process. It cannot handle the signal."""
    os.kill(os.getpid(), signal.SIGKILL)


def fail_with(number: int) -> Callable[[str, str], None]:
    """Return a fault that raises OSError with this errno, except in `close`, which frees a descriptor."""

    def fault(name: str, path: str) -> None:
        if name != "close":
            raise OSError(number, os.strerror(number), path)

    return fault
