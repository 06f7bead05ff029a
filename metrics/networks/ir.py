"""IR, the backbone of CurricularFace, in the key layout of its published weights.

Two layouts of its block are about. The published `glint360k_curricular_face_r101_backbone.bin`
(TFace's, which ConsisID and OpenS2V read) has a norm after the first convolution of a block;
CurricularFace's first code had none, and neither have the embedded weights. `middle_norm` says
which.

Source: Huang et al., CurricularFace (arXiv 2004.00288); Tencent/TFace, recognition.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from idbench.metrics.networks.layers import PReLU

DEPTHS = {50: (3, 4, 14, 3), 101: (3, 13, 30, 3), 152: (3, 8, 36, 3)}
IR_101: dict[str, Any] = {
    "backbone": "ir", "layers": DEPTHS[101], "widths": (64, 128, 256, 512), "size": 112,
    "embedding": 512, "middle_norm": True,
}
"""Of `glint360k_curricular_face_r101_backbone.bin`: 65.2 M parameters."""


class BottleneckIR(nn.Module):
    """Norm, conv, norm (if `middle_norm`), PReLU, conv with the stride, norm; and the shortcut."""

    def __init__(self, channels: int, out: int, stride: int, middle_norm: bool = True) -> None:
        super().__init__()
        if channels == out:
            self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        else:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(channels), nn.Conv2d(channels, out, 3, 1, 1, bias=False),
            *([nn.BatchNorm2d(out)] if middle_norm else []), PReLU(out),
            nn.Conv2d(out, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.res_layer(x) + self.shortcut_layer(x)


class IR(nn.Module):
    """Faces (n, 3, size, size), RGB in -1..1, to embeddings (n, embedding), not normalised.

    Args:
        layers: blocks of each of the four stages; 101 is (3, 13, 30, 3), see `DEPTHS`.
        widths: channels of the four stages; the published networks have 64, 128, 256, 512.
        size: side of the input in pixels; the published networks have 112.
        embedding: length of the embedding.
        dropout: before the last linear layer (0.4 in the published training).
        middle_norm: whether a block has a norm after its first convolution, as the published
            weights have.
    """

    def __init__(
        self, layers: Sequence[int] = DEPTHS[101], widths: Sequence[int] = (64, 128, 256, 512),
        size: int = 112, embedding: int = 512, dropout: float = 0.4, middle_norm: bool = True,
    ) -> None:
        super().__init__()
        self.size = size
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, 1, 1, bias=False),
            nn.BatchNorm2d(widths[0]),
            PReLU(widths[0]),
        )
        blocks, channels = [], widths[0]
        for count, width in zip(layers, widths, strict=True):
            blocks.append(BottleneckIR(channels, width, 2, middle_norm))
            blocks += [BottleneckIR(width, width, 1, middle_norm) for _ in range(count - 1)]
            channels = width
        self.body = nn.Sequential(*blocks)
        side = -(-size // 16)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(channels), nn.Dropout(dropout), nn.Flatten(),
            nn.Linear(channels * side * side, embedding), nn.BatchNorm1d(embedding, affine=False),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> IR:
        """A network of {layers, widths, size, embedding, middle_norm}; the embedded weights do not
        state the last: then it is False."""
        found = {k: config[k] for k in ("layers", "widths", "size", "embedding")}
        return cls(**found, middle_norm=config.get("middle_norm", False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output_layer(self.body(self.input_layer(x)))
