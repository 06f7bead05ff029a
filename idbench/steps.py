"""The two steps that fill a run folder: `generate` makes the videos, `score` measures them.

Each works sample by sample, writes what it made at once, and skips what is there already.
"""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from idbench.ahead import Ahead
from idbench.engine import FATAL, LocalEngine, Outcome, describe
from idbench.errors import UserError, explained
from idbench.files import DiskFull, atomic_path, sha256_file, write_derived
from idbench.progress import Progress, Step
from idbench.records import FacesFile, SampleFile, ScoresFile, ScoringRecord
from idbench.registry import METRICS
from idbench.runs import Run
from idbench.scores import collect
from idbench.scoring import Scoring
from idbench.types import Model, Sample, Score
from idbench.video import Clip, UnreadableVideo, write_video

if TYPE_CHECKING:
    from idbench.metrics.scorer import Scorer

WINDOW = 8
"""Videos that are scored at once; as many more are decoded ahead."""
WINDOW_BYTES = 256_000_000
"""A window with this many bytes of frames is full: large videos are scored one by one."""

Opened = Clip | str | Exception
"""A decoded video, or why there is none."""


def unfinished(run: Run, samples: Sequence[Sample], retry_failed: bool = False) -> list[Sample]:
    """The samples that have no video yet; failed ones only with `retry_failed`."""
    found = []
    for sample in samples:
        record = run.record(sample.id)
        if record is None or (retry_failed and record.status == "failed"):
            found.append(sample)
    return found


def generate(
    run: Run, model: Model, samples: Sequence[Sample], engine: LocalEngine, progress: Progress
) -> None:
    """Generate the videos of `samples` and write each as soon as it is there.

    A sample that fails is finished as failed, with the reason; its traceback goes to errors.log.

    Raises:
        DiskFull, WeightError: what every further sample would meet too.
    """
    load = getattr(model, "load", None)
    if callable(load) and samples:
        progress.say("loading the model")
        with run.timings.phase("load"), explained(
                f"The model {run.name} cannot be loaded", "check its weights and settings"):
            load()
    adopted = [run.adopt(sample) for sample in samples]
    with progress.bar("generate" if run.generates else "copy", len(adopted)) as advance:
        for outcome in engine.generate(model, adopted):
            if run.generates:
                run.timings.add("generate", outcome.seconds)
            with run.timings.phase("encode"):
                _keep(run, outcome)
            advance(outcome.sample.prompt_id)


def _keep(run: Run, outcome: Outcome) -> None:
    """Write what the model made of one sample."""
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
        except DiskFull:
            raise
        except Exception as error:
            reason = f"the video cannot be encoded ({describe(error)})"
    if run.generates:
        if outcome.trace:
            run.log_error(sample.id, outcome.trace)
        reason = f"generation failed: {reason}"
    run.finish(sample, video=None, reason=reason, seconds=seconds if run.generates else 0.0)


def score(
    run: Run, samples: Sequence[str], scoring: Scoring, progress: Progress, force: bool = False
) -> None:
    """Score the finished videos of `samples` that have no scores yet, and write scores.parquet.

    `force` scores also those that have. One folder has one scoring: samples that were scored
    otherwise are scored again. A video that cannot be read or scored becomes unscored rows with
    the reason.

    Raises:
        DiskFull, WeightError: what every further video would meet too.
    """
    _drop_other_opencv(run, scoring)
    records = run.records() if force else unscored(run, samples, scoring.sha256)
    if not records:
        if run.file.scoring.sha256 not in (None, scoring.sha256):
            raise UserError(
                f"{run.folder} has no video left to score with {scoring.protocol.name}; generate "
                f"it again, or score it with {run.file.scoring.protocol_name}, as before."
            )
        collect(run)
        return
    progress.say("loading the networks that score")
    with run.timings.phase("load"):
        from idbench.metrics.scorer import Scorer

        scorer = Scorer(
            scoring.protocol, run.folder / "embeddings",
            metrics=[METRICS.load(name) for name in scoring.metrics],
            sources=scoring.sources or None,
        )
    with (
        progress.bar("score", len(records)) as advance,
        closing(_windows(run, records, scorer)) as windows,
    ):
        for window in windows:
            moved = _Moved(advance, len(window))
            scorer.searched = moved
            files = _score_window(run, window, scorer, scoring)
            _describe_scoring(run, scorer, scoring)
            for (record, _), scores in zip(window, files, strict=True):
                with run.timings.phase("score"):
                    faces = FacesFile.model_validate({"frames": scorer.faces(record.sample)})
                    write_derived(run.path(record.id, "faces.json"), faces.json_text())
                    write_derived(run.path(record.id, "scores.json"), scores.json_text())
            moved.finish()
            del window, files  # not held while the next window is filled
    collect(run)


