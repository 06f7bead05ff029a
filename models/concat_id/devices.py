"""Whether a device can be used. Kept out of the pipelines, whose import takes seconds."""

from __future__ import annotations

import torch

from idbench.errors import UserError


def check_device(device: str) -> None:
    """Raise UserError unless tensors can be brought to `device` and read there."""
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        raise UserError(
            f"The device {device!r} cannot be used ({str(error).splitlines()[0][:120]}); take cpu, "
            "or a device that this machine has."
        ) from error
