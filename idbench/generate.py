"""The step `generate`: samples -> videos in the run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from idbench.engine import LocalEngine, describe
from idbench.files import DiskFull
from idbench.progress import steps
from idbench.runs import Run
from idbench.timings import Timings
from idbench.types import Model, Sample
from idbench.video import write_video


def pending(run: Run, ids: Sequence[str], retry_failed: bool = False) -> list[str]:
    """Those of `ids` that have no video yet; failed ones only with `retry_failed`."""
    found = []
    for sample in ids:
        record = run.record(sample)
        if record is None or (retry_failed and record.status == "failed"):
            found.append(sample)
    return found


def generate(
    run: Run, model: Model, samples: Sequence[tuple[str, Sample]], engine: LocalEngine,
    timings: Timings, quiet: bool = False,
) -> None:
    """Generate the videos of `samples` and write each as soon as it is there.

    Args:
        samples: (suite id, sample with the run's id).

    A sample that fails is finished as failed, with the reason; its traceback goes to errors.log.

    Raises:
        DiskFull, WeightError: what every further sample would meet too.
    """
    suite_ids = {sample.id: suite_id for suite_id, sample in samples}
    load = getattr(model, "load", None)
    if callable(load) and samples:
        with timings.phase("load"):
            load()
    # The model sees the copies in the run folder: a later change of the originals is no matter.
    local = [run.localise(sample) for _, sample in samples]
    with steps("generate", len(local), quiet) as step:
        for outcome in engine.generate(model, local):
            timings.add("generate", outcome.seconds)
            sample, reason, trace = outcome.sample, outcome.reason, outcome.trace
            path = run.path(sample.id, "video.mp4")
            if outcome.video is not None:
                try:
                    with timings.phase("encode"):
                        write_video(path, outcome.video)
                except DiskFull:
                    raise
                except Exception as error:
                    reason = f"the video cannot be encoded ({describe(error)})"
            if trace:
                run.log_error(sample.id, trace)
            with timings.phase("encode"):
                if reason is None and outcome.video is not None:
                    run.finish(
                        sample, suite_ids[sample.id], video=path, content=outcome.video,
                        seconds=outcome.seconds,
                    )
                else:
                    run.finish(
                        sample, suite_ids[sample.id], video=None, seconds=outcome.seconds,
                        reason=f"generation failed: {reason}",
                    )
            step(sample.prompt_id)


def with_id(sample: Sample, identifier: str) -> Sample:
    """`sample` under the id that it has in a run."""
    return replace(sample, id=identifier)
