"""What a model makes of samples, one outcome each, and how it is kept in the run folder."""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from idbench.errors import FatalError, UserError, describe, explained
from idbench.files import DiskError, atomic_path
from idbench.runs import Run
from idbench.types import Model, Sample, Video
from idbench.video import write_video


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


def load_model(run: Run, model: Model, device: Callable[[], str]) -> None:
    """Load the networks of the run's model on a device, if it has `use_device` and `load`.
    Raises UserError: they cannot be loaded."""
    use_device, load = getattr(model, "use_device", None), getattr(model, "load", None)
    with run.timings.phase("load"), explained(
            f"The model {run.name} cannot be loaded", "check its weights and settings"):
        if callable(use_device):
            use_device(device())
        if callable(load):
            load()


def outcomes(model: Model, samples: Sequence[Sample], size: int | None = None) -> Iterator[Outcome]:
    """One outcome per sample, in order, of batches of `size` (None: as many as the model likes). If
    a batch fails, its remaining samples are tried one by one, so that a bad sample costs only
    itself."""
    size = size or getattr(model, "batch", None) or 4
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


def attempt(model: Model, batch: Sequence[Sample]) -> Iterator[Outcome]:
    """Outcomes of `batch` up to the first failure, that one included. Raises UserError: the model
    gives more videos than samples, so none can be trusted."""
    clock = time.perf_counter()
    done = 0
    surplus: Video | Path | None = None
    try:
        videos = iter(model.generate(deepcopy(list(batch))))  # it must not change what is asked
        for sample, video in zip(batch, videos, strict=False):
            if video is None:
                break
            yield Outcome(sample, video, None, time.perf_counter() - clock)
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


def keep(run: Run, outcome: Outcome) -> None:
    """Write what the model made of one sample."""
    run.check_there()
    sample, reason, seconds = outcome.sample, outcome.reason, outcome.seconds
    if isinstance(outcome.video, Path):
        target = run.path(sample.id, f"video{outcome.video.suffix.lower()}")
        with atomic_path(target) as temporary:
            shutil.copyfile(outcome.video, temporary)
        run.finish(sample, video=target, source=str(outcome.video))
        return
    if outcome.video is not None:
        try:
            # Finished frames keep every pixel.
            target = run.path(sample.id, "video.mp4" if run.generates else "video.webm")
            write_video(target, outcome.video)
            run.finish(sample, video=target, content=outcome.video, seconds=seconds)
            return
        except DiskError:
            raise
        except Exception as error:
            reason = f"the video cannot be encoded ({describe(error)})"
    if run.generates:
        if outcome.trace:
            run.log_error(sample.id, outcome.trace)
        reason = f"generation failed: {reason}"
    run.finish(sample, video=None, reason=reason, seconds=seconds if run.generates else 0.0)
