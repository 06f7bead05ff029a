"""Weights of a later stage, stored as the difference to the stage before in 4 bits per number.

Seven transformers of 6 million parameters in float16 are too large for the package. The
difference of a stage to its parent is small (its norm is about a tenth of that of the weights),
so coarse steps are enough: groups of 64 numbers share a float16 scale, and each number is one of
15 steps. Vectors (biases, norms) are stored as float16 differences. All published measurements
use the weights as stored. What the parent does not have, in this shape, is stored whole as float16;
what did not change is not stored.

Weights without a parent are stored whole, in float16 or in fewer bits, see `rounded`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

GROUP = 64
_LARGEST = 7
_CODES, _SCALES, _WHOLE = ".codes", ".scales", ".whole"


def pack(
    state: Mapping[str, torch.Tensor], parent: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The difference of two state dicts.

    Returns:
        For each matrix KEY.codes uint8 (numbers / 2,), two numbers a byte, and KEY.scales
        float16 (groups,); for each vector KEY float16; for each new tensor KEY.whole float16.
    """
    packed: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        if key not in parent or parent[key].shape != value.shape:
            packed[key + _WHOLE] = value.detach().cpu().half().contiguous()
            continue
        difference = value.detach().float().cpu() - parent[key].float()
        if not difference.any():
            continue
        if difference.ndim < 2:
            packed[key] = difference.half()
            continue
        rows = torch.nn.functional.pad(difference.flatten(), (0, -difference.numel() % GROUP))
        rows = rows.view(-1, GROUP)
        scales = (rows.abs().amax(1) / _LARGEST).half()
        safe = scales.float().clamp(min=1e-12)[:, None]
        codes = ((rows / safe).round().clamp(-_LARGEST, _LARGEST) + 8).to(torch.uint8).flatten()
        packed[key + _CODES] = codes[::2] | (codes[1::2] << 4)
        packed[key + _SCALES] = scales
    return packed


def unpack(
    packed: Mapping[str, torch.Tensor], parent: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The state dict, float32, from what `pack` returned and the same parent."""
    state = {
        key.removesuffix(_WHOLE): value.float()
        for key, value in packed.items() if key.endswith(_WHOLE)
    }
    for key, base in parent.items():
        if key in packed:
            state[key] = base.float() + packed[key].float()
        elif key + _CODES in packed:
            codes = packed[key + _CODES]
            numbers = torch.stack([codes & 15, codes >> 4], 1).view(-1, GROUP).float() - 8
            rows = numbers * packed[key + _SCALES].float()[:, None]
            state[key] = base.float() + rows.flatten()[: base.numel()].view(base.shape)
        elif key not in state:
            state[key] = base.float()
    return state


def rounded(value: torch.Tensor, bits: int = 16) -> torch.Tensor:
    """float16 numbers of which only the first `bits` are not 0: sign, five of the exponent, and the
    mantissa's. The zeros take no space in a compressed file. At 11 bits, the weights of a network
    change by 0.7 % of their norm.

    Args:
        value: finite floats. bits: 7 to 16.
    """
    half = value.detach().half().contiguous()
    dropped = 16 - bits
    if not dropped:
        return half
    numbers = half.view(torch.int16).int() + (1 << (dropped - 1))  # to the nearest, by magnitude
    return (numbers >> dropped << dropped).to(torch.int16).view(torch.float16)
