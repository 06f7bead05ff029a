"""The expression of an avatar's face: a small convolutional network on the aligned crop.

Neither five landmarks nor the embedded CLIP tell expressions apart, so this one does. Its weights
are the embedded `expression`, trained on rendered people by `idbench train expression`; it knows
nothing of real faces.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from idbench import embedded
from idbench.errors import UserError
from idbench.prompts.avatars.scene import EXPRESSIONS


class ExpressionNet(nn.Module):
    """Grey crops (n, 1, size, size) in about -1..1 to scores (n, classes), by {widths, size,
    classes}; `classes` are names.

    Each of `widths` is a 3x3 convolution, a norm and a ReLU; the first two and every second after
    them halve the side. The last map is read with its places: a mouth is not a brow."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, side = 1, config["size"]
        for index, width in enumerate(config["widths"]):
            stride = 2 if index < 2 or index % 2 else 1
            layers += [nn.Conv2d(channels, width, 3, stride, 1, bias=False),
                       nn.BatchNorm2d(width), nn.ReLU()]
            channels, side = width, -(-side // stride)
        self.body = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(channels * side * side, len(config["classes"]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(torch.flatten(self.body(x), 1)))


def crops_to_grey(crops: np.ndarray, size: int) -> torch.Tensor:
    """uint8 RGB crops (n, s, s, 3) to float32 (n, 1, size, size), each of mean 0 and deviation 0.5,
    so that neither exposure nor skin colour matter."""
    rows = []
    for crop in crops:
        grey = cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_RGB2GRAY)
        if grey.shape[0] != size:
            grey = cv2.resize(grey, (size, size), interpolation=cv2.INTER_AREA)
        values = grey.astype(np.float32)
        rows.append((values - values.mean()) / (2 * values.std() + 1e-3))
    return torch.from_numpy(np.stack(rows)[:, None])


class ExpressionReader:
    """A network, ready to read crops."""

    def __init__(self, network: ExpressionNet, size: int) -> None:
        self.network, self.size = network.eval(), size

    @torch.inference_mode()
    def __call__(self, crops: np.ndarray) -> np.ndarray:
        """Scores (n, expressions) of aligned uint8 RGB crops (n, s, s, 3), as of `EXPRESSIONS`."""
        return self.network(crops_to_grey(crops, self.size)).numpy()


@cache
def embedded_reader() -> ExpressionReader:
    """The embedded reader. Raises UserError: its weights are missing or damaged, or of other
    expressions."""
    config = embedded.entry("expression")["config"]
    if config.get("classes") != list(EXPRESSIONS) or "widths" not in config:
        raise UserError(
            "The embedded weights 'expression' were trained for another network or other "
            "expressions; train them again with `idbench train expression`."
        )
    return ExpressionReader(embedded.built("expression", ExpressionNet), config["size"])