class _Moved:
    """Moves the bar with each video of a window, and at its end by those that were not heard of."""

    def __init__(self, advance: Step, videos: int) -> None:
        self.advance, self.left = advance, videos

    def __call__(self) -> None:
        if self.left:
            self.left -= 1
            self.advance()

    def finish(self) -> None:
        while self.left:
            self()


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
        if sample in asked or run.path(sample, "scores.json").is_file():
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
    return (
        not stored.failed and stored.key == key and stored.video_sha256 == record.video_sha256
    )


def _describe_scoring(run: Run, scorer: Scorer, scoring: Scoring) -> None:
    """Keep in run.json what the scores were measured with."""
    before = run.file.scoring
    hashes = scorer.weight_hashes()
    # Cached embeddings and earlier samples need no provider now: keep what was known of them.
    same_files = before.weight_files == hashes
    same = before.sha256 == scoring.sha256
    key = dict(scoring.key)
    if before.sha256 and before.opencv is None:
        key["opencv"] = None  # Values and embeddings of an unknown version may still be there.
    described = ScoringRecord(
        sha256=scoring.sha256, **key, weight_files=hashes,
        sources={name: source.words() for name, source in scoring.sources.items()},
        notes=list(scorer.notes),
        providers={**(before.providers if same_files else {}), **scorer.providers()},
        reference_notes={**(before.reference_notes if same else {}), **scorer.reference_notes},
        prompts_cut={**(before.prompts_cut if same else {}), **scorer.prompts_cut},
    )
    if described != before:
        if not same:
            # If this ends half-way, the old table must not pass for the new scores.
            (run.folder / "scores.parquet").unlink(missing_ok=True)
        run.save(scoring=described)


def _windows(
    run: Run, records: Sequence[SampleFile], scorer: Scorer
) -> Generator[list[tuple[SampleFile, Opened]], None, None]:
    """The records with their decoded videos, as many at a time as are scored at once.

    While a window is scored, a thread decodes the next.
    """

    def read(record: SampleFile) -> Opened:
        path, digest = record.video, record.video_sha256
        if path is None or digest is None:
            return record.reason or "there is no video"
        if sha256_file(path) != digest:
            return "the video was changed after it was finished"
        return scorer.open(path, digest)

    def size(opened: Opened) -> int:
        return opened.bytes if isinstance(opened, Clip) else 0

    window: list[tuple[SampleFile, Opened]] = []
    filled = 0
    reading = iter(Ahead[SampleFile, Opened](records, read, WINDOW, size, WINDOW_BYTES))
    try:
        while True:
            with run.timings.phase("decode"):  # only the wait for it; decoding runs beside
                found = next(reading, None)
            if found is None:
                break
            window.append(found)
            filled += size(found[1])
            if len(window) == WINDOW or filled >= WINDOW_BYTES:
                del found
                yield window
                window, filled = [], 0
        if window:
            yield window
    finally:
        reading.close()


def _score_window(
    run: Run, window: Sequence[tuple[SampleFile, Opened]], scorer: Scorer, scoring: Scoring
) -> list[ScoresFile]:
    """The scores of each record of a window, in its order."""
    items = [(record.sample, opened) for record, opened in window if isinstance(opened, Clip)]
    before = dict(scorer.timings)
    with run.timings.phase("score"):
        scored = iter(scorer.score_all(items))
    run.timings.split("score", _phases(before, scorer.timings))
    files = []
    for record, opened in window:
        result = next(scored) if isinstance(opened, Clip) else opened
        failed = False
        if isinstance(result, FATAL):
            raise result
        if isinstance(result, UnreadableVideo):
            result = describe(result).replace(f"{run.folder}/", "")
            run.fail(record, result)
        elif isinstance(result, Exception):
            failed = True
            run.log_error(record.id, "".join(traceback.format_exception(result)))
            result = f"scoring failed: {describe(result)}".replace(f"{run.folder}/", "")
        for trace in scorer.failures.pop(record.id, ()):
            failed = True
            run.log_error(record.id, trace)
        if isinstance(result, str):
            result = missing(record.sample, scoring.metrics, result)
        files.append(ScoresFile.of(
            result, key=scoring.sha256, video_sha256=record.video_sha256, failed=failed))
    return files


def missing(sample: Sample, metrics: Sequence[str], reason: str) -> list[Score]:
    """A row of each metric that applies to the sample, all with the same reason."""
    return [row for name in metrics for row in METRICS.load(name).unscored(sample, reason)]


def _phases(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What a scorer spent, in the phases of a run."""
    found: dict[str, float] = {}
    for name, seconds in after.items():
        phase = "embed" if name.split()[0] in ("embed", "align") else name
        if phase != "score":
            found[phase] = found.get(phase, 0.0) + seconds - before.get(name, 0.0)
    return found
