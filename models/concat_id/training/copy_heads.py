"""Attention heads that begin by copying: each token reads the reference at its own place.

Where references show faces at the size and place that they have in the video, copying is attention
to the same row and column, later in time. Queries and keys of a CogVideoX transformer are
normalised, so a trained network gets there slowly: a head has to put nearly all of a query into the
few fast frequencies of the rotary embedding. Here a few heads start with biases that do so; what
they read and write, and everything else, stays as it was and is trained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel

from idbench.models.concat_id.networks import CLIP_LATENT_FRAMES

PLACES = ((1, 0.0, 0.0), (2, 0.0, 0.7), (3, 0.0, -0.7), (4, -0.7, 0.0))
"""Block, and rows and columns from a token to what it reads; the first head of the block does it.
Between tokens, so that together they see where in a token a face begins."""
ENERGY = {"time": (24.0,), "row": (12.0, 8.0), "column": (12.0, 8.0)}
"""Squared length of queries and keys in the frequencies of each axis, of 64 in all after the norm.
Rows and columns use the two fastest frequencies, time the second."""
KEPT = 0.1
"""Share of the content in queries and keys that is kept."""


def start_copying(
    transformer: CogVideoXTransformer3DModel,
    places: Sequence[tuple[int, float, float]] = PLACES,
) -> None:
    """Change the first head of some blocks; nothing is added to the network.

    Args:
        transformer: with rotary positions and at least as many blocks as `places` names.
    """
    size = transformer.config.attention_head_dim
    with torch.no_grad():
        for block, rows, columns in places:
            attention: Any = transformer.transformer_blocks[block].attn1
            query, key = _vectors(size, rows, columns)
            for linear, vector in ((attention.to_q, query), (attention.to_k, key)):
                linear.weight[:size] *= KEPT
                linear.bias[:size] = vector


def _vectors(size: int, rows: float, columns: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Query and key (size,) whose product is largest `CLIP_LATENT_FRAMES` later, at an offset.

    The rotary embedding gives a quarter of a head to time and three eighths each to row and
    column, in pairs that turn by position x 10000 ** (-pair / pairs).
    """
    time, plane = size // 4, size // 8 * 3
    query, key = torch.zeros(size), torch.zeros(size)
    axes = (("time", 0, time, CLIP_LATENT_FRAMES, 1), ("row", time, plane, rows, 0),
            ("column", time + plane, plane, columns, 0))
    for axis, start, width, offset, fastest in axes:
        for number, energy in enumerate(ENERGY[axis], fastest):
            length, place = math.sqrt(energy), start + 2 * number
            turn = offset * 10000 ** (-2 * number / width)
            key[place], key[place + 1] = _turned(length, -math.pi / 4)
            query[place], query[place + 1] = _turned(length, -math.pi / 4 + turn)
    return query, key


def _turned(length: float, angle: float) -> tuple[float, float]:
    return length * math.cos(angle), length * math.sin(angle)
