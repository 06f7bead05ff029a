"""Engines: where the samples of a run are worked through. One sample is one unit of work.

An engine works through samples, and never stops at one that fails. What it cannot work around (a
full disk, damaged weights, Ctrl-C) ends the run; what is finished is kept. What is generated and
scored does not depend on the engine.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from idbench.devices import AUTO, check_name, resolve
from idbench.errors import FatalError, UserError, describe
from idbench.progress import Step
from idbench.records import SampleFile
from idbench.runs import Run
from idbench.scoring import Scoring
from idbench.types import Model, Sample, Video
from idbench.video_scorer import Describe, VideoScorer


@dataclass(frozen=True)
class Outcome:
    """What a model made of one sample: frames, a finished file, or the reason why neither.

    `seconds` is the time since the previous outcome, `trace` a failure's traceback; `kept`: a
    worker (named in `note`) has written it to the run folder already."""

    sample: Sample
    video: Video | Path | None
    reason: str | None
    seconds: float
    trace: str | None = None
    kept: bool = False
    note: str = ""


class Engine(Protocol):
    """Where a run is worked through."""

    name: str

    def open(self, run: Run) -> AbstractContextManager[None]:
        """Be ready for the run until the block ends."""
        ...

    def prepare(self, model: Model) -> None:
        """Load the model, if this process generates."""
        ...

    def generate(self, model: Model, samples: Sequence[Sample]) -> Iterator[Outcome]:
        """One outcome per adopted sample."""
        ...

    def score(
        self, run: Run, records: Sequence[SampleFile], scoring: Scoring, describe: Describe,
        advance: Step,
    ) -> None:
        """Score the records and write their scores; `advance` after each."""
        ...

    def about(self) -> dict[str, Any]:
        """For run.json."""
        ...


class LocalEngine:
    """Works in this process, `batch` samples at a time (None: as many as the model likes)."""

    name = "local"

    def __init__(self, batch: int | None = None, device: str = AUTO) -> None:
        if batch is not None and batch < 1:
            raise UserError("A batch needs at least one sample; use --batch 1 or more.")
        self.batch, self.asked = batch, check_name(device)
        if self.asked not in (AUTO, "cpu"):
            resolve(self.asked)  # a missing GPU is said at once

    @cached_property
    def device(self) -> str:
        """Of torch. `auto` is looked up when a network needs it: most commands need none."""
        return resolve(self.asked)

    def open(self, run: Run) -> AbstractContextManager[None]:
        return nullcontext()

    def prepare(self, model: Model) -> None:
        load_model(model, lambda: self.device)

    def about(self) -> dict[str, Any]:
        return {"name": self.name, "device": self.__dict__.get("device", self.asked)}

    def generate(self, model: Model, samples: Sequence[Sample]) -> Iterator[Outcome]:
        """One outcome per sample, in order. If a batch fails, its remaining samples are tried one
        by one, so that a bad sample costs only itself."""
        size = self.batch or getattr(model, "batch", None) or 4
        for start in range(0, len(samples), size):
            batch = samples[start : start + size]
            done = 0
            for outcome in attempt(model, batch):
                if outcome.video is None and len(batch) > 1:
                    break
                yield outcome
                done += 1
            for sample in batch[done:]:
                yield next(attempt(model, [sample]))

    def score(
        self, run: Run, records: Sequence[SampleFile], scoring: Scoring, describe: Describe,
        advance: Step,
    ) -> None:
        VideoScorer(run, scoring, self.asked).score(records, describe, advance)


def load_model(model: Model, device: Callable[[], str]) -> None:
    """Load a model's networks on a device, if it has `use_device` and `load`."""
    use_device, load = getattr(model, "use_device", None), getattr(model, "load", None)
    if callable(use_device):
        use_device(device())
    if callable(load):
        load()


def attempt(model: Model, batch: Sequence[Sample]) -> Iterator[Outcome]:
    """Outcomes of `batch` up to the first failure, that one included. Raises UserError: the model
    gives more videos than samples, so none can be trusted."""
    clock = time.perf_counter()
    done = 0
    surplus: Video | Path | None = None
    try:
        videos = iter(model.generate(deepcopy(list(batch))))  # it must not change what is asked
        for sample in batch:
            video = next(videos, None)
            if video is None:
                break
            elapsed, clock = time.perf_counter() - clock, time.perf_counter()
            yield Outcome(sample, video, None, elapsed)
            clock = time.perf_counter()
            done += 1
        surplus = next(videos, None) if done == len(batch) else None
    except FatalError:
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
