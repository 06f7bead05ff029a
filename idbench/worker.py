"""A worker of the engine `ray`: a process that generates or scores one sample at a time.

What it makes are files in the run folder; only a small record goes back. The class knows nothing of
Ray.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from idbench import lock
from idbench.devices import resolve
from idbench.generating import Outcome, attempt, keep, load_model
from idbench.records import ScoringRecord
from idbench.runs import Run
from idbench.scoring import Scoring
from idbench.timings import Timings
from idbench.types import Model, Sample
from idbench.video_scorer import VideoScorer


@dataclass(frozen=True)
class Job:
    """What a worker is made with: `directory`, where the command runs, its run `folder`, torch's
    device and threads, and the model or the scoring."""

    directory: Path
    folder: Path
    device: str
    threads: int
    model: Model | None = None
    scoring: Scoring | None = None


@dataclass(frozen=True)
class Done:
    """What a worker did: the outcome of a sample, without its video, or how it was scored."""

    outcome: Outcome | None = None
    measured: ScoringRecord | None = None
    timings: dict[str, float] = field(default_factory=dict)
    log: str = ""


class Worker:
    """See the module.

    Args:
        name: of its lock and log in the run folder.
    """

    def __init__(self, job: Job, name: str) -> None:
        self.job, self.name = job, name

    def begin(self) -> None:
        """Be ready. The first call: an error here is one of the whole run."""
        _ = self._scorer if self.job.model is None else self._model

    def generate(self, sample: Sample) -> Done:
        """Generate and write the video of an adopted sample, unless it is there."""
        run = self._run
        record = run.record(sample.id)
        if record is not None and record.status == "generated":
            return self._done(outcome=Outcome(sample, None, None, 0.0, kept=True))
        outcome = next(attempt(self._model, [sample]))
        os.chdir(self.job.directory)  # a model may have changed it
        with run.timings.phase("encode"):
            keep(run, outcome)
        return self._done(outcome=replace(outcome, video=None, kept=True))

    def score(self, sample: str) -> Done:
        """Score the finished sample of that id and write its scores."""
        record = self._run.record(sample)
        measured: list[ScoringRecord] = []
        if record is not None:
            self._scorer.score([record], measured.append, lambda note="", count=1: None)
        return self._done(measured=measured[-1] if measured else None)

    @cached_property
    def _run(self) -> Run:
        os.chdir(self.job.directory)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(self.job.threads)
        os.environ["OMP_NUM_THREADS"] = str(self.job.threads)
        # Ray's own handler raises SystemExit, which would pass for a failure of the sample.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _write_output_to(log_path(self.job.folder, self.name))
        self._lock = lock.take(self.job.folder, self.name)
        run = Run.open(self.job.folder)
        run.timings, run.logged = Timings(), []
        run.check_there()
        return run

    @cached_property
    def _model(self) -> Model:
        assert self.job.model is not None
        load_model(self._run, self.job.model, lambda: resolve(self.job.device))
        return self.job.model

    @cached_property
    def _scorer(self) -> VideoScorer:
        assert self.job.scoring is not None
        return VideoScorer(self._run, self.job.scoring, self.job.device)

    def _done(self, outcome: Outcome | None = None, measured: ScoringRecord | None = None) -> Done:
        run = self._run
        done = Done(outcome, measured, run.timings.as_dict(), "".join(run.logged or ()))
        run.timings, run.logged = Timings(), []
        return done


def log_path(folder: Path, name: str) -> Path:
    """Where a worker writes what its libraries print."""
    return folder / f".{name}.log"


def _write_output_to(path: Path) -> None:
    """Send what this process and its libraries print, and a crash's traceback, to a file."""
    stream = open(path, "ab", buffering=0)  # noqa: SIM115 - until the process ends
    for number in (1, 2):
        os.dup2(stream.fileno(), number)
    sys.stdout = sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    faulthandler.enable(stream)
