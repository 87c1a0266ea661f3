"""Frozen settings: from the environment, overridable for a block. Touches no artifact.

Order, the first that says something wins: `use_settings(...)` around the call, `FURU_*` environment
variables, the defaults.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, cast, get_args

from furu.errors import FuruSettingsError

__all__ = [
    "DEFAULT_LEASE_SEC",
    "DEFAULT_MAX_RESULT_BYTES",
    "Durability",
    "Settings",
    "SettingsChanges",
    "current_settings",
    "use_settings",
]

Durability = Literal["process", "power"]

# Long enough for a network filesystem that shows a changed mtime a minute late.
DEFAULT_LEASE_SEC = 90.0
# A result larger than this belongs in files under `furu_dir`, not in one JSON document.
DEFAULT_MAX_RESULT_BYTES = 256 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Everything that can be set.

    `store`: the directory of artifacts, made absolute, with `~` expanded (`FURU_PATH`). `lease_sec`: how
    long the owner of a running attempt on *another* machine may show no sign of life before its node is
    taken over (`FURU_LEASE_SEC`). `durability`: ``"process"`` survives the death of a process, ``"power"``
    also that of the machine, at the price of an fsync before each link (`FURU_DURABILITY`).
    `max_result_bytes`: the largest result that is stored as JSON (`FURU_MAX_RESULT_BYTES`).
    `allow_shared`: whether a store may be used into whose root every user of the machine may write
    (`FURU_ALLOW_SHARED`, 1 or 0).
    """

    store: Path
    lease_sec: float = DEFAULT_LEASE_SEC
    durability: Durability = "process"
    max_result_bytes: int = DEFAULT_MAX_RESULT_BYTES
    allow_shared: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "store", _absolute(self.store))
        lease = self.lease_sec
        if isinstance(lease, bool) or not isinstance(lease, (int, float)):
            raise FuruSettingsError(f"lease_sec must be a number of seconds, not {lease!r}")
        if not math.isfinite(lease) or lease <= 0:
            raise FuruSettingsError(f"lease_sec must be a positive number of seconds, not {lease!r}")
        if self.durability not in get_args(Durability):
            raise FuruSettingsError(f"durability must be 'process' or 'power', not {self.durability!r}")
        size = self.max_result_bytes
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise FuruSettingsError(f"max_result_bytes must be a positive int, not {size!r}")
        if not isinstance(self.allow_shared, bool):
            raise FuruSettingsError(f"allow_shared must be True or False, not {self.allow_shared!r}")


class SettingsChanges(TypedDict, total=False):
    """The fields that `use_settings` may override."""

    store: str | os.PathLike[str]
    lease_sec: float
    durability: Durability
    max_result_bytes: int
    allow_shared: bool


_OVERRIDE: ContextVar[Settings | None] = ContextVar("furu_settings", default=None)


def current_settings() -> Settings:
    """Return the settings in force here.

    May look for a `pyproject.toml` on disk, so a running event loop asks for them in a thread.
    """
    override = _OVERRIDE.get()
    if override is not None:
        return override
    return _from_environment(named=False)


@contextmanager
def use_settings(
    settings: Settings | None = None, /, **changes: Unpack[SettingsChanges]
) -> Iterator[Settings]:
    """Override settings for a block: whole (`settings`), or field by field (`changes`).

    The override lives in a context variable: it is seen by the code in the block, by tasks started
    there and by the nodes of a run started there, and by nothing else.

    >>> from furu import use_settings
    >>> with use_settings(lease_sec=10) as settings:
    ...     settings.lease_sec
    10
    """
    known = [field.name for field in dataclasses.fields(Settings)]
    for name in changes:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            meant = f". Did you mean {near[0]!r}?" if near else ""
            raise FuruSettingsError(f"no setting is called {name!r}; there are {sorted(known)}{meant}")
    if not isinstance(settings, Settings | None):
        raise FuruSettingsError(
            f"use_settings() takes a Settings, or settings by name such as use_settings(store=...), not "
            f"{settings!r}"
        )
    base = settings or _OVERRIDE.get() or _from_environment(named="store" in changes)
    fields: dict[str, Any] = {**changes}  # a store may be text, which Settings makes a path
    chosen = dataclasses.replace(base, **fields) if fields else base
    token = _OVERRIDE.set(chosen)
    try:
        yield chosen
    finally:
        _OVERRIDE.reset(token)


def _from_environment(*, named: bool) -> Settings:
    """Read the environment. Where the caller names the store, there is no need to look for one."""
    environ = os.environ
    return _from_variables(
        Path(os.sep) if named else _default_store(environ.get("FURU_PATH")),
        environ.get("FURU_LEASE_SEC"),
        environ.get("FURU_DURABILITY"),
        environ.get("FURU_MAX_RESULT_BYTES"),
        environ.get("FURU_ALLOW_SHARED"),
    )


@functools.lru_cache(maxsize=64)
def _from_variables(
    store: Path, lease: str | None, durability: str | None, size: str | None, shared: str | None
) -> Settings:
    return Settings(
        store=store,
        lease_sec=_number("FURU_LEASE_SEC", lease) if lease else DEFAULT_LEASE_SEC,
        # Settings checks that the word is one of the two.
        durability=cast(Durability, durability) if durability else "process",
        # And that the number is a whole one.
        max_result_bytes=(
            cast(int, _whole(_number("FURU_MAX_RESULT_BYTES", size))) if size else DEFAULT_MAX_RESULT_BYTES
        ),
        allow_shared=_switch("FURU_ALLOW_SHARED", shared) if shared else False,
    )


def _default_store(path: str | None) -> Path:
    if not path:
        return _project_store(_working_directory())
    path = _expanded(path)
    return _path("" if os.path.isabs(path) else _working_directory(), path)


# Made once: settings are asked for at every node.
_path = functools.lru_cache(maxsize=64)(Path)


def _absolute(store: str | os.PathLike[str]) -> Path:
    """Return the directory of a store. Asks the disk only about a relative one: an event loop may not."""
    path = os.fspath(store) if isinstance(store, (str, os.PathLike)) else None
    if not isinstance(path, str) or "\0" in path:
        raise FuruSettingsError(f"store must be a path, not {store!r}")
    path = _expanded(path)
    return Path(os.path.normpath(path if os.path.isabs(path) else os.path.join(_working_directory(), path)))


def _expanded(path: str) -> str:
    """Replace `~` at the beginning, which only a shell does by itself, and not everywhere."""
    if not path.startswith("~"):
        return path
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise FuruSettingsError(
            f"the store {path!r} begins with the home directory of a user who is not known here: write the "
            f"directory out, or ./{path} for one that has this name"
        )
    return expanded


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError as error:
        raise FuruSettingsError(
            f"the store is relative to the working directory, which cannot be used: {error.strerror}. Set "
            "FURU_PATH to an absolute path, or change to a directory that exists"
        ) from error


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise FuruSettingsError(f"{name} must be a number, not {text!r}") from None


def _whole(number: float) -> int | float:
    """Return a whole number as an int, such as 1e6, and leave any other for Settings to refuse."""
    return int(number) if number.is_integer() else number


def _switch(name: str, text: str) -> bool:
    if text not in ("0", "1"):
        raise FuruSettingsError(f"{name} must be 1 or 0, not {text!r}")
    return text == "1"


@functools.lru_cache(maxsize=64)
def _project_store(start: str) -> Path:
    """Return the store next to the nearest pyproject.toml, or in the directory where the search starts."""
    directory = Path(start)
    for above in (directory, *directory.parents):
        if (above / "pyproject.toml").is_file():
            return above / "furu-data"
    return directory / "furu-data"
