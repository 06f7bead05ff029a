"""Checkpoint files of others: tensors only, never code, and plain words for damage."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

from idbench.embedded import WeightError

WRAPPERS = ("module", "state_dict", "model")
"""Keys under which training programs put the state dict (SAT: `module`, ViCLIP: `model`)."""
_POINTER = b"version https://git-lfs"
_STARTS = (b"PK", b"\x80")
"""Of what torch.save writes: a zip archive, or (before PyTorch 1.6) a pickle."""


def check_file(path: Path) -> None:
    """Whether `path` can be a weight file at all, without reading it; imports no torch.

    Raises:
        WeightError: missing, a folder, empty, not to be read, or a Git LFS pointer in its place.
    """
    if path.is_dir():
        raise WeightError(f"{path} is a folder; give the weight file in it.")
    if not path.is_file():
        raise WeightError(f"There is no weight file {path}: it is missing; check the path.")
    start = _start(path)
    if not start:
        raise WeightError(f"{path} is empty (0 bytes); fetch it again.")
    if start.startswith(_POINTER):
        raise WeightError(
            f"{path} is only a Git LFS pointer, not the file; run `git lfs pull` there."
        )


def read_content(path: Path, mapped: bool = False) -> Any:
    """What a .safetensors file or a PyTorch checkpoint holds, tensors on the CPU.

    PyTorch's are read with `weights_only`: nothing in the file is run.

    Args:
        mapped: leave PyTorch's tensors in the file until they are used, where its form allows.

    Raises:
        WeightError: as `check_file`; damaged; no checkpoint; or it holds more than tensors.
    """
    import torch

    path = Path(path)
    check_file(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if not _start(path).startswith(_STARTS):
            raise WeightError(
                f"{path} is no checkpoint (no file that torch.save wrote); fetch it again."
            )
        if mapped:
            try:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError as error:
                if "mmap can only be used" not in str(error):
                    raise
        return torch.load(path, map_location="cpu", weights_only=True)
    except (WeightError, MemoryError):
        raise
    except pickle.UnpicklingError as error:
        # Torch's words for what the file wants to import and call, or do besides.
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found is None and not any(
            word in str(error) for word in ("GLOBAL", "Unsupported class", "Unsupported operand")
        ):
            raise _damaged(path, error) from error
        raise WeightError(
            f"{path} is no plain state dict: it holds Python objects"
            f"{f' ({found[1]})' if found else ''}, not tensors alone, and was not opened, since "
            "that could run what is in it; export a plain state dict from where you trust it "
            "(torch.save(model.state_dict(), FILE), or safetensors)."
        ) from error
    except RuntimeError as error:
        if "TorchScript" in str(error):
            raise WeightError(
                f"{path} is a TorchScript archive, which runs code; give the same weights as a "
                "plain state dict or as .safetensors."
            ) from error
        raise _damaged(path, error) from error
    except Exception as error:  # what a damaged file does to the readers is not documented
        raise _damaged(path, error) from error


def _start(path: Path) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read(64)
    except OSError as error:
        raise WeightError(f"{path} cannot be read ({error.strerror}); check its rights.") from error


def _damaged(path: Path, error: Exception) -> WeightError:
    reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else "it ends early"
    return WeightError(f"{path} is damaged or cut off ({reason}); fetch it again.")
