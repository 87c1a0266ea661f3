"""Settings from the environment, which code can override in a `with` block.

`use_settings(...)` takes precedence over `FURU_*` environment variables, and these over the defaults.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, cast, get_args

from furu._common.checks import check_choice, check_flag, check_int, check_seconds
from furu.errors import FuruSettingsError

__all__ = [
    "DEFAULT_CACHE_BYTES",
    "DEFAULT_LEASE_SEC",
    "DEFAULT_MAX_RESULT_BYTES",
    "Durability",
    "OnCodeChange",
    "Settings",
    "SettingsChanges",
    "current_settings",
    "project_of",
    "use_settings",
]

Durability = Literal["process", "power"]
OnCodeChange = Literal["warn", "ignore", "recompute"]

# Long enough for network filesystems that show a changed mtime a minute late.
DEFAULT_LEASE_SEC = 90.0
# Larger results belong in files in `furu_dir` rather than in a JSON document.
DEFAULT_MAX_RESULT_BYTES = 256 * 2**20
# Enough for the few inputs that many nodes of a sweep share.
DEFAULT_CACHE_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """All settings of furu.

    Args:
        store: The directory of artifacts (`FURU_PATH`). The path is made absolute, and `~` is expanded.
        lease_sec: How long the owner of an attempt on *another* machine may show no sign of life before its
            node is taken over (`FURU_LEASE_SEC`).
        durability: With ``"process"`` artifacts survive the death of a process; with ``"power"`` they also
            survive a power cut, at the cost of an fsync of each artifact (`FURU_DURABILITY`).
        max_result_bytes: The maximum size of a result that is stored as JSON (`FURU_MAX_RESULT_BYTES`).
        allow_shared: Whether to accept a store in which every user of the machine can create files
            (`FURU_ALLOW_SHARED`, 1 or 0).
        cache_bytes: How much memory each process may use for values that it has loaded, so that several
            nodes that read a value load it once (`FURU_CACHE_BYTES`). 0 turns the cache off. None, the
            default, is 64 MiB, but 0 in the runs of `furu.service.Runs`.
        on_code_change: What runs do with artifacts that were made by other code, unless the run's own
            `on_code_change` says otherwise (`FURU_ON_CODE_CHANGE`).

    Raises:
        FuruSettingsError: A value is not allowed.
    """

    store: Path
    lease_sec: float = DEFAULT_LEASE_SEC
    durability: Durability = "process"
    max_result_bytes: int = DEFAULT_MAX_RESULT_BYTES
    allow_shared: bool = False
    on_code_change: OnCodeChange = "warn"
    cache_bytes: int | None = None

    @property
    def cache_limit_bytes(self) -> int:
        """How much memory this process may use for loaded values."""
        return DEFAULT_CACHE_BYTES if self.cache_bytes is None else self.cache_bytes

    def __post_init__(self) -> None:
        object.__setattr__(self, "store", _absolute(self.store))
        try:
            check_seconds("lease_sec", self.lease_sec)
            check_choice("durability", self.durability, get_args(Durability))
            check_int("max_result_bytes", self.max_result_bytes, least=1)
            check_flag("allow_shared", self.allow_shared)
            if self.cache_bytes is not None:
                check_int("cache_bytes", self.cache_bytes, least=0)
            check_choice("on_code_change", self.on_code_change, get_args(OnCodeChange))
        except (TypeError, ValueError) as error:
            raise FuruSettingsError(str(error)) from None


class SettingsChanges(TypedDict, total=False):
    """The fields that `use_settings` may override."""

    store: str | os.PathLike[str]
    lease_sec: float
    durability: Durability
    max_result_bytes: int
    allow_shared: bool
    cache_bytes: int | None
    on_code_change: OnCodeChange


_OVERRIDE: ContextVar[Settings | None] = ContextVar("furu_settings", default=None)


def current_settings() -> Settings:
    """Return the current settings.

    This may search the disk for a `pyproject.toml`, so call it in a thread if an event loop is running.
    """
    override = _OVERRIDE.get()
    if override is not None:
        return override
    return _from_environment(named=False)


@contextmanager
def use_settings(
    settings: Settings | None = None, /, **changes: Unpack[SettingsChanges]
) -> Iterator[Settings]:
    """Override all settings (`settings`) or some of them (`changes`) in a `with` block.

    The override is a context variable: it applies only to the code in the block, and to tasks and runs that
    this code starts.

    >>> from furu import use_settings
    >>> with use_settings(lease_sec=10) as settings:
    ...     settings.lease_sec
    10
    """
    known = [field.name for field in dataclasses.fields(Settings)]
    for name in changes:
        if name not in known:
            import difflib  # only for this error

            near = difflib.get_close_matches(name, known, n=1)
            meant = f". Did you mean {near[0]!r}?" if near else ""
            raise FuruSettingsError(f"no setting is called {name!r}; there are {sorted(known)}{meant}")
    if not isinstance(settings, Settings | None):
        raise FuruSettingsError(
            f"use_settings() takes a Settings, or settings by name such as use_settings(store=...), not "
            f"{settings!r}"
        )
    base = settings or _OVERRIDE.get() or _from_environment(named="store" in changes)
    fields: dict[str, Any] = {**changes}  # Settings converts a store that is a string to a path
    chosen = dataclasses.replace(base, **fields) if fields else base
    token = _OVERRIDE.set(chosen)
    try:
        yield chosen
    finally:
        _OVERRIDE.reset(token)


def _from_environment(*, named: bool) -> Settings:
    """Read settings from the environment. If the caller `named` a store, do not search for the default."""
    environ = os.environ
    return _from_variables(
        Path(os.sep) if named else _default_store(environ.get("FURU_PATH")),
        environ.get("FURU_LEASE_SEC"),
        environ.get("FURU_DURABILITY"),
        environ.get("FURU_MAX_RESULT_BYTES"),
        environ.get("FURU_ALLOW_SHARED"),
        environ.get("FURU_CACHE_BYTES"),
        environ.get("FURU_ON_CODE_CHANGE"),
    )


@functools.lru_cache(maxsize=64)
def _from_variables(
    store: Path,
    lease: str | None,
    durability: str | None,
    size: str | None,
    shared: str | None,
    cache: str | None,
    on_code_change: str | None,
) -> Settings:
    return Settings(
        store=store,
        lease_sec=_number("FURU_LEASE_SEC", lease) if lease else DEFAULT_LEASE_SEC,
        # Settings checks that the word is allowed.
        durability=cast(Durability, durability) if durability else "process",
        # Settings checks that the number is an int.
        max_result_bytes=(
            cast(int, _whole(_number("FURU_MAX_RESULT_BYTES", size))) if size else DEFAULT_MAX_RESULT_BYTES
        ),
        allow_shared=_switch("FURU_ALLOW_SHARED", shared) if shared else False,
        cache_bytes=cast(int, _whole(_number("FURU_CACHE_BYTES", cache))) if cache else None,
        on_code_change=cast(OnCodeChange, on_code_change) if on_code_change else "warn",
    )


def _default_store(path: str | None) -> Path:
    if not path:
        return _project_store(_working_directory())
    path = _expanded(path)
    return _path("" if os.path.isabs(path) else _working_directory(), path)


# Cached, because settings are read for every node.
_path = functools.lru_cache(maxsize=64)(Path)


def _absolute(store: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a store. Accesses the disk only if the path is relative."""
    path = os.fspath(store) if isinstance(store, (str, os.PathLike)) else None
    if not isinstance(path, str) or "\0" in path:
        raise FuruSettingsError(f"store must be a path, not {store!r}")
    path = _expanded(path)
    return Path(os.path.normpath(path if os.path.isabs(path) else os.path.join(_working_directory(), path)))


