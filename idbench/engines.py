"""Engines: where the samples of a run are worked through. One sample is one unit of work.

An engine works through samples, and never stops at one that fails. What it cannot work around (a
full disk, damaged weights, Ctrl-C) ends the run; what is finished is kept. What is generated and
scored does not depend on the engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

from idbench.devices import AUTO, check_name, resolve
from idbench.errors import UserError
from idbench.generating import Outcome, load_model, outcomes
from idbench.names import one_of
from idbench.progress import Step
from idbench.ray_engine import RayEngine
from idbench.records import SampleFile
from idbench.runs import Run
from idbench.scoring import Scoring
from idbench.types import Model, Sample
from idbench.video_scorer import Describe, VideoScorer


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

    def open(self) -> AbstractContextManager[None]:
        """Be ready for a run until the block ends."""
        return nullcontext()

    def about(self) -> dict[str, Any]:
        """For run.json."""
        return {"name": self.name, "device": self.__dict__.get("device", self.asked)}

    def generate(self, run: Run, model: Model, samples: Sequence[Sample]) -> Iterator[Outcome]:
        """Load the model; then one outcome per adopted sample."""
        if samples:
            load_model(run, model, lambda: self.device)
        return outcomes(model, samples, self.batch)

    def score(
        self, run: Run, records: Sequence[SampleFile], scoring: Scoring, describe: Describe,
        advance: Step,
    ) -> None:
        """Score the records and write their scores; `advance` after each."""
        VideoScorer(run, scoring, self.asked).score(records, describe, advance)


Engine = LocalEngine | RayEngine


def make_engine(
    engine: str | Engine, batch: int | None = None, device: str = AUTO, **workers: Any
) -> Engine:
    """The engine of that name, or the given one; `workers` are options of `RayEngine`. Raises
    UserError: an unknown engine, options of another one, no Ray, or no such device."""
    if not isinstance(engine, str):
        return engine
    given = {name: value for name, value in workers.items() if value is not None}
    if one_of("engine", engine, ("local", "ray")) == "ray":
        return RayEngine(device=device, **given)
    if given:
        name = next(iter(given)).replace("_", "-")
        raise UserError(f"--{name} belongs to --engine ray; add that, or leave it out.")
    return LocalEngine(batch, device)
