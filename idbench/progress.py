"""Progress of a run: a bar with the remaining time on a terminal, lines in a log, or nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

from idbench import output

LINE_SECONDS = 30.0
"""Without a terminal (a log file, CI) one line is printed this often."""


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
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
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
                    f"{title}: {done} of {total}, {moment - start:.0f} s, {left:.0f} s left",
                    highlight=False, soft_wrap=True,
                )

        yield line