def _expanded(path: str) -> str:
    """Expand `~` at the beginning of a path, because a shell does not always do so."""
    if not path.startswith("~"):
        return path
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise FuruSettingsError(
            f"the store {path!r} begins with the home directory of an unknown user: give the whole path, "
            f"or ./{path} for a directory with this name"
        )
    return expanded


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError as error:
        raise FuruSettingsError(
            f"the path of the store is relative, and the working directory cannot be used: "
            f"{error.strerror}. Set FURU_PATH to an absolute path, or change to an existing directory"
        ) from error


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise FuruSettingsError(f"{name} must be a number, not {text!r}") from None


def _whole(number: float) -> int | float:
    """Return a whole number such as 1e6 as an int. Other numbers stay floats, which Settings rejects."""
    return int(number) if number.is_integer() else number


def _switch(name: str, text: str) -> bool:
    if text not in ("0", "1"):
        raise FuruSettingsError(f"{name} must be 1 or 0, not {text!r}")
    return text == "1"


def _project_store(start: str) -> Path:
    """Return the store beside the nearest pyproject.toml in or above `start`, or else in `start`."""
    return _path(project_of(start) or start, "furu-data")


@functools.lru_cache(maxsize=1024)
def project_of(directory: str) -> str | None:
    """Return the project that contains a directory: the nearest one, in or above it, with a pyproject.toml.
    None if there is none."""
    for above in (Path(directory), *Path(directory).parents):
        if os.path.isfile(above / "pyproject.toml"):
            return str(above)
    return None
