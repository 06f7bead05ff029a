"""Engines: how the samples of a run are worked through. One sample is one unit of work.

An engine turns samples into outcomes, in order, and never stops at a sample that fails. What
it cannot work around (a full disk, damaged weights, Ctrl-C) ends the run; what is finished is
kept.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from idbench.embedded import WeightError
from idbench.errors import UserError
from idbench.files import DiskFull
from idbench.types import Model, Sample, Video

FATAL = (DiskFull, WeightError)
"""Errors that every further sample would meet too."""


@dataclass(frozen=True)
class Outcome:
    """What a model made of one sample: frames or a finished file, or why there is neither.

    `seconds` is the time since the previous outcome; `trace` the traceback of a failure.
    """

    sample: Sample
    video: Video | Path | None
    reason: str | None
    seconds: float
    trace: str | None = None


class LocalEngine:
    """Generates in this process, `batch` samples at a time."""

    name = "local"

    def __init__(self, batch: int) -> None:
        if batch < 1:
            raise UserError("A batch needs at least one sample; use --batch 1 or more.")
        self.batch = batch

    def generate(self, model: Model, samples: Sequence[Sample]) -> Iterator[Outcome]:
        """One outcome per sample, in order.

        When a batch fails, the samples of it that have no video yet are tried one by one, so
        that one bad sample costs itself alone.
        """
        for start in range(0, len(samples), self.batch):
            batch = samples[start : start + self.batch]
            done = 0
            for outcome in _attempt(model, batch):
                if outcome.video is None and len(batch) > 1:
                    break
                yield outcome
                done += 1
            for sample in batch[done:]:
                yield next(_attempt(model, [sample]))


ENGINES = {LocalEngine.name: LocalEngine}


def describe(error: BaseException) -> str:
    """An exception in one line."""
    if isinstance(error, UserError):
        return " ".join(str(error).split())
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _attempt(model: Model, batch: Sequence[Sample]) -> Iterator[Outcome]:
    """Outcomes of `batch` up to the first failure, that one included.

    Raises:
        UserError: the model gives more videos than samples, so none can be trusted.
    """
    clock = time.perf_counter()
    done = 0
    surplus: Video | Path | None = None
    try:
        videos = iter(model.generate(batch))
        for sample in batch:
            video = next(videos, None)
            if video is None:
                break
            elapsed, clock = time.perf_counter() - clock, time.perf_counter()
            yield Outcome(sample, video, None, elapsed)
            clock = time.perf_counter()
            done += 1
        surplus = next(videos, None) if done == len(batch) else None
    except FATAL:
        raise
    except (Exception, SystemExit) as error:
        if done == len(batch):  # All videos are there: what its clean-up says costs nothing.
            return
        elapsed = time.perf_counter() - clock
        yield Outcome(batch[done], None, describe(error), elapsed, traceback.format_exc())
        return
    if surplus is not None:
        raise UserError(
            f"The model {model.name} returns more videos than the {len(batch)} samples asked for; "
            "fix its `generate`: one video per sample, in order."
        )
    if done < len(batch):
        reason = f"the model returned {done} videos for {len(batch)} samples"
        yield Outcome(batch[done], None, reason, time.perf_counter() - clock)
