"""Argument checks: `TypeError` for a value of the wrong type, `ValueError` for a wrong value.

Every message names the argument, says what is allowed, and shows what was passed.
"""

from __future__ import annotations

import math
from collections.abc import Collection

__all__ = ["check_choice", "check_flag", "check_int", "check_number", "check_seconds"]


def check_int(name: str, value: object, *, least: int) -> None:
    """Require an int of at least `least`, and not a bool."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be {least} or more, not {value!r}")


def check_number(name: str, value: object, *, least: float, most: float = math.inf) -> None:
    """Require a finite number from `least` to `most`."""
    bounds = f"from {least} to {most}" if most < math.inf else f"of {least} or more"
    allowed = f"{name} must be a number {bounds}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{allowed}, not {value!r}")
    if not (math.isfinite(value) and least <= value <= most):
        raise ValueError(f"{allowed}, not {value!r}")


def check_seconds(name: str, value: object, *, may_be_zero: bool = False, none_means: str = "") -> None:
    """Require a finite, positive number of seconds. With `may_be_zero`, zero is allowed too.

    With `none_means`, None is allowed too, and the error message says what None means.
    """
    if value is None and none_means:
        return
    kind = "a number of seconds of 0 or more" if may_be_zero else "a positive number of seconds"
    allowed = f"{name} must be {kind}{f', or None {none_means}' if none_means else ''}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{allowed}, not {value!r}")
    if not math.isfinite(value) or value < 0 or (value == 0 and not may_be_zero):
        raise ValueError(f"{allowed}, not {value!r}")


def check_choice(name: str, value: object, allowed: Collection[str]) -> None:
    """Require one of the `allowed` words."""
    if value not in allowed:
        words = [repr(word) for word in allowed]
        raise ValueError(f"{name} must be {', '.join(words[:-1])} or {words[-1]}, not {value!r}")


def check_flag(name: str, value: object, *, none_means: str = "") -> None:
    """Require a bool. With `none_means`, None is allowed too, and the message says what None means."""
    if isinstance(value, bool) or (value is None and none_means):
        return
    allowed = f"True, False or None, {none_means}" if none_means else "True or False"
    raise TypeError(f"{name} must be {allowed}; not {value!r}")
