"""Progress of a run: a bar with the remaining time on a terminal, lines in a log, or nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
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
    """Call it after each finished unit, or with the `count` of finished ones."""

    def __call__(self, note: str = "", count: int = 1) -> None: ...


class Progress:
    """Where a run reports how far it is; `quiet`, and --quiet, report nothing."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet

    def say(self, text: str) -> None:
        """One line on standard error."""
        if not self.quiet:
            output.note(text)


def steps(title: str, total: int, quiet: bool = False) -> AbstractContextManager[Step]:
    """A bar of `total` units on standard error; `quiet`, or --quiet, shows nothing."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        RateColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )

    def line(done: int, seconds: float) -> str:
        left, speed = seconds / done * (total - done), done / max(seconds, 1e-9)
        return f"{done} of {total}, {seconds:.0f} s, {left:.0f} s left, {rate(speed)}"

    return _bar(title, total, quiet or total == 0, columns, line)


def transfer(title: str, total: int) -> AbstractContextManager[Step]:
    """A bar of bytes on standard error, or lines in a log; `total` 0: not known."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(),
        TransferSpeedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )
    whole = f" of {total / 1e6:.1f}" if total else ""
    return _bar(title, total, False, columns, lambda done, _: f"{done / 1e6:.1f}{whole} MB")


@contextmanager
def _bar(
    title: str, total: int, quiet: bool, columns: Sequence[ProgressColumn],
    line: Callable[[int, float], str],
) -> Iterator[Step]:
    """On a terminal a bar with `columns`, otherwise now and then a line of what is done in so many
    seconds."""
    console = Console(stderr=True)
    if quiet or output.level() == output.QUIET:
        yield lambda note="", count=1: None
    elif console.is_terminal:
        with RichProgress(*columns, console=console) as progress:
            task = progress.add_task(title, total=total or None, note="")
            yield lambda note="", count=1: progress.update(
                task, advance=count, note=escape(output.visible(note)))
    else:
        start = shown = time.monotonic()
        done = 0

        def step(note: str = "", count: int = 1) -> None:
            nonlocal done, shown
            done += count
            moment = time.monotonic()
            if moment - shown >= LINE_SECONDS or (total and done == total):
                shown = moment
                told = f"{title}: {line(done, moment - start)}{f', {note}' if note else ''}"
                console.print(told, highlight=False, soft_wrap=True)

        yield step
