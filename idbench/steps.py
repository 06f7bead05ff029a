"""The two steps that fill a run folder: `generate` makes the videos, `score` measures them.

Each works sample by sample, writes what it made at once, and skips what is there already.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from idbench.engine import Engine, Outcome
from idbench.errors import UserError, describe, explained
from idbench.files import DiskError, atomic_path
from idbench.progress import Progress
from idbench.records import FacesFile, SampleFile, ScoresFile, ScoringRecord
from idbench.runs import Run
from idbench.scores import collect
from idbench.scoring import Scoring
from idbench.types import Model, Sample
from idbench.video import write_video
from idbench.video_scorer import Measured


def unfinished(run: Run, samples: Sequence[Sample], retry_failed: bool = False) -> list[Sample]:
    """The samples that have no video yet; failed ones only with `retry_failed`."""
    found = []
    for sample in samples:
        record = run.record(sample.id)
        if record is None or (retry_failed and record.status == "failed"):
            found.append(sample)
    return found


def generate(
    run: Run, model: Model, samples: Sequence[Sample], engine: Engine, progress: Progress
) -> None:
    """Generate the videos of `samples` and write each at once. A sample that fails is finished as
    failed, its traceback goes to errors.log. Raises DiskError, WeightError."""
    if samples:
        if run.generates:
            progress.say("loading the model")
        with run.timings.phase("load"), explained(
                f"The model {run.name} cannot be loaded", "check its weights and settings"):
            engine.prepare(model)
    adopted = [run.adopt(sample) for sample in samples]
    with progress.bar("generate" if run.generates else "copy", len(adopted)) as advance:
        for outcome in engine.generate(model, adopted):
            if run.generates:
                run.timings.add("generate", outcome.seconds)
            if not outcome.kept:
                with run.timings.phase("encode"):
                    keep(run, outcome)
            advance(outcome.note or outcome.sample.prompt_id)


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


def score(
    run: Run, samples: Sequence[str], scoring: Scoring, engine: Engine, progress: Progress,
    force: bool = False,
) -> None:
    """Score the finished videos of `samples` that have no scores yet, and write scores.parquet.

    `force` rescores all. One folder has one scoring, so samples scored otherwise are rescored. A
    video that cannot be read or scored gets unscored rows with the reason. Raises DiskError,
    WeightError."""
    _drop_other_opencv(run, scoring)
    if force:
        records = [r for s in samples if (r := run.record(s)) is not None]
    else:
        records = unscored(run, samples, scoring.sha256)
    if not records and run.file.scoring.sha256 not in (None, scoring.sha256):
        raise UserError(
            f"{run.folder} has no video left to score with {scoring.protocol.name}; generate it "
            f"again, or score it with {run.file.scoring.protocol_name}, as before."
        )
    if records:
        progress.say("loading the networks that score")
        with progress.bar("score", len(records)) as advance:
            engine.score(run, records, scoring, partial(_describe_scoring, run, scoring), advance)
    if run.shard is None or _all_scored(run):
        collect(run)
    else:
        progress.say("other shards are not finished; the last one writes scores.parquet")


def _all_scored(run: Run) -> bool:
    return all(run.path(sample, "scores.json").is_file() for sample in run.sample_ids)


def _drop_other_opencv(run: Run, scoring: Scoring) -> None:
    """Remove what was measured with another version of OpenCV, which moves values a little."""
    if run.file.scoring.opencv in (None, scoring.key["opencv"]):
        return
    shutil.rmtree(run.folder / "embeddings", ignore_errors=True)
    for name in ["scores.parquet", *(f"samples/{s}/scores.json" for s in run.sample_ids)]:
        (run.folder / name).unlink(missing_ok=True)


def unscored(run: Run, samples: Sequence[str], key: str) -> list[SampleFile]:
    """The finished samples of `samples` without scores under `key`, and others scored otherwise."""
    asked = set(samples)
    found = []
    for sample in run.sample_ids:
        others = run.shard is None and run.path(sample, "scores.json").is_file()
        if sample in asked or others:
            record = run.record(sample)
            if record is not None and not _has_scores(run, record, key):
                found.append(record)
    return found


def _has_scores(run: Run, record: SampleFile, key: str) -> bool:
    try:
        if run.path(record.id, "faces.json").exists():
            FacesFile.read(run.path(record.id, "faces.json"))
        stored = ScoresFile.read(run.path(record.id, "scores.json"))
    except UserError:
        return False  # Missing, or cut off with the power: it is scored again.
    return (not stored.failed and stored.key == key and stored.video_sha256 == record.video_sha256)


def _describe_scoring(run: Run, scoring: Scoring, measured: Measured) -> None:
    """Keep in run.json what the scores were measured with."""
    with run.changing():
        before = run.reread().scoring
        # Cached embeddings and earlier samples need no network now: keep what was known of them.
        same_files = before.weight_files == measured.hashes
        same = before.sha256 == scoring.sha256
        key = dict(scoring.key)
        if before.sha256 and before.opencv is None:
            key["opencv"] = None  # Values and embeddings of an unknown version may still be there.
        earlier = before if same else ScoringRecord()
        described = ScoringRecord(
            sha256=scoring.sha256, **key, weight_files=dict(measured.hashes),
            sources={name: source.words() for name, source in scoring.sources.items()},
            notes=list(measured.notes),
            providers={**(before.providers if same_files else {}), **measured.providers},
            reference_notes={**earlier.reference_notes, **measured.reference_notes},
            prompts_cut={**earlier.prompts_cut, **measured.prompts_cut},
            devices=sorted({*earlier.devices, *measured.devices}),
        )
        if described != before:
            if not same:
                # If this ends half-way, the old table must not pass for the new scores.
                (run.folder / "scores.parquet").unlink(missing_ok=True)
            run.save(scoring=described)
