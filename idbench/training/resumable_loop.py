"""The loop of every training: steps, log, checkpoints, and stopping at a signal or a time limit."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from idbench.errors import UserError
from idbench.files import disk_errors, write_text
from idbench.output import note

Values = Mapping[str, float | torch.Tensor]


class Interrupted(KeyboardInterrupt):
    """A training stopped early, after writing a checkpoint. Exit code 130."""


class StopSignal:
    """Within this context, SIGINT and SIGTERM set `asked`; a second one has its usual effect.
    Outside the main thread signals are left to the caller."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        with suppress(ValueError):  # not in the main thread
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(number, self._before[number])


class Log:
    """The log of a training: one JSON object a line in `path`, which a resumed training continues,
    and the same in words on standard error; `steps` of the training are shown."""

    def __init__(self, path: Path, steps: int) -> None:
        self.path, self.steps = Path(path), steps

    def write(self, step: int, **values: Any) -> None:
        line = json.dumps({"step": step, **values}) + "\n"
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(line)
        shown = (f"{name.replace('_', ' ')} {value:.4g}" if isinstance(value, float) else
                 f"{name.replace('_', ' ')} {value}" for name, value in values.items())
        note(f"step {step} of {self.steps}: {', '.join(shown)}")

    def cut(self, step: int) -> None:
        """Remove the rows after `step`, which a training resumed there writes again."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError, KeyError, TypeError):  # cut off when the training was killed
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
        write_text(self.path, "".join(kept))


@dataclass
class Progress:
    """How far a training is: finished steps, seconds over all sessions, and values since the last
    row of the log. Part of its checkpoint."""

    step: int = 0
    seconds: float = 0.0
    pending: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Pace:
    """When a loop ends, logs and writes checkpoints.

    Attributes:
        minutes: time limit over all sessions, or None.
        log_every: steps between rows of the log, which are means over those steps.
        checkpoint_every, checkpoint_minutes: steps or minutes between checkpoints, or None; minutes
            for one process only, since clocks of several differ.
    """

    steps: int
    minutes: float | None = None
    log_every: int = 50
    checkpoint_every: int | None = None
    checkpoint_minutes: float | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "log_every"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"`{name}` is {value!r}; it must be a whole number from 1.")


def run(
    progress: Progress, pace: Pace, log: Log, *, advance: Callable[[int], Values],
    checkpoint: Callable[[Progress], None], after: Callable[[int], object] = lambda step: None,
    agree: Callable[[bool], bool] = lambda stop: stop,
    reduce: Callable[[dict[str, float]], dict[str, float]] = lambda means: means,
    resumed: bool = False,
) -> dict[str, Any]:
    """Train from `progress`, which is kept up to date, to `pace.steps` or the time limit; writes a
    checkpoint at the end, however it ends, and returns the last row of the log.

    Args:
        advance: do the update of a step (from 0); returns values to log, `loss` among them.
        after: called with the number of finished steps after each, before a checkpoint.
        agree: whether any process wants to stop; asked after every step.
        reduce: the mean over processes of the values to log.
        resumed: whether `progress` is that of a checkpoint, which need not be written again.

    Raises Interrupted: SIGINT or SIGTERM came; the step was finished. UserError: the loss is not
    finite; the checkpoint before is kept.
    """
    before, started = progress.seconds, time.monotonic()
    logged = saved = started
    row: dict[str, Any] = {}
    on_disk = progress.step if resumed else -1

    def write_checkpoint() -> None:
        nonlocal on_disk
        progress.pending = [_floats(values, progress.step) for values in progress.pending]
        checkpoint(progress)
        on_disk = progress.step

    with StopSignal() as stop:
        while progress.step < pace.steps and not agree(stop.asked):
            if pace.minutes is not None and progress.seconds >= 60 * pace.minutes:
                break
            values = advance(progress.step)
            progress.step += 1
            progress.pending.append(values)  # type: ignore[arg-type]  # tensors: not waited for
            now = time.monotonic()
            progress.seconds = before + now - started
            if progress.step % pace.log_every == 0 or progress.step == pace.steps:
                count, means = len(progress.pending), reduce(_means(progress))
                row = {**means, "steps_per_second": count / (now - logged),
                       "minutes": progress.seconds / 60}
                log.write(progress.step, **row)
                progress.pending, logged = [], now
            after(progress.step)
            in_steps = pace.checkpoint_every and progress.step % pace.checkpoint_every == 0
            in_time = pace.checkpoint_minutes is not None and now - saved > (
                60 * pace.checkpoint_minutes)
            if in_steps or in_time:
                write_checkpoint()
                saved = time.monotonic()
            logged += time.monotonic() - now  # pauses do not count in steps per second
        if on_disk != progress.step:
            write_checkpoint()
    if progress.step < pace.steps and stop.asked:
        raise Interrupted(
            f"Stopped at step {progress.step} of {pace.steps}; continue with the same command and "
            "--resume."
        )
    return {"step": progress.step, **row}


def _means(progress: Progress) -> dict[str, float]:
    """Mean of each value over the steps that have it."""
    rows = [_floats(values, progress.step) for values in progress.pending]
    names = dict.fromkeys(name for row in rows for name in row)
    lists = {name: [row[name] for row in rows if name in row] for name in names}
    return {name: sum(values) / len(values) for name, values in lists.items()}


def _floats(values: Values, step: int) -> dict[str, float]:
    """The values as numbers; waits for the device. Raises UserError: the loss is infinite or
    NaN."""
    row = {name: float(value) for name, value in values.items()}
    if not math.isfinite(row.get("loss", 0.0)):
        raise UserError(
            f"The loss is {row['loss']} at step {step}: training has diverged; lower the "
            "learning_rate and resume from an older checkpoint."
        )
    return row
