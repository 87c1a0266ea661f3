"""What callers pass to a run, checked before anything is computed: each error says what is allowed."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Collection, Iterable, Mapping
from typing import Any, get_args

from furu._common.text import a_type
from furu.context import EXEC_CONTEXT
from furu.errors import FuruUsageError
from furu.execution.discovery import check_root
from furu.execution.scheduler import OnFailure
from furu.execution.workers import Workers
from furu.node.furu import Furu


def check_roots(roots: Iterable[Furu[Any]]) -> None:
    """Refuse what is not an iterable of nodes before anything is computed."""
    if isinstance(roots, Furu):
        raise FuruUsageError(
            f"roots must be an iterable of Furu nodes: write [{type(roots).__qualname__}(...)] for one"
        )
    if isinstance(roots, (str, bytes, Mapping)) or not isinstance(roots, Iterable):
        raise FuruUsageError(f"roots must be an iterable of Furu nodes, not {a_type(roots)}")
    if isinstance(roots, Collection):
        for number, root in enumerate(roots):
            check_root(root, number)


def check_max_workers(max_workers: int) -> None:
    """Raise `TypeError` or `ValueError` unless this is an int of at least 1."""
    if isinstance(max_workers, bool) or not isinstance(max_workers, int):
        raise TypeError(f"max_workers must be an int, not {max_workers!r}")
    if max_workers < 1:
        raise ValueError(f"max_workers must be 1 or more, not {max_workers!r}")


def check_workers(workers: Workers | None) -> None:
    """Raise `TypeError` unless these are workers; a class of workers is refused too."""
    if isinstance(workers, type) or not (workers is None or hasattr(workers, "open")):
        raise TypeError(
            "workers must be None (threads) or workers of furu.execution.workers: ThreadWorkers(), "
            f"ProcessWorkers() or DaskWorkers(client_or_address), not {workers!r}"
        )


def check_poll_interval(poll_interval_sec: float) -> None:
    """Raise `TypeError` or `ValueError` unless this is a positive number of seconds."""
    allowed = "poll_interval_sec must be a positive number of seconds"
    _number(allowed, poll_interval_sec)
    if poll_interval_sec <= 0:
        raise ValueError(f"{allowed}, not {poll_interval_sec!r}")


def check_grace(grace_sec: float | None) -> None:
    """Raise `TypeError` or `ValueError` unless this is None or a number of seconds, 0 or more."""
    if grace_sec is None:
        return
    allowed = "grace_sec must be a number of seconds of 0 or more, or None to wait to the end"
    _number(allowed, grace_sec)
    if grace_sec < 0:
        raise ValueError(f"{allowed}, not {grace_sec!r}")


def _number(allowed: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{allowed}, not {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{allowed}, not {value!r}")


def check_spec_limits(spec_limits: Mapping[str, int] | None) -> None:
    """Refuse what does not limit nodes by their spec key."""
    if spec_limits is None:
        return
    allowed = "spec_limits must map spec keys to ints of 1 or more, such as {'gpu': 1}"
    if not isinstance(spec_limits, Mapping):
        raise TypeError(f"{allowed}, not {spec_limits!r}")
    for key, limit in spec_limits.items():
        if not isinstance(key, str) or isinstance(limit, bool) or not isinstance(limit, int):
            raise TypeError(f"{allowed}, not {{{key!r}: {limit!r}}}")
        if limit < 1:
            raise ValueError(f"{allowed}, not {{{key!r}: {limit!r}}}")


def check_on_failure(on_failure: OnFailure) -> None:
    """Refuse what a run cannot do after a failure."""
    if on_failure not in get_args(OnFailure):
        raise ValueError(f"on_failure must be 'stop' or 'continue', not {on_failure!r}")


def check_progress(progress: bool | None) -> None:
    """Refuse what does not say whether progress is shown."""
    if progress is not None and not isinstance(progress, bool):
        raise TypeError(f"progress must be True, False or None, which looks at stderr; not {progress!r}")


def progress_is_wanted() -> bool:
    """Whether to show progress where the caller leaves it open: stderr is a terminal, rich is installed,
    and no node makes this call."""
    if EXEC_CONTEXT.get().mode != "interactive" or os.environ.get("TERM") == "dumb":
        return False
    try:
        if not sys.stderr.isatty():
            return False
    except Exception:  # it is None, closed, or not a stream
        return False
    try:
        import rich  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True
