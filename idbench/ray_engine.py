"""The engine `ray`: workers on the GPUs of one machine or of a cluster.

What workers make are files in the run folder, which all machines share.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from idbench import output, ray_pool
from idbench.devices import AUTO, check_name
from idbench.errors import UserError, describe
from idbench.generating import Outcome, outcomes
from idbench.holding import combined
from idbench.progress import Step
from idbench.ray_pool import Pool
from idbench.records import SampleFile, ScoresFile
from idbench.runs import Run
from idbench.scoring import Scoring
from idbench.types import Model, Sample
from idbench.video_scorer import Describe, VideoScorer, missing
from idbench.worker import Done, Job


class RayEngine:
    """Works in processes of a Ray cluster.

    Args:
        workers: how many; None: one a GPU, or one a processor where there is no GPU.
        gpus_per_worker: may be a fraction, for workers that share a GPU; None: 1 where there are.
        cpus_per_worker: also the threads of each.
        address: of a running cluster, `auto` or HOST:PORT; None: one is started on this machine.
        device: as on the command line; Ray chooses which GPU.

    Raises:
        UserError: Ray is not installed, or an option is wrong.
    """

    name = "ray"

    def __init__(
        self, workers: int | None = None, gpus_per_worker: float | None = None,
        cpus_per_worker: int = 1, address: str | None = None, device: str = AUTO,
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise UserError(
                "The engine ray needs Ray, which is not installed; install it with "
                "`pip install 'idbench[ray]'`, or use --engine local."
            ) from error
        if ":" in check_name(device):
            raise UserError(f"Ray chooses the GPU of each worker; use --device cuda, not {device}.")
        wrong = (workers is not None and workers < 1) or cpus_per_worker < 1 or (
            gpus_per_worker is not None and gpus_per_worker < 0)
        if wrong:
            raise UserError(
                "--workers and --cpus-per-worker must be at least 1, --gpus-per-worker at least 0."
            )
        self._ray: Any = ray
        self.workers, self.gpus, self.cpus = workers, gpus_per_worker, cpus_per_worker
        self.address, self.asked = address, device
        self._ends = ExitStack()
        self._started = False

    @contextmanager
    def open(self) -> Iterator[None]:
        """The cluster is started, or joined, at the first work. At the end the workers are
        dismissed and the cluster is left."""
        with self._ends:
            yield

    def about(self) -> dict[str, Any]:
        return {
            "name": self.name, "device": self.asked, "workers": self.workers,
            "cpus_per_worker": self.cpus, "gpus_per_worker": self.gpus,
            "ray": self._ray.__version__,
        }

    def generate(self, run: Run, model: Model, samples: Sequence[Sample]) -> Iterator[Outcome]:
        """One outcome per sample, in the order in which workers, which load the model, finish."""
        if not run.generates:  # finished videos are copied by this process
            yield from outcomes(model, samples)
            return
        by_id = {sample.id: sample for sample in samples}
        clock = time.perf_counter()
        for sample, done, who in self._work(run, "generate", by_id, model=model):
            if isinstance(done, str):
                seconds = time.perf_counter() - clock
                yield Outcome(by_id[sample], None, done, seconds, done, note=who)
            elif done.outcome is not None:
                note = f"{done.outcome.sample.prompt_id} ({who})"
                yield replace(done.outcome, note=note)
            clock = time.perf_counter()

    def score(
        self, run: Run, records: Sequence[SampleFile], scoring: Scoring, describe: Describe,
        advance: Step,
    ) -> None:
        """Score the records, in the order in which workers finish."""
        by_id = {record.id: record for record in records}
        measured = VideoScorer(run, scoring, "cpu").measured()  # loads no network
        describe(measured)
        items = {sample: sample for sample in by_id}
        for sample, done, who in self._work(run, "score", items, scoring=scoring):
            record = by_id[sample]
            if isinstance(done, str):
                rows = missing(record.sample, scoring.metrics, f"scoring failed: {done}")
                scores = ScoresFile.of(
                    rows, key=scoring.sha256, video_sha256=record.video_sha256, failed=True)
                scores.write(run.path(record.id, "scores.json"), wait=False)
            elif done.measured is not None and done.measured != measured:
                parts = [measured, done.measured]
                files = {k: v for part in parts for k, v in part.weight_files.items()}
                measured = measured.model_copy(
                    update={"weight_files": files, **combined(parts)})
                describe(measured)
            advance(f"{record.prompt_id} ({who})")

    def _work(
        self, run: Run, method: str, items: Mapping[str, Any], model: Model | None = None,
        scoring: Scoring | None = None,
    ) -> Iterator[tuple[str, Done | str, str]]:
        """As `Pool.work`; what workers measured and logged is kept."""
        if not items:
            return
        self._start()
        job = Job(Path.cwd(), run.folder, self.device, self.cpus, model, scoring)
        try:
            self._ray.cloudpickle.dumps(job)
        except Exception as error:  # whatever the parts of a model raise
            raise UserError(
                f"The model cannot be sent to workers ({describe(error)}); make it without open "
                "files and locks, or use --engine local."
            ) from error
        count = min(self.workers or 1, len(items))
        pool = Pool(self._ray, run, job, count, self.cpus, self.gpus or 0)
        for item, done, who in self._ends.enter_context(closing(pool.work(method, items))):
            if isinstance(done, Done):
                run.timings.include(done.timings)
                if done.log:
                    run.log_text(done.log)
            yield item, done, who

    @property
    def device(self) -> str:
        """For the workers: one without a GPU of its own would see all of them."""
        return "cpu" if self.asked == AUTO and not self.gpus else self.asked

    def _start(self) -> None:
        """Start or join a cluster, and share its processors and GPUs out. Raises UserError: no
        cluster at the address, or it has too little."""
        if self._started:
            return
        ray_pool.start_cluster(self.address)
        self._started = True
        self._ends.callback(self._leave)
        self.workers, self.gpus = ray_pool.share_cluster(
            self._ray.cluster_resources(), self.workers, self.cpus, self.gpus, self.asked != "cpu")
        output.note(f"{self.workers} Ray worker(s) with {self.cpus} CPU and {self.gpus:g} GPU each")

    def _leave(self) -> None:
        self._started = False
        self._ray.shutdown()

