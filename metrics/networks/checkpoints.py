"""Checkpoint files of others: read as tensors alone, and fitted to a network key by key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from idbench.checkpoints import WRAPPERS, read_content
from idbench.embedded import WeightError


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .safetensors file or of a PyTorch checkpoint, on the CPU.

    A state dict wrapped as one of `WRAPPERS`, and the prefix `module.` of parallel training, are
    unwrapped.

    Raises:
        WeightError: as `read_content`, or it is no state dict.
    """
    return _state(read_content(Path(path)), path)


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
