"""Checkpoint files of others: read as tensors alone, and fitted to a network key by key."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from idbench.embedded import WeightError

WRAPPERS = ("state_dict", "model", "module")
"""Keys under which training programs put the state dict (ViCLIP: `model`)."""
_POINTER = b"version https://git-lfs"


def check_file(path: Path) -> None:
    """Whether `path` can be a weight file at all, without reading it.

    Raises:
        WeightError: missing, a folder, empty, or a Git LFS pointer in place of the file.
    """
    if path.is_dir():
        raise WeightError(f"{path} is a folder; give the weight file in it.")
    if not path.is_file():
        raise WeightError(f"There is no weight file {path}; check the path.")
    if path.stat().st_size == 0:
        raise WeightError(f"{path} is empty (0 bytes); download it again.")
    with open(path, "rb") as stream:
        if stream.read(len(_POINTER)) == _POINTER:
            raise WeightError(
                f"{path} is a Git LFS pointer, not the file; run `git lfs pull` there."
            )


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .safetensors file or of a PyTorch checkpoint, on the CPU.

    PyTorch's are read with `weights_only`: nothing in the file is run. A state dict wrapped as
    one of `WRAPPERS`, and the prefix `module.` of parallel training, are unwrapped.

    Raises:
        WeightError: as `check_file`; damaged; it holds more than tensors; or it is no state dict.
    """
    path = Path(path)
    check_file(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # Torch's words for a name that the file wants to import and call.
        if any(word in str(error) for word in ("GLOBAL", "Unsupported class")):
            raise WeightError(
                f"{path} holds Python objects, not tensors alone, and was not opened: opening it "
                "could run what is in it; export a plain state dict from where you trust it "
                "(torch.save(model.state_dict(), FILE), or safetensors)."
            ) from error
        raise WeightError(f"{path} is no checkpoint; download it again.") from error
    except RuntimeError as error:
        if "TorchScript" in str(error):
            raise WeightError(
                f"{path} is a TorchScript archive, which runs code; give the same weights as a "
                "plain state dict or as .safetensors."
            ) from error
        raise WeightError(_damaged(path)) from error
    except MemoryError:
        raise
    except Exception as error:  # what a damaged file does to the readers is not documented
        raise WeightError(_damaged(path)) from error
    return _state(content, path)


def fit(
    network: nn.Module, state: Mapping[str, torch.Tensor], path: Path, what: str
) -> nn.Module:
    """`network` (it may be on the meta device) with the tensors of `state`, float32, for reading.

    Every key has to be there with its shape, and no other. Only the counters of batch norms
    (`num_batches_tracked`), which move no number, may be missing.

    Args:
        what: the network in words, for messages.

    Raises:
        WeightError: the file's keys or shapes are others; says the first.
    """
    wanted = network.state_dict()
    tensors = dict(state)
    for key, value in wanted.items():
        if key.endswith("num_batches_tracked") and key not in tensors:
            tensors[key] = torch.zeros((), dtype=value.dtype)
    missing = [key for key in wanted if key not in tensors]
    strange = [key for key in tensors if key not in wanted]
    shapes = [k for k in wanted if k in tensors and tensors[k].shape != wanted[k].shape]
    found = []
    if missing:
        found.append(f"{len(missing)} tensors are missing, such as {missing[0]}")
    if strange:
        found.append(f"{len(strange)} are unknown, such as {strange[0]}")
    if shapes:
        key = shapes[0]
        found.append(
            f"{len(shapes)} have another shape, such as {key} with {tuple(tensors[key].shape)} "
            f"in place of {tuple(wanted[key].shape)}"
        )
    if found:
        raise WeightError(f"{path} are not the weights of {what}: {'; '.join(found)}.")
    ready = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    network.load_state_dict(ready, assign=True)
    return network.eval().requires_grad_(False)


def _state(content: Any, path: Path) -> dict[str, torch.Tensor]:
    for _ in range(2):  # a wrapper may lie in a wrapper
        inner = [content[k] for k in WRAPPERS if isinstance(content, Mapping) and k in content]
        if inner and isinstance(inner[0], Mapping):
            content = inner[0]
    good = isinstance(content, Mapping) and bool(content) and all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in content.items()
    )
    if not good:
        raise WeightError(f"{path} holds no state dict (names with tensors); give the weight file.")
    if all(key.startswith("module.") for key in content):
        return {key.removeprefix("module."): value for key, value in content.items()}
    return dict(content)


def _damaged(path: Path) -> str:
    return f"{path} is damaged or cut off; download it again."
