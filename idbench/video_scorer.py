"""Scores the videos of a run folder in this process, and writes the scores beside them."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Event
from typing import TYPE_CHECKING

from idbench.errors import FatalError, describe
from idbench.files import sha256_file
from idbench.progress import Step
from idbench.records import FacesFile, SampleFile, ScoresFile, ScoringRecord
from idbench.registry import METRICS
from idbench.runs import Run
from idbench.scoring import Scoring
from idbench.types import Sample, Score
from idbench.video import Clip, UnreadableVideo

if TYPE_CHECKING:
    from idbench.metrics.scorer import Scorer

WINDOW = 8
"""Videos between two writes; as many more are decoded ahead."""
WINDOW_BYTES = 256_000_000
"""A window with this many bytes of frames is full: large videos are scored one by one."""

Opened = Clip | str | Exception
"""A decoded video, or why there is none."""


Describe = Callable[[ScoringRecord], None]
"""Keeps in run.json what the scores that are written next were measured with."""


class VideoScorer:
    """Scores videos of one run.

    Args:
        device: as on the command line.
    """

    def __init__(self, run: Run, scoring: Scoring, device: str) -> None:
        self.run, self.scoring = run, scoring
        with run.timings.phase("load"):
            from idbench.metrics.scorer import Scorer

            self.scorer: Scorer = Scorer(
                scoring.protocol, run.folder / "embeddings",
                metrics=[METRICS.load(name) for name in scoring.metrics],
                device=device, sources=scoring.sources,
            )

    def score(self, records: Sequence[SampleFile], describe: Describe, advance: Step) -> None:
        """Score the videos of `records` and write their scores; `advance` after each video.
        Raises DiskError, WeightError: what every further video would meet too."""
        run, self.scorer.searched = self.run, advance
        with closing(_windows(run, records, self.scorer)) as windows:
            for window in windows:
                files = self._score_window(window)
                describe(self.measured())
                run.check_there()
                for (record, opened), scores in zip(window, files, strict=True):
                    with run.timings.phase("score"):
                        faces = FacesFile.model_validate(
                            {"frames": self.scorer.faces(record.sample)})
                        faces.write(run.path(record.id, "faces.json"), wait=False)
                        scores.write(run.path(record.id, "scores.json"), wait=False)
                    if not isinstance(opened, Clip):  # else the scorer has told
                        advance()
                del opened, window, files  # not held while the next window is filled

    def measured(self) -> ScoringRecord:
        """What the scores so far were measured with."""
        scorer, scoring = self.scorer, self.scoring
        return ScoringRecord(
            sha256=scoring.sha256, **scoring.key, weight_files=scorer.weight_hashes(),
            sources={name: source.words() for name, source in scoring.sources.items()},
            notes=list(scorer.notes), providers=scorer.embedder.providers(),
            devices=scorer.embedder.devices(),
            reference_notes=scorer.reference_notes, prompts_cut=scorer.prompts_cut,
        )

    def _score_window(self, window: Sequence[tuple[SampleFile, Opened]]) -> list[ScoresFile]:
        """The scores of each record of a window, in its order."""
        run, scorer, scoring = self.run, self.scorer, self.scoring
        items = [(record.sample, opened) for record, opened in window if isinstance(opened, Clip)]
        timings = scorer.embedder.timings
        before, start = dict(timings), time.perf_counter()
        with run.timings.phase("score"):
            scored = iter(scorer.score_all(items))
        seconds = time.perf_counter() - start
        run.timings.split("score", _phases(before, timings, seconds))
        files = []
        for record, opened in window:
            result = next(scored) if isinstance(opened, Clip) else opened
            failed = False
            if isinstance(result, FatalError):
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


def _windows(
    run: Run, records: Sequence[SampleFile], scorer: Scorer
) -> Generator[list[tuple[SampleFile, Opened]], None, None]:
    """The records with their decoded videos, as many at a time as are scored at once; meanwhile a
    thread decodes the next."""
    waiting, left = iter(records), Event()

    def read(record: SampleFile) -> Opened:
        path, digest = record.video, record.video_sha256
        if path is None or digest is None:
            return record.reason or "there is no video"
        try:
            if sha256_file(path) != digest:
                return "the video was changed after it was finished"
            return scorer.open(path, digest)
        except Exception as error:
            return error

    def fill() -> list[tuple[SampleFile, Opened]]:
        window: list[tuple[SampleFile, Opened]] = []
        filled = 0
        for record in waiting:
            opened = read(record)
            window.append((record, opened))
            filled += opened.bytes if isinstance(opened, Clip) else 0
            if len(window) == WINDOW or filled >= WINDOW_BYTES or left.is_set():
                break
        return window

    with ThreadPoolExecutor(1, "read ahead") as thread:
        try:
            ahead = thread.submit(fill)
            while True:
                with run.timings.phase("decode"):  # only the wait for it; decoding runs beside
                    window = ahead.result()
                if not window:
                    return
                ahead = thread.submit(fill)
                yield window
                del window  # not held while the next one is waited for
        finally:
            left.set()  # the thread ends after the video that it reads


def missing(sample: Sample, metrics: Sequence[str], reason: str) -> list[Score]:
    """A row of each metric that applies to the sample, all with the same reason."""
    return [row for name in metrics for row in METRICS.load(name).unscored(sample, reason)]


def _phases(
    before: Mapping[str, float], after: Mapping[str, float], seconds: float
) -> dict[str, float]:
    """What a scorer spent, by a run's phases. Its threads run side by side: together they count as
    the `seconds` of the clock."""
    found: dict[str, float] = {}
    for name, total in after.items():
        phase = "embed" if name.split()[0] in ("embed", "align") else name
        if phase != "score":
            found[phase] = found.get(phase, 0.0) + total - before.get(name, 0.0)
    share = min(1.0, seconds / (sum(found.values()) or 1.0))
    return {phase: share * spent for phase, spent in found.items()}
