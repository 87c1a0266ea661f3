"""Shows the progress of a run on a terminal, or as lines of text elsewhere. Needs the extra `cli`.

The run's loop only queues events. A separate thread counts them, draws and writes. On a terminal, progress
is drawn *below* the cursor, which stays on an empty line. The host prints and logs on that line, and the
next redraw moves the progress below the host's output. The host's streams are not redirected.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from furu._common.loops import in_thread, shielded
from furu._common.text import printable
from furu.errors import FuruStoreError, FuruUsageError
from furu.events import Event, RunFinished, class_labels
from furu.observing.durations import mean_duration_sec
from furu.observing.estimate import Estimate
from furu.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

logger = logging.getLogger("furu.run")

_REDRAW_SEC = 0.1
_LINE_SEC = 10.0
_ESTIMATE_SEC = 0.5
# The number of classes that are shown on a terminal: those with the most nodes.
_SHOWN_CLASSES = 6
# The number of running nodes of which the reported progress is shown.
_SHOWN_NODES = 6
_BAR_COLUMNS = 24

_ERASE_BELOW = "\x1b[J"


class Progress:
    """A context manager that shows the progress of a run. Pass it to the run as `on_event`.

    On a terminal it updates a few lines; elsewhere it writes a line every ten seconds. With `summary` it
    writes one line at the end. If stderr is closed, or its terminal hangs up, nothing more is shown and the
    run continues.

    Raises `FuruUsageError` if rich is not installed.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        max_workers: int,
        summary: bool = True,
        console: Console | None = None,
    ) -> None:
        self._broken = False
        if console is not None:
            self._console = console
        else:
            self._try(functools.partial(self._open, _console_class()))
        self._summary = summary
        self._events: deque[Event] = deque()
        self._estimate = Estimate(self._recorded_sec, max_workers=max_workers)
        self._settings = settings
        self._began = time.monotonic()
        self._finished: RunFinished | None = None
        self._stop = threading.Event()
        self._writing = threading.Lock()
        self._drawn = False
        self._remaining_sec: float | None = None
        self._next_estimate = 0.0
        self._live = False
        self._thread = threading.Thread(
            target=self._try, args=(self._show,), name="furu-progress", daemon=True
        )

    def _recorded_sec(self, node_class: str) -> float | None:
        try:
            return mean_duration_sec(self._settings, node_class)
        except FuruStoreError:  # the run itself raises this error
            return None

    def __call__(self, event: Event) -> None:
        """Queue an event for the thread."""
        if not self._broken:
            self._events.append(event)

    def __enter__(self) -> Self:
        self._try(self._thread.start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._try(self._end)

    def tell(self, message: str) -> None:
        """Write a line above the drawn lines."""
        self._try(functools.partial(self._tell, message))

    def _try(self, action: Callable[[], None]) -> None:
        """Run an action. If it raises, for example because stderr is closed, stop showing progress."""
        if self._broken:
            return
        try:
            action()
        except Exception:
            self._broken = True
            logger.debug("progress is no longer shown", exc_info=True)

    def _open(self, console_class: type[Console]) -> None:
        self._console = console_class(stderr=True, highlight=False, markup=False, emoji=False)

    def _end(self) -> None:
        self._count()
        with self._writing:
            self._erase()
        if self._summary and self._finished is not None:
            self._tell(self._ending(self._finished))

    def _tell(self, message: str) -> None:
        with self._writing:
            self._erase()
            self._write(f"furu: {printable(message)}\n")

    # ---- in the thread ----

    def _show(self) -> None:
        self._live = self._console.is_terminal and not self._console.is_dumb_terminal
        next_line = time.monotonic() + _LINE_SEC
        while not self._stop.wait(_REDRAW_SEC):
            self._count()
            if self._live:
                self._draw()
            elif time.monotonic() >= next_line:
                next_line += _LINE_SEC
                self._tell(self.line())

    def _count(self) -> None:
        while self._events:
            event = self._events.popleft()
            self._estimate.add(event)
            if isinstance(event, RunFinished):
                self._finished = event

    def line(self) -> str:
        """Return the progress of the run as one line."""
        estimate, elapsed = self._estimate, time.monotonic() - self._began
        known = f"{estimate.known:,}" if estimate.plan_is_known else f"{estimate.known:,} known so far"
        parts = [f"{estimate.done:,} of {known}", f"{estimate.running} running"]
        if estimate.failed:
            parts.append(f"{estimate.failed} failed")
        if estimate.done:
            parts.append(f"{estimate.done / elapsed:,.1f} a second")
        if elapsed >= self._next_estimate:
            self._next_estimate = elapsed + _ESTIMATE_SEC
            self._remaining_sec = estimate.remaining_sec(elapsed, time.time())
        if self._remaining_sec is not None and estimate.known > estimate.done:
            about = "about" if estimate.plan_is_known else "at least"
            parts.append(f"{about} {duration(self._remaining_sec)} left")
        return ", ".join(parts)

    def _draw(self) -> None:
        with self._console.capture() as capture:
            self._console.print(self._lines())
        block = capture.get().rstrip("\n")
        # Leave an empty line for the host to write on, draw the block below it, and move back up.
        text = f"\r{_ERASE_BELOW}\n{block}\x1b[{block.count(chr(10)) + 1}A\r"
        with self._writing:
            self._drawn = True
            self._write(text)

    def _lines(self) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        estimate = self._estimate
        share = estimate.done / estimate.known if estimate.known else 0.0
        filled = int(share * _BAR_COLUMNS)
        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True, overflow="ellipsis")
        grid.add_column(no_wrap=True, overflow="ellipsis")
        bar = Text("━" * filled, style="green").append("━" * (_BAR_COLUMNS - filled), style="bright_black")
        grid.add_row(bar, Text(self.line()))
        largest = sorted(estimate.classes.items(), key=lambda item: (-item[1].known, item[0]))
        labels = class_labels(estimate.classes)
        for node_class, one in largest[:_SHOWN_CLASSES]:
            text = Text(f"{one.done:,} of {one.known:,}, {one.running} running")
            if one.failed:
                text.append(f", {one.failed} failed", style="red")
            grid.add_row(Text(printable(labels[node_class])), text)
        for key, node_class, advance in estimate.advances[:_SHOWN_NODES]:
            name = f"{node_class.rpartition(':')[2]} {key[:8]}"
            grid.add_row(Text(printable(name), style="bright_black"), Text(printable(str(advance))))
        return grid

    def _erase(self) -> None:
        if self._drawn:
            self._write(f"\r{_ERASE_BELOW}")
            self._drawn = False

    def _write(self, text: str) -> None:
        file = self._console.file
        file.write(text)
        file.flush()

    @staticmethod
    def _ending(event: RunFinished) -> str:
        did = event.report
        counts = [f"computed {did.computed:,}", f"reused {did.reused:,}", f"failed {did.failed:,}"]
        if did.skipped:
            counts.append(f"skipped {did.skipped:,}")
        return f"run {event.end}: {', '.join(counts)} in {did.wall_sec:.1f} s"


@asynccontextmanager
async def showing(settings: Settings, *, max_workers: int) -> AsyncIterator[Progress]:
    """Show the progress of a run during the block, which passes the run's events to the `Progress`."""
    shown = await in_thread(functools.partial(Progress, settings, max_workers=max_workers))
    shown.__enter__()
    try:
        yield shown
    finally:
        await shielded(shown.__exit__, None, None, None)


def duration(seconds: float) -> str:
    """Format a duration for people, such as ``1:02:03`` or ``8 s``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _console_class() -> type[Console]:
    try:
        from rich.console import Console
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "rich":
            raise
        raise FuruUsageError(
            'progress=True needs rich: pip install "furu[cli]", or leave progress out'
        ) from None
    return Console
