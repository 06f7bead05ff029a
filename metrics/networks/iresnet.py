"""IResNet, the backbone of ArcFace, in the key layout of insightface's PyTorch weights.

Source: Deng et al., ArcFace (arXiv 1801.07698); Duta et al., Improved Residual Networks
(arXiv 2004.04989).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from idbench.metrics.networks.layers import PReLU

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}
_BATCH_NORM_EPS = 1e-5


class BasicBlock(nn.Module):
    """Norm, conv, norm, PReLU, conv (with the stride), norm; added to the shortcut."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels, eps=_BATCH_NORM_EPS)
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out, eps=_BATCH_NORM_EPS)
        self.prelu = PReLU(out)
        self.conv2 = nn.Conv2d(out, out, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out, eps=_BATCH_NORM_EPS)
        self.downsample = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride=stride, bias=False),
                nn.BatchNorm2d(out, eps=_BATCH_NORM_EPS),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        y = self.bn3(self.conv2(y))
        return y + (x if self.downsample is None else self.downsample(x))


class IResNet(nn.Module):
    """Faces (n, 3, size, size), RGB in -1..1, to embeddings (n, embedding), not normalised.

    Args:
        layers: blocks of each of the four stages; 50 is (3, 4, 14, 3), see `DEPTHS`.
        widths: channels of the four stages; the published networks have 64, 128, 256, 512.
        size: side of the input in pixels; the published networks have 112.
        embedding: length of the embedding.
        dropout: before the last linear layer.
    """

    def __init__(
        self, layers: Sequence[int] = DEPTHS[50], widths: Sequence[int] = (64, 128, 256, 512),
        size: int = 112, embedding: int = 512, dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.size = size
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0], eps=_BATCH_NORM_EPS)
        self.prelu = PReLU(widths[0])
        channels = widths[0]
        for i, (count, width) in enumerate(zip(layers, widths, strict=True), start=1):
            blocks = [BasicBlock(channels, width, 2)]
            blocks += [BasicBlock(width, width, 1) for _ in range(count - 1)]
            setattr(self, f"layer{i}", nn.Sequential(*blocks))
            channels = width
        self.bn2 = nn.BatchNorm2d(channels, eps=_BATCH_NORM_EPS)
        self.dropout = nn.Dropout(dropout)
        side = -(-size // 16)
        self.fc = nn.Linear(channels * side * side, embedding)
        self.features = nn.BatchNorm1d(embedding, eps=_BATCH_NORM_EPS)
        # ArcFace's training keeps the scale of the features at 1: the loss normalises them.
        nn.init.constant_(self.features.weight, 1.0)
        self.features.weight.requires_grad = False
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> IResNet:
        """A network of {layers, widths, size, embedding}."""
        return cls(**{k: config[k] for k in ("layers", "widths", "size", "embedding")})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.prelu(self.bn1(self.conv1(x)))
        for i in range(1, 5):
            x = getattr(self, f"layer{i}")(x)
        x = self.dropout(torch.flatten(self.bn2(x), 1))
        return self.features(self.fc(x.float()))
