"""Checks of the settings and hooks of a node class. They run when the class is created."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from furu._common.checks import check_choice, check_seconds
from furu.errors import FuruUsageError
from furu.retry import Retry

# The module and the qualified name of a class.
_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.([^\W\d]\w*|<locals>))*\Z")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# The settings of a node class, each with a check of its value. Then the hooks of a node class.
_SETTINGS: dict[str, Callable[[Any], bool]] = {
    "_name": lambda value: isinstance(value, str) and bool(_NAME.match(value)),
    "_version": lambda value: isinstance(value, (int, str)),
    "_codec": lambda value: isinstance(value, str) and value in ("json", "pickle"),
    "_retry": lambda value: isinstance(value, Retry),
    "_timeout_sec": _is_number,
    "_partial": lambda value: isinstance(value, bool),
}
_HOOKS = ("_create", "_load", "_validate", "_dependencies", "_executor_spec_key")


def check_class_settings(cls: Any) -> None:
    """Raise `FuruUsageError` if a class has a wrong setting, or a misspelled setting or hook."""
    for name, value in vars(cls).items():
        meant = _misspelled(name, value)
        if meant:
            raise FuruUsageError(
                f"{cls.__qualname__}.{name} has no meaning for furu. Did you mean {meant}? If the name is "
                "your own, choose one that looks less similar."
            )
    name = cls.__qualname__
    fixed = vars(cls).get("_name")
    if fixed is not None and not _SETTINGS["_name"](fixed):
        raise FuruUsageError(
            f"{name}._name must be the name of a class in the store, such as 'nodes:{name}', not {fixed!r}"
        )
    if not isinstance(cls._partial, bool):
        raise FuruUsageError(f"{name}._partial must be True or False, not {cls._partial!r}")
    if not isinstance(cls._retry, Retry | None):
        raise FuruUsageError(f"{name}._retry must be a Retry or None, not {cls._retry!r}")
    try:
        check_choice(f"{name}._codec", cls._codec, ("json", "pickle"))
        check_seconds(f"{name}._timeout_sec", cls._timeout_sec, none_means="for no limit")
    except (TypeError, ValueError) as error:
        raise FuruUsageError(str(error)) from None


def _misspelled(name: str, value: object) -> str | None:
    """Return the setting or hook that a name in a class's body seems to misspell, or None.

    A name is not a misspelling if the setting would not accept its value, or if it extends the name of a
    hook (`_load_table`).
    """
    if not name.startswith("_") or name.startswith("__") or name in _SETTINGS:
        return None
    if callable(value) or isinstance(value, (staticmethod, classmethod, property)):
        near = [hook for hook in _HOOKS if not name.startswith(hook) and _is_near(name, hook, 0.85)]
    else:
        near = [
            setting
            for setting, accepts in _SETTINGS.items()
            if accepts(value) and (setting.startswith(f"{name}_") or _is_near(name, setting, 0.8))
        ]
    return near[0] if near else None


def _is_near(name: str, known: str, ratio: float) -> bool:
    if name[1:2].lower() != known[1]:
        return False
    import difflib

    return sorted(name) == sorted(known) or difflib.SequenceMatcher(None, name, known).ratio() > ratio
