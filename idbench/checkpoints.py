"""Other people's checkpoint files: read as tensors alone, never as code, or refused."""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idbench.embedded import WeightError
from idbench.files import read_json

if TYPE_CHECKING:
    import torch
    from torch import nn

WRAPPERS = ("module", "state_dict", "model")
"""Keys under which training programs put the state dict (SAT: `module`, ViCLIP: `model`)."""
_NO_TENSOR = "no tensor"
_POINTER = b"version https://git-lfs"
_EASY_DICT = (OrderedDict, "easydict.EasyDict")
"""The released ViCLIP file holds an EasyDict beside its tensors: it is read as an ordered dict, and
none of that package's code runs."""
_MAGIC = (b"PK", b"\x80")
"""First bytes of what torch.save writes: a zip archive, or (before PyTorch 1.6) a pickle."""


@dataclass(frozen=True)
class Checkpoint:
    """Tensors of one file or folder, on the CPU, by name. `refused`: what else it holds, and why
    that is not part of the network."""

    path: Path
    state: dict[str, torch.Tensor]
    refused: dict[str, str] = field(default_factory=dict)


def check_file(path: Path) -> None:
    """Check that `path` can be a weight file, without reading it; imports no torch.
    Raises WeightError: missing, a folder, empty, unreadable, or a Git LFS pointer."""
    if path.is_dir():
        raise WeightError(f"{path} is a folder; give the weight file in it.")
    if not path.is_file():
        raise WeightError(f"The weight file {path} is missing; check the path.")
    start = _start(path)
    if not start:
        raise WeightError(f"{path} is empty (0 bytes); download it again.")
    if start.startswith(_POINTER):
        raise WeightError(
            f"{path} is only a Git LFS pointer, not the file; run `git lfs pull` there."
        )


def read_checkpoint(path: Path, mapped: bool = False) -> Checkpoint:
    """The state dict in a .safetensors file or a PyTorch checkpoint.

    A state dict under one of `WRAPPERS` is unwrapped, and the prefix `module.` of parallel training
    removed. PyTorch's files are read with `weights_only`: nothing in them is run. `mapped` leaves
    the tensors in the file until they are used, if its format allows. Raises WeightError: as
    `check_file`; damaged; no checkpoint; or no tensors by name."""
    path = Path(path)
    check_file(path)
    refused: dict[str, str] = {}
    state = _unwrap(_content(path, mapped), refused)
    if not state:
        raise _no_state_dict(path)
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return Checkpoint(path, state, refused)


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a file that holds nothing else; as `read_checkpoint`.
    Raises WeightError: as `read_checkpoint`, or there are other values among the tensors."""
    found = read_checkpoint(path)
    if _NO_TENSOR in found.refused.values():
        raise _no_state_dict(found.path)
    return found.state


def read_settings(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, such as a config.json. Raises UserError: missing, no JSON, or
    something else."""
    settings = read_json(path)
    if not isinstance(settings, dict):
        raise WeightError(f"{path} is not a JSON object; download it again.")
    return settings


def fit(network: nn.Module, state: Mapping[str, torch.Tensor], path: Path, what: str) -> nn.Module:
    """`network` (which may be on the meta device) with the tensors of `state` in float32, frozen.

    Names and shapes must match; only batch norms' `num_batches_tracked`, which changes no result,
    may be missing. `what` names the network in messages. Raises WeightError: the first mismatch."""
    import torch

    wanted = network.state_dict()
    counters = {
        key: torch.zeros((), dtype=value.dtype) for key, value in wanted.items()
        if key.endswith("num_batches_tracked")
    }
    tensors = {**counters, **state}
    check_fit(tensors, wanted, path, what)
    ready = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    network.load_state_dict(ready, assign=True)
    return network.eval().requires_grad_(False)


