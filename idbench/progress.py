"""Progress of a run: a bar with the remaining time on a terminal, lines in a log, or nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text

from idbench import output

LINE_SECONDS = 30.0
"""Without a terminal (a log file, CI) one line is printed this often."""


class RateColumn(ProgressColumn):
    """Units a second, or a minute where they take longer."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else rate(task.speed), style="progress.data.speed")


def rate(speed: float) -> str:
    """Units per second, as it is shown."""
    return f"{speed:.1f} a second" if speed >= 1 else f"{60 * speed:.1f} a minute"


class Step(Protocol):
    """Call it after each finished unit."""

    def __call__(self, note: str = "") -> None: ...


class Progress:
    """Where a run reports how far it is; `quiet`, and --quiet, report nothing."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet

    def say(self, text: str) -> None:
        """One line on standard error."""
        if not self.quiet:
            output.note(text)

    def bar(self, title: str, total: int) -> AbstractContextManager[Step]:
        """A bar of `total` units; see `steps`."""
        return steps(title, total, self.quiet)


@contextmanager
def steps(title: str, total: int, quiet: bool = False) -> Iterator[Step]:
    """A bar of `total` units on standard error; `quiet`, or --quiet, shows nothing."""
    console = Console(stderr=True)
    if quiet or total == 0 or output.level() == output.QUIET:
        yield lambda note="": None
    elif console.is_terminal:
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            RateColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with RichProgress(*columns, console=console) as progress:
            task = progress.add_task(title, total=total, note="")
            yield lambda note="": progress.update(
                task, advance=1, note=escape(output.visible(note)))
    else:
        start = shown = time.monotonic()
        done = 0

        def line(note: str = "") -> None:
            nonlocal done, shown
            done += 1
            moment = time.monotonic()
            if moment - shown >= LINE_SECONDS or done == total:
                shown = moment
                left = (moment - start) / done * (total - done)
                console.print(
                    f"{title}: {done} of {total}, {moment - start:.0f} s, {left:.0f} s left, "
                    f"{rate(done / max(moment - start, 1e-9))}{f', {note}' if note else ''}",
                    highlight=False, soft_wrap=True,
                )

        yield line


@contextmanager
def transfer(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar of bytes on standard error, or lines in a log; call it with the number of new bytes.
    `total` 0: not known."""
    console = Console(stderr=True)
    if output.level() == output.QUIET:
        yield lambda count: None
    elif console.is_terminal:
        columns = (
            TextColumn("{task.description}"), BarColumn(), DownloadColumn(),
            TransferSpeedColumn(), TextColumn("left"), TimeRemainingColumn(),
        )
        with RichProgress(*columns, console=console) as progress:
            task = progress.add_task(title, total=total or None)
            yield lambda count: progress.update(task, advance=count)
    else:
        shown, done = time.monotonic(), 0

        def line(count: int) -> None:
            nonlocal shown, done
            done += count
            if time.monotonic() - shown >= LINE_SECONDS or (total and done == total):
                shown = time.monotonic()
                whole = f" of {total / 1e6:.1f}" if total else ""
                console.print(f"{title}: {done / 1e6:.1f}{whole} MB", highlight=False,
                              soft_wrap=True)

        yield line
