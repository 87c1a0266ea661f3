"""Checks the options of a run, before any node is computed."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Mapping
from typing import Any, get_args

from furu._common.checks import check_choice, check_flag, check_int, check_seconds
from furu._common.text import a_type
from furu.context import EXEC_CONTEXT
from furu.errors import FuruUsageError
from furu.execution.discovery import check_root
from furu.execution.scheduler import OnFailure, Order
from furu.execution.workers import Workers
from furu.node.furu import Furu
from furu.node.questions import QUESTION
from furu.settings import OnCodeChange

DEFAULT_MAX_WORKERS = 8
DEFAULT_MAX_ASYNC = 100


def check_roots(roots: Iterable[Furu[Any]]) -> None:
    """Check that `roots` is an iterable of nodes. An iterator's items are checked when they are read."""
    if isinstance(roots, Furu):
        raise FuruUsageError(
            f"roots must be an iterable of Furu nodes: write [{type(roots).__qualname__}(...)] for one"
        )
    if isinstance(roots, (str, bytes, Mapping)) or not isinstance(roots, Iterable):
        raise FuruUsageError(f"roots must be an iterable of Furu nodes, not {a_type(roots)}")
    if isinstance(roots, Collection):
        for number, root in enumerate(roots):
            check_root(root, number)


def check_limits(max_workers: int, max_async: int) -> None:
    """Check that both limits are ints of 1 or more."""
    check_int("max_workers", max_workers, least=1)
    check_int("max_async", max_async, least=1)


def check_options(
    *,
    poll_interval_sec: float,
    workers: Workers | None,
    on_failure: OnFailure,
    spec_limits: Mapping[str, int] | None,
    grace_sec: float | None,
    progress: bool | None,
    order: Order,
    on_code_change: OnCodeChange | None = None,
) -> None:
    """Check these options of `run_local_async`. Raises `TypeError` or `ValueError`, and `FuruUsageError`
    where no run may begin."""
    if QUESTION.get() is not None:
        raise FuruUsageError("_dependencies() must compute nothing: return the nodes, or get() them")
    check_seconds("poll_interval_sec", poll_interval_sec)
    if isinstance(workers, type) or not (workers is None or hasattr(workers, "open")):
        raise TypeError(
            "workers must be None (threads) or workers of furu.execution.workers: ThreadWorkers(), "
            f"ProcessWorkers() or DaskWorkers(client_or_address), not {workers!r}"
        )
    check_choice("on_failure", on_failure, get_args(OnFailure))
    check_choice("order", order, get_args(Order))
    check_on_code_change(on_code_change)
    _check_spec_limits({} if spec_limits is None else spec_limits)
    check_seconds("grace_sec", grace_sec, may_be_zero=True, none_means="to wait to the end")
    check_flag("progress", progress, none_means="which looks at stderr")


def check_on_code_change(on_code_change: OnCodeChange | None) -> None:
    """Check that the value is None, which means the setting, or one of the words."""
    if on_code_change is not None:
        check_choice("on_code_change", on_code_change, get_args(OnCodeChange))


def _check_spec_limits(spec_limits: Mapping[str, int]) -> None:
    if not isinstance(spec_limits, Mapping):
        raise TypeError(f"spec_limits must be a mapping such as {{'gpu': 1}}, not {spec_limits!r}")
    for key, limit in spec_limits.items():
        if not isinstance(key, str):
            raise TypeError(f"spec_limits must have spec keys as keys, such as 'gpu', not {key!r}")
        check_int(f"spec_limits[{key!r}]", limit, least=1)


def progress_is_wanted() -> bool:
    """Return whether `run_local` shows progress by default. It does if stderr is a terminal (and TERM is
    not "dumb"), rich is installed, and the caller is not a node's `_create`."""
    if EXEC_CONTEXT.get().mode != "interactive" or os.environ.get("TERM") == "dumb":
        return False
    try:
        if not sys.stderr.isatty():
            return False
    except Exception:  # stderr is None, closed, or not a stream
        return False
    try:
        import rich  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True
