"""The Ray cluster that workers run on: started or joined, and shared out."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Mapping
from typing import Any

from idbench.errors import UserError
from idbench.provenance import cores

OBJECT_STORE = 100_000_000
"""Bytes of the shared memory of a cluster started here: only small records pass through it."""


def start(address: str | None) -> None:
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


def share(
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
