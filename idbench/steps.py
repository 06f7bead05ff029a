"""The two steps that fill a run folder: `generate` makes the videos, `score` measures them;
`score_run` does the second alone.

Each works sample by sample, writes what it made at once, and skips what is there already.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from idbench import holding
from idbench.engines import Engine
from idbench.errors import UserError
from idbench.generating import keep
from idbench.planning import absolute
from idbench.progress import Progress
from idbench.records import FacesFile, SampleFile, ScoresFile, ScoringRecord
from idbench.results import Results
from idbench.runs import Run, Shard
from idbench.scores import collect
from idbench.scoring import Scoring, with_second_opinion
from idbench.types import Model, Sample


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
        engine.prepare(run, model)
    adopted = [run.adopt(sample) for sample in samples]
    with progress.bar("generate" if run.generates else "copy", len(adopted)) as advance:
        for outcome in engine.generate(model, adopted):
            if run.generates:
                run.timings.add("generate", outcome.seconds)
            if not outcome.kept:
                with run.timings.phase("encode"):
                    keep(run, outcome)
            advance(outcome.note or outcome.sample.prompt_id)


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
            engine.score(run, records, scoring, partial(_describe_scoring, run), advance)
    if run.shard is None or all(run.path(s, "scores.json").is_file() for s in run.sample_ids):
        collect(run)
    else:
        progress.say("other shards are not finished; the last one writes scores.parquet")


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


def _describe_scoring(run: Run, measured: ScoringRecord) -> None:
    """Keep in run.json what the scores were measured with."""
    with run.changing():
        before = run.reread().scoring
        same = before.sha256 == measured.sha256
        described = measured.model_copy()
        if before.sha256 and before.opencv is None:
            # Values and embeddings of an unknown version may still be there.
            described.opencv = None
        # Cached embeddings and earlier samples need no network now: keep what was known of them.
        if before.weight_files == measured.weight_files:
            described.providers = {**before.providers, **measured.providers}
        if same:
            described.reference_notes = {**before.reference_notes, **measured.reference_notes}
            described.prompts_cut = {**before.prompts_cut, **measured.prompts_cut}
            described.devices = sorted({*before.devices, *measured.devices})
        if described != before:
            if not same:
                # If this ends half-way, the old table must not pass for the new scores.
                (run.folder / "scores.parquet").unlink(missing_ok=True)
            run.save(scoring=described)


def score_run(
    given: Path, metrics: Sequence[str], protocol: str, weights: Sequence[str], worker: Engine,
    part: Shard | None, progress: Progress, force: bool,
) -> Results:
    """Score the videos of a run that have no scores yet, or all with `force`.

    Args:
        given: the run folder. The others as in `evaluate.evaluate`.

    Raises:
        UserError: what the caller can fix, in one sentence.
    """
    before = Run.open(given)
    if not before.generates:
        samples = [record.sample for record in before.records()]
        metrics = with_second_opinion(metrics, samples, protocol, weights, progress.say)
    scoring = Scoring.of(protocol, metrics, weights)
    with (absolute(Path.cwd(), given) as folder, holding.reopen(folder, part) as run,
          worker.open(run)):
        mine = part.of(run.sample_ids) if part else run.sample_ids
        score(run, mine, scoring, worker, progress, force)
        run.close(worker.about())
    run.folder = given
    return Results([run])