def check_names(have: Iterable[str], wanted: Iterable[str], path: Path | str, what: str) -> None:
    """Raise WeightError unless the tensors have the names of a network, described by `what`."""
    have, wanted = set(have), set(wanted)
    found = []
    if wanted - have:
        found.append(f"it lacks {listed(wanted - have)}")
    if have - wanted:
        found.append(f"it holds {listed(have - wanted)} that are unknown")
    if found:
        raise WeightError(f"{path} does not hold the weights of {what}: {' and '.join(found)}.")


def check_fit(
    state: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], path: Path | str,
    what: str,
) -> None:
    """Raise WeightError unless `state` has the names and shapes of `wanted`."""
    check_names(state, wanted, path, what)
    for name, tensor in state.items():
        if tensor.shape != wanted[name].shape:
            raise WeightError(
                f"{path} does not hold the weights of {what}: {name} has shape "
                f"{tuple(tensor.shape)}, the network needs {tuple(wanted[name].shape)}."
            )


def listed(names: Iterable[str], most: int = 4) -> str:
    """"3 tensors (a, b, c)", with only the first `most` names."""
    ordered = sorted(names)
    shown = ", ".join(ordered[:most]) + (", ..." if len(ordered) > most else "")
    return f"{len(ordered)} tensor{'s' if len(ordered) != 1 else ''} ({shown})"


def _content(path: Path, mapped: bool) -> Any:
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if not _start(path).startswith(_MAGIC):
            raise WeightError(
                f"{path} is not a checkpoint (torch.save did not write it); download it again."
            )
        with torch.serialization.safe_globals([_EASY_DICT]):
            try:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
            except RuntimeError as error:
                if "mmap can only be used" not in str(error):
                    raise
                return torch.load(path, map_location="cpu", weights_only=True)
    except (WeightError, MemoryError):
        raise
    except Exception as error:  # what a damaged file does to the readers is not documented
        raise _explained(path, error) from error


def _explained(path: Path, error: Exception) -> WeightError:
    """Why a file could not be read."""
    text = str(error)
    # PyTorch's words for what the file wants to import, call or do besides.
    code = ("GLOBAL", "Unsupported class", "Unsupported operand")
    if isinstance(error, pickle.UnpicklingError) and any(word in text for word in code):
        found = re.search(r"GLOBAL ([\w.]+)", text)
        return WeightError(
            f"{path} is not a plain state dict: it contains Python objects"
            f"{f' ({found[1]})' if found else ''}, not tensors alone, and was not opened, since "
            "that could run what is in it; export a plain state dict from where you trust it "
            "(torch.save(model.state_dict(), FILE), or safetensors)."
        )
    if isinstance(error, RuntimeError) and "TorchScript" in text:
        return WeightError(
            f"{path} is a TorchScript archive, which runs code; give the same weights as a "
            "plain state dict or as .safetensors."
        )
    reason = text.strip().splitlines()[0][:120] if text.strip() else "it ends early"
    return WeightError(f"{path} is damaged or truncated ({reason}); download it again.")


def _unwrap(content: Any, refused: dict[str, str], before: str = "") -> dict[str, torch.Tensor]:
    """The state dict in `content`; everything around it goes to `refused`."""
    import torch

    if not isinstance(content, Mapping):
        return {}
    inner = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
    if inner is not None:
        for key in content:
            if key != inner:
                refused[f"{before}{key}"] = "beside the network's weights: a record of the training"
        return _unwrap(content[inner], refused, f"{before}{inner}.")
    state = {}
    for key, value in content.items():
        if isinstance(value, torch.Tensor) and isinstance(key, str):
            state[key] = value.detach()
        else:
            refused[f"{before}{key}"] = _NO_TENSOR
    return state


def _no_state_dict(path: Path) -> WeightError:
    return WeightError(f"{path} contains no state dict (names and tensors); pass the weight file.")


def _start(path: Path) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read(64)
    except OSError as error:
        raise WeightError(
            f"{path} cannot be read ({error.strerror}); check its permissions."
        ) from error
