"""Checkpoints that are complete or absent, whatever kills the training."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from idbench.errors import UserError, message
from idbench.files import DiskError, DiskFull, atomic_path, disk_errors

FAILED = ("PytorchStreamWriter failed", "iostream error")
"""What PyTorch says of a disk that fails."""


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state` with torch: to a temporary file, synced to disk, then renamed.
    Raises DiskFull: the checkpoint before stays."""
    with saying_full(path), atomic_path(path) as temporary:
        torch.save(dict(state), temporary)
    sync(path.parent)


def load(path: Path) -> dict[str, Any]:
    """What `save` wrote, on the CPU. Raises UserError: the file is missing, damaged or no
    checkpoint."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"There is no checkpoint {path}; train first.") from error
    except Exception as error:  # torch documents none; a cut file gives at least five kinds
        raise UserError(
            f"The checkpoint {path} is damaged; remove it and train again without --resume."
        ) from error
    if not isinstance(state, dict):
        raise UserError(f"{path} is not a checkpoint; remove it and train without --resume.")
    return state


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def saying_full(path: Path) -> Iterator[None]:
    """`disk_errors` for libraries that hide the system's error number. Raises DiskFull: the disk of
    `path` is full; DiskError: it fails."""
    try:
        with disk_errors(path):
            yield
    except (DiskFull, RuntimeError, SafetensorError) as error:
        full = isinstance(error, DiskFull) or shutil.disk_usage(path.parent).free < 2**20
        if full:
            raise DiskFull(
                f"The disk with {path.parent} is full; free some space and continue with "
                "--resume: older checkpoints are kept."
            ) from error
        if any(words in str(error) for words in FAILED):
            raise DiskError(
                f"{path} cannot be written ({message(error)[:100]}); check the disk or the network "
                "folder and continue with --resume: older checkpoints are kept."
            ) from error
        raise


def random_state() -> dict[str, Any]:
    """The state of torch's random generators, for a checkpoint."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Set torch's random generators to what `random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if len(state.get("cuda", ())) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state.get("cuda", []))
