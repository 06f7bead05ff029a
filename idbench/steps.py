"""The steps that fill a run folder: `plan` the samples, `generate` their videos, `score` them.

Each works sample by sample, writes what it made at once, and skips what is there already.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Literal, cast

from pydantic import ConfigDict, TypeAdapter

from idbench import holding
from idbench.engines import Engine
from idbench.errors import UserError, explained
from idbench.generating import keep
from idbench.progress import Progress
from idbench.progress import steps as bar
from idbench.records import FacesFile, ModelName, SampleFile, ScoresFile, ScoringRecord
from idbench.runs import Run, Shard, sample_id
from idbench.score_table import collect
from idbench.scoring import Scoring, with_second_opinion
from idbench.stored import PlainName
from idbench.types import Abilities, Model, Sample

_REPORT = "report this to its authors"
_NAMES = TypeAdapter(list[PlainName], config=ConfigDict(strict=True))


@contextmanager
def absolute(start: Path, given: Path) -> Iterator[Path]:
    """`given`, seen from the directory `start`, as an absolute path, since models change
    directories. Errors name it as given; at the end the working directory is `start` again."""
    folder = start / given
    try:
        yield folder
    except UserError as error:
        error.args = (str(error).replace(str(folder), str(given)),)
        raise
    finally:
        os.chdir(start)


def plan(
    of_seeds: Sequence[Sequence[Sample]], model: Model, name: ModelName, start: Path,
    shard: Shard | None,
) -> tuple[list[Sample], list[Sample]]:
    """All samples of a run, and those of a shard, with their ids in the run.

    `of_seeds`: the suite's samples with each seed; `start`: where relative paths of images begin.
    Raises UserError: the model cannot take a sample's references, or its own `check` refuses them.
    """
    samples = [sample for of_seed in of_seeds for sample in of_seed]
    abilities: Abilities | None = getattr(model, "abilities", None)
    if abilities is not None and not isinstance(abilities, Abilities):
        raise UserError(
            f"The model {name.title} has a {type(abilities).__name__} as `abilities`, not an "
            "idbench.types.Abilities; report this to its authors."
        )
    for sample in samples:
        if abilities and (reason := abilities.refusal(sample)):
            raise UserError(
                f"The model {name.title} cannot make the samples of this split: it {reason}; "
                "choose another --split or --model."
            )
    most = max((len(s.references) for s in samples), default=0)
    if most > model.maximum_references:
        raise UserError(
            f"The model {name.title} takes at most {model.maximum_references} reference(s), the "
            f"split has samples with {most}; choose another variant of the model or another "
            "--split."
        )
    check = getattr(model, "check", None)
    if callable(check):
        with explained(f"The model {name.title} cannot check its samples", _REPORT):
            check(samples)
    identify = getattr(model, "sample_id", lambda s: sample_id(s.suite_id, name))

    def named(sample: Sample) -> Sample:
        references = tuple(r.moved(start.joinpath) for r in sample.references)
        return replace(sample, id=identify(sample), references=references)

    with explained(f"The model {name.title} cannot name its samples", _REPORT):
        planned = [[named(sample) for sample in of_seed] for of_seed in of_seeds]
        ids = _NAMES.validate_python([sample.id for sample in chain(*planned)])
        if len(set(ids)) < len(ids):
            raise ValueError("two samples have the same id")
    mine = planned if shard is None else [shard.of(of_seed) for of_seed in planned]
    return list(chain(*planned)), list(chain(*mine))


def kind_of(model: Model) -> Literal["generate", "videos"]:
    """Whether a model generates its videos, or has finished ones. Raises UserError: it says
    something else."""
    kind = getattr(model, "kind", "generate")
    if kind not in ("generate", "videos"):
        raise UserError(
            f"The model {model.name} has the kind {str(kind)[:40]!r}, which is neither 'generate' "
            f"nor 'videos'; {_REPORT}."
        )
    return cast(Literal["generate", "videos"], kind)


def unfinished(run: Run, samples: Sequence[Sample], retry_failed: bool = False) -> list[Sample]:
    """The samples that have no video yet; failed ones only with `retry_failed`."""
    return [
        sample for sample in samples
        if (record := run.record(sample.id)) is None or (retry_failed and record.status == "failed")
    ]


def generate(
    run: Run, model: Model, samples: Sequence[Sample], engine: Engine, progress: Progress
) -> None:
    """Generate the videos of `samples` and write each at once. A sample that fails is finished as
    failed, its traceback goes to errors.log. Raises DiskError, WeightError."""
    if samples and run.generates:
        progress.say("loading the model")
    outcomes = engine.generate(run, model, [run.adopt(sample) for sample in samples])
    title = "generate" if run.generates else "copy"
    with bar(title, len(samples), progress.quiet) as advance:
        for outcome in outcomes:
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
        with bar("score", len(records), progress.quiet) as advance:
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
) -> Run:
    """Score the videos of a run folder that have no scores yet, or all with `force`."""
    before = Run.open(given)
    if not before.generates:
        samples = [record.sample for record in before.records()]
        metrics = with_second_opinion(metrics, samples, protocol, weights, progress.say)
    scoring = Scoring.of(protocol, metrics, weights)
    with (absolute(Path.cwd(), given) as folder, holding.reopen(folder, part) as run,
          worker.open()):
        mine = part.of(run.sample_ids) if part else run.sample_ids
        score(run, mine, scoring, worker, progress, force)
        run.close(worker.about())
    run.folder = given
    return run
