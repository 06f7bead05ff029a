"""A Ray cluster, started or joined and shared out; workers on it as Ray Core actors, and the loop
that keeps each of them busy.

An actor has one task in flight and Ray retries none: an item whose worker dies is done again by our
own count, so that one that kills every worker costs itself alone. Actors that die are restarted by
Ray, or made anew where Ray has given up. A task that is done twice writes the same file twice.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from idbench import holding, lock
from idbench.errors import UserError
from idbench.provenance import cores
from idbench.runs import Run
from idbench.worker import Done, Job, Worker, log_path

OBJECT_STORE = 100_000_000
"""Bytes of the shared memory of a cluster started here: only small records pass through it."""
DEATHS = 2
"""An item that kills its worker this often has failed."""
STARTS = 5
"""A worker that does not start this often in a row ends the run."""
RESTART_SECONDS = 60
"""Ray restarts a dead worker on its own; on a busy machine that takes a while."""
LAST_SECONDS = 20
"""When all is done, a worker that still starts is waited for this long: its machine may be gone."""


def start_cluster(address: str | None) -> None:
    """Start a cluster on this machine, or join the one at `address` (`auto` or HOST:PORT). Raises
    UserError: there is none, or Ray does not start."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray's 15 lets every other process of the machine go first.
    os.environ.setdefault("RAY_worker_niceness", "0")
    handler = signal.getsignal(signal.SIGTERM)
    about: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not address:
        about |= {"num_cpus": cores(), "include_dashboard": False,
                  "object_store_memory": OBJECT_STORE}
    answers = False
    try:
        if address:
            answers = _check_reachable(address)
        ray.init(address=address or "local", **about)
    except Exception as error:  # Ray raises a bare one if it does not start in time
        where = f"at {address}" if address else "on this machine"
        fix = "start it with `ray start --head`, or leave --address out"
        if answers:
            fix = "check that Ray runs there, and set RAY_AUTH_MODE=token if it asks for a token"
        raise UserError(
            f"Ray cannot be used {where} ({last_line(str(error))}); {fix}."
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray has replaced it


def share_cluster(
    there: Mapping[str, float], workers: int | None, cpus: int, gpus: float | None, may_use: bool
) -> tuple[int, float]:
    """How many workers, and GPUs of each, fit the resources `there`.

    None asks for as many workers as fit, and 1 GPU each if there are any; `may_use`: whether GPUs
    may be used. Raises UserError: the cluster is too small."""
    all_cpus, all_gpus = int(there.get("CPU", 0)), float(there.get("GPU", 0))
    if gpus is None:
        gpus = 1.0 if all_gpus and may_use else 0.0
    most = all_cpus // cpus
    if gpus:
        most = min(most, int(all_gpus / gpus + 1e-9))
    if not most or (workers or 0) > most:
        raise UserError(
            f"The Ray cluster has {all_cpus} CPUs and {all_gpus:g} GPUs: enough for {most} workers "
            f"with {cpus} CPU and {gpus:g} GPU each; use fewer --workers, or smaller ones."
        )
    return workers or most, gpus


def last_line(text: str) -> str:
    """The last line with words, shortened, without a full stop."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200].rstrip(".") if lines else ""


def _check_reachable(address: str) -> bool:
    """Whether somebody listens at HOST:PORT; False of `auto`. Raises OSError: nobody does. Ray
    itself would end this process."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        return False
    socket.create_connection((host.rpartition("/")[2], int(port)), timeout=10).close()
    return True


@dataclass
class _Slot:
    """A worker's place: the actor in it, and the item that it works on (None: it begins)."""

    number: int
    name: str
    actor: Any = None
    item: str | None = None
    failed_starts: int = 0
    restarting_since: float | None = None
    read: int = 0

    @property
    def who(self) -> str:
        return f"worker {self.number}"


class Pool:
    """Workers of one run.

    Args:
        ray: the module, with a cluster.
        job: what each of the `count` workers is made with.
        cpus, gpus: of each.
    """

    def __init__(self, ray: Any, run: Run, job: Job, count: int, cpus: int, gpus: float) -> None:
        self._ray, self._run, self._job = ray, run, job
        self._worker = ray.remote(
            num_cpus=cpus, num_gpus=gpus, max_restarts=-1, max_task_retries=0)(Worker)
        prefix = f"worker-{socket.gethostname()}-{os.getpid()}"
        self._slots = [_Slot(k, f"{prefix}-{k}") for k in range(count)]

    def work(
        self, method: str, items: Mapping[str, Any]
    ) -> Generator[tuple[str, Done | str, str]]:
        """Every item with what a worker did, or why it failed, and which worker. At the end, also
        of the iteration, the workers are dismissed. Raises what a worker raised; UserError: workers
        cannot start."""
        ray = self._ray
        queue, deaths = deque(items), Counter[str]()
        try:
            for slot in self._slots:
                self._hire(slot)
            busy = {slot.actor.begin.remote(): slot for slot in self._slots}
            while busy:
                left = queue or any(slot.item is not None for slot in busy.values())
                ready, _ = ray.wait(
                    list(busy), num_returns=1, timeout=None if left else LAST_SECONDS)
                if not ready:
                    break
                slot = busy.pop(ready[0])
                item, slot.item = slot.item, None
                try:
                    done: Done | None = ray.get(ready[0])
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                except ray.exceptions.RayActorError as error:
                    said = self._read_log(slot)
                    if item is None:
                        self._count_failed_start(slot, error, said)
                    else:
                        deaths[item] += 1
                        self._run.log_error(item, f"its {slot.who} died: {error}\n{said}")
                        if deaths[item] < DEATHS:
                            queue.append(item)
                        else:
                            last = f" ({line})" if (line := last_line(said)) else ""
                            yield item, f"its worker died {DEATHS} times{last}", slot.who
                    if not isinstance(error, ray.exceptions.ActorUnavailableError):
                        self._hire(slot)
                    if queue:
                        busy[slot.actor.begin.remote()] = slot
                    continue
                slot.failed_starts, slot.restarting_since = 0, None
                if queue:  # first, so that the worker does not wait for the caller
                    slot.item = queue.popleft()
                    busy[getattr(slot.actor, method).remote(items[slot.item])] = slot
                if item is not None and done is not None:
                    yield item, done, slot.who
        finally:
            self._dismiss()

    def _hire(self, slot: _Slot) -> None:
        slot.actor = self._worker.remote(self._job, slot.name)

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

    def _dismiss(self) -> None:
        """End the workers, which frees their GPUs, and clear what they leave."""
        folder = self._run.folder
        for slot in self._slots:
            with suppress(Exception):
                self._ray.kill(slot.actor)
        lock.wait_for_parts(folder, [slot.name for slot in self._slots])
        for slot in self._slots:
            if text := self._read_log(slot):
                self._run.log_text(f"output of {slot.who}\n{text}\n")
            log_path(folder, slot.name).unlink(missing_ok=True)
        holding.clear_leftovers(folder)

    def _read_log(self, slot: _Slot) -> str:
        """What the worker's process printed since it was read last."""
        try:
            with open(log_path(self._run.folder, slot.name), "rb") as stream:
                stream.seek(slot.read)
                data = stream.read()
        except OSError:
            return ""
        slot.read += len(data)
        return data.decode("utf-8", "replace").strip()
