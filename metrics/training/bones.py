"""The true shape of an avatar's face: a second task that makes a recogniser look at it."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from idbench.prompts.avatars.identity import SHAPE_RANGES, sample_identity

UNSEEN = ("ear_size", "ear_out", "neck_width", "shoulder_width")
"""Outside an aligned crop."""
SEEN = tuple(name for name in SHAPE_RANGES if name not in UNSEEN)


def shape_truth(seed: int) -> np.ndarray:
    """The shape of an identity: float32 (len(SEEN),) of about zero mean and unit variance."""
    shape = sample_identity(seed).shape
    rows = []
    for name in SEEN:
        low, high = SHAPE_RANGES[name]
        rows.append((shape[name] - (low + high) / 2) / ((high - low) / np.sqrt(12)))
    return np.array(rows, np.float32)


class ShapeHead(nn.Module):
    """A linear reader of the shape from an embedding (n, d); dropped after training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = width**0.5
        self.linear = nn.Linear(width, len(SEEN))

    def forward(self, vectors: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Mean squared error of embeddings (n, d) with `shape_truth` (n, s); 1 is guessing."""
        return F.mse_loss(self.linear(F.normalize(vectors.float()) * self.scale), truth)
