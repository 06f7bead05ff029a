"""Whether a device can be used. Kept out of the pipelines, whose import takes seconds."""

from __future__ import annotations

import torch

from idbench.errors import explained


def check_device(device: str) -> None:
    """Raise UserError unless tensors can be brought to `device` and read there."""
    fix = "use cpu, or a device that this machine has"
    with explained(f"The device {device!r} cannot be used", fix):
        torch.zeros(1, device=device).item()
