"""The device that networks run on, by its name on the command line. Imports torch only if asked."""

from __future__ import annotations

import os
import re

from idbench.errors import UserError, explained

AUTO = "auto"
_NAMES = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")


def check_name(device: str) -> str:
    """`device`, if it is auto, cpu, cuda, cuda:N or mps. Raises UserError: something else."""
    if not _NAMES.fullmatch(device):
        raise UserError(f"Unknown device {device[:40]!r}; use auto, cpu, cuda, cuda:N or mps.")
    return device


def resolve(device: str) -> str:
    """The device of torch that a name means: `auto` is a CUDA GPU if there is one, else the CPU.
    Raises UserError: this machine has no such device, or it cannot be used."""
    if device == AUTO:
        if not may_have_gpu():
            return "cpu"
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"
    if device != "cpu":
        check_device(device)
    return device


def may_have_gpu() -> bool:
    """Whether a driver of NVIDIA or AMD is loaded; False saves asking torch, whose import is slow.
    """
    places = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg")
    return os.name == "nt" or any(os.path.exists(place) for place in places)


def check_device(device: str) -> None:
    """Raise UserError unless tensors can be brought to `device` and read there."""
    import torch

    fix = "use cpu, or a device that this machine has"
    with explained(f"The device {device!r} cannot be used", fix):
        torch.zeros(1, device=device).item()
