"""Lets threads that a node starts inherit the node's context variables: the settings, the log, and what
`get()` may do.

Python copies context variables into tasks, but not into threads, except as an option since 3.14. Without
them, a thread that a node starts would not know the run's store, and would compute dependencies again in
another store. So while a node is computed, `Thread.start` and `ThreadPoolExecutor.submit` behave as with
`-X thread_inherit_context=1`.
"""

from __future__ import annotations

import contextvars
import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.thread import ThreadPoolExecutor
from typing import Any, TypeVar, cast

R = TypeVar("R")
_POOL_ARGUMENTS = ("max_workers", "thread_name_prefix", "initializer", "initargs")

_installing = threading.RLock()
_installed = False
# Set during a pool's `submit`, because the threads that the pool starts serve other callers too.
_in_submit: contextvars.ContextVar[bool] = contextvars.ContextVar("furu_in_submit", default=False)


def install(is_in_node: Callable[[], bool]) -> None:
    """Wrap `Thread.start` and the pool's methods once per process. `is_in_node` returns whether the caller
    is in a node."""
    global _installed
    if _installed:
        return
    with _installing:
        if _installed:
            return
        _wrap_start(is_in_node)
        _wrap_pool(is_in_node)
        _wrap_submit(is_in_node)
        _installed = True


def _wrap_start(is_in_node: Callable[[], bool]) -> None:
    start = threading.Thread.start

    @functools.wraps(start)
    def start_in_context(self: threading.Thread) -> None:
        # Threads of pools and of anyio serve other callers too, so each call gets its own context.
        if not is_in_node() or _in_submit.get() or type(self).__module__.startswith("anyio."):
            return start(self)
        run = self.run
        self.run = functools.partial(_run_once, self, contextvars.copy_context(), run)  # type: ignore[method-assign]
        try:
            return start(self)
        except BaseException:
            vars(self).pop("run", None)
            raise

    threading.Thread.start = start_in_context  # type: ignore[method-assign]


def _run_once(thread: threading.Thread, context: contextvars.Context, run: Callable[[], None]) -> None:
    vars(thread).pop("run", None)  # `run` refers to the thread and, through the context, to the node
    context.run(run)


def _wrap_pool(is_in_node: Callable[[], bool]) -> None:
    """Run a pool's initializer in the context of the code that creates the pool."""
    make = ThreadPoolExecutor.__init__

    @functools.wraps(make)
    def make_in_context(self: ThreadPoolExecutor, *args: Any, **options: Any) -> None:
        options |= dict(zip(_POOL_ARGUMENTS, args, strict=False))
        initializer = options.get("initializer")
        if initializer is not None and is_in_node():
            context = contextvars.copy_context()
            options["initializer"] = lambda *initargs: context.copy().run(initializer, *initargs)
        make(self, **options)

    ThreadPoolExecutor.__init__ = make_in_context  # type: ignore[method-assign]


def _wrap_submit(is_in_node: Callable[[], bool]) -> None:
    submit = ThreadPoolExecutor.submit

    @functools.wraps(cast(Callable[..., Any], submit))
    def submit_in_context(
        self: ThreadPoolExecutor, fn: Callable[..., R], /, *args: Any, **kwargs: Any
    ) -> Future[R]:
        if not is_in_node():
            return submit(self, fn, *args, **kwargs)
        context = contextvars.copy_context()
        token = _in_submit.set(True)
        try:
            return submit(self, context.run, fn, *args, **kwargs)
        finally:
            _in_submit.reset(token)

    ThreadPoolExecutor.submit = submit_in_context  # type: ignore[method-assign,assignment]


def _after_fork() -> None:
    global _installing
    _installing = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)
