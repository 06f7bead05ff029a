"""The engine `ray`: workers on the GPUs of one machine or of a cluster, as Ray Core actors.

An actor has one task in flight and Ray retries none: an item whose worker dies is done again by our
own count, so that one that kills every worker costs itself alone. Actors that die are restarted by
Ray, or made anew where Ray has given up. What they make are files in the run folder, which all
machines share; a task that is done twice writes the same file twice.
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from idbench import holding, lock, output, ray_cluster
from idbench.devices import AUTO, check_name
from idbench.engine import LocalEngine, Outcome
from idbench.errors import UserError
from idbench.failures import describe
from idbench.files import write_derived
from idbench.progress import Step
from idbench.ray_cluster import last_line
from idbench.records import SampleFile, ScoresFile
from idbench.runs import Run
from idbench.scoring import Scoring
from idbench.types import Model, Sample
from idbench.video_scorer import Describe, Measured, VideoScorer, combined, missing
from idbench.worker import Done, Job, Worker, log_path

DEATHS = 2
"""An item that kills its worker this often has failed."""
STARTS = 5
"""A worker that does not start this often in a row ends the run."""
RESTART_SECONDS = 60
"""Ray restarts a dead worker on its own; on a busy machine that takes a while."""
LAST_SECONDS = 20
"""When all is done, a worker that still starts is waited for this long: its machine may be gone."""


@dataclass
class _Slot:
    """A worker's place: the actor in it, and the item that it works on (None: it begins)."""

    name: str
    number: int
    actor: Any
    item: str | None = None
    failed_starts: int = 0
    restarting_since: float | None = None
    read: int = 0


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
        self._run: Run | None = None
        self._started = False

    @contextmanager
    def open(self, run: Run) -> Iterator[None]:
        """The cluster is started, or joined, at the first work, and left at the end."""
        self._run = run
        try:
            yield
        finally:
            if self._started:
                self._started = False
                self._ray.shutdown()

    def prepare(self, model: Model) -> None:
        """The workers load it."""

    def about(self) -> dict[str, Any]:
        return {
            "name": self.name, "device": self.asked, "workers": self.workers,
            "cpus_per_worker": self.cpus, "gpus_per_worker": self.gpus,
            "ray": self._ray.__version__,
        }

    def generate(self, model: Model, samples: Sequence[Sample]) -> Iterator[Outcome]:
        """One outcome per sample, in the order in which workers finish."""
        run = self._open_run()
        if not run.generates:  # finished videos are copied by this process
            yield from LocalEngine().generate(model, samples)
            return
        by_id = {sample.id: sample for sample in samples}
        clock = time.perf_counter()
        for sample, done, who in self._work("generate", by_id, model=model):
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
        items = {record.id: record.id for record in records}
        for sample, done, who in self._work("score", items, scoring=scoring):
            record = by_id[sample]
            if isinstance(done, str):
                rows = missing(record.sample, scoring.metrics, f"scoring failed: {done}")
                scores = ScoresFile.of(
                    rows, key=scoring.sha256, video_sha256=record.video_sha256, failed=True)
                write_derived(run.path(record.id, "scores.json"), scores.json_text())
            elif done.measured is not None and done.measured != measured:
                measured = Measured(
                    {**measured.hashes, **done.measured.hashes},
                    **combined([measured, done.measured]),
                )
                describe(measured)
            advance(f"{record.prompt_id} ({who})")

    # -- the loop

    def _work(
        self, method: str, items: Mapping[str, Any], model: Model | None = None,
        scoring: Scoring | None = None,
    ) -> Iterator[tuple[str, Done | str, str]]:
        """Every item with what a worker did, or why it failed, and which worker."""
        if not items:
            return
        run, ray = self._open_run(), self._ray
        self._start()
        job = Job(Path.cwd(), run.folder, self.device, self.cpus, model, scoring)
        try:
            ray.cloudpickle.dumps(job)
        except Exception as error:  # whatever the parts of a model raise
            raise UserError(
                f"The model cannot be sent to workers ({describe(error)}); make it without open "
                "files and locks, or use --engine local."
            ) from error
        prefix = f"worker-{socket.gethostname()}-{os.getpid()}"
        slots = [
            _Slot(f"{prefix}-{k}", k, self._hire(job, f"{prefix}-{k}"))
            for k in range(min(self.workers or 1, len(items)))
        ]
        busy = {slot.actor.begin.remote(): slot for slot in slots}
        queue, deaths = deque(items), Counter[str]()
        try:
            while busy:
                left = queue or any(slot.item is not None for slot in busy.values())
                ready, _ = ray.wait(
                    list(busy), num_returns=1, timeout=None if left else LAST_SECONDS)
                if not ready:
                    break
                reference = ready[0]
                slot = busy.pop(reference)
                item, slot.item = slot.item, None
                try:
                    done: Done | None = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                except ray.exceptions.RayActorError as error:
                    said = self._read_log(slot)
                    if item is None:
                        self._count_failed_start(slot, error, said)
                    else:
                        deaths[item] += 1
                        run.log_error(item, f"its worker {slot.number} died: {error}\n{said}")
                        if deaths[item] < DEATHS:
                            queue.append(item)
                        else:
                            yield item, _died(said), f"worker {slot.number}"
                    if not isinstance(error, ray.exceptions.ActorUnavailableError):
                        slot.actor = self._hire(job, slot.name)
                    if queue:
                        busy[slot.actor.begin.remote()] = slot
                    continue
                slot.failed_starts, slot.restarting_since = 0, None
                if queue:  # first, so that the worker does not wait for the caller
                    slot.item = queue.popleft()
                    busy[getattr(slot.actor, method).remote(items[slot.item])] = slot
                if item is not None and done is not None:
                    self._take(done)
                    yield item, done, f"worker {slot.number}"
        finally:
            self._dismiss(slots)

    def _hire(self, job: Job, name: str) -> Any:
        actor = self._ray.remote(
            num_cpus=self.cpus, num_gpus=self.gpus, max_restarts=-1, max_task_retries=0)(Worker)
        return actor.remote(job, name)

    def _take(self, done: Done) -> None:
        """Keep a worker's times and log."""
        run = self._open_run()
        run.timings.include(done.timings)
        if done.log:
            run.log_text(done.log)

    def _count_failed_start(self, slot: _Slot, error: Exception, said: str) -> None:
        if isinstance(error, self._ray.exceptions.ActorUnavailableError):
            slot.restarting_since = slot.restarting_since or time.monotonic()
            if time.monotonic() < slot.restarting_since + RESTART_SECONDS:
                time.sleep(0.2)
                return
        slot.failed_starts += 1
        if slot.failed_starts >= STARTS:
            reason = last_line(said) or last_line(str(error))
            raise UserError(
                f"The workers cannot start ({reason}); check that every machine has idbench "
                "and the run folder, or use --engine local."
            ) from error
        time.sleep(0.2 * slot.failed_starts)

    def _dismiss(self, slots: Sequence[_Slot]) -> None:
        """End the workers, which frees their GPUs, and clear what they leave."""
        run = self._open_run()
        for slot in slots:
            with suppress(Exception):
                self._ray.kill(slot.actor)
        lock.wait_for_parts(run.folder, [slot.name for slot in slots])
        for slot in slots:
            if text := self._read_log(slot):
                run.log_text(f"output of worker {slot.number}\n{text}\n")
            log_path(run.folder, slot.name).unlink(missing_ok=True)
        holding.clear_leftovers(run.folder)

    def _read_log(self, slot: _Slot) -> str:
        """What the worker's process printed since it was read last."""
        try:
            with open(log_path(self._open_run().folder, slot.name), "rb") as stream:
                stream.seek(slot.read)
                data = stream.read()
        except OSError:
            return ""
        slot.read += len(data)
        return data.decode("utf-8", "replace").strip()

    @property
    def device(self) -> str:
        """For the workers: one without a GPU of its own would see all of them."""
        return "cpu" if self.asked == AUTO and not self.gpus else self.asked

    def _start(self) -> None:
        """Start or join a cluster, and share its processors and GPUs out. Raises UserError: no
        cluster at the address, or it has too little."""
        if self._started:
            return
        ray_cluster.start(self.address)
        self._started = True
        self.workers, self.gpus = ray_cluster.share(
            self._ray.cluster_resources(), self.workers, self.cpus, self.gpus, self.asked != "cpu")
        output.note(f"{self.workers} Ray worker(s) with {self.cpus} CPU and {self.gpus:g} GPU each")

    def _open_run(self) -> Run:
        assert self._run is not None, "the engine is not open"
        return self._run


def _died(said: str) -> str:
    last = last_line(said)
    return f"its worker died {DEATHS} times{f' ({last})' if last else ''}"
