"""Face recognisers by name: aligned crops to embeddings of length 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from idbench import embedded
from idbench.metrics.networks.batches import Batches, joined
from idbench.metrics.networks.ir import IR
from idbench.metrics.networks.iresnet import IResNet

BATCH = 64
"""Crops that run through a recogniser at once."""
BACKBONES: dict[str, type[IResNet] | type[IR]] = {"iresnet": IResNet, "ir": IR}


def crops_to_input(crops: np.ndarray | torch.Tensor, size: int) -> torch.Tensor:
    """uint8 RGB crops (n, s, s, 3) to (n, 3, size, size) in -1..1, (x - 127.5) / 127.5."""
    if isinstance(crops, np.ndarray):
        crops = torch.from_numpy(np.ascontiguousarray(crops))  # a mirrored view has no tensor
    x = crops.permute(0, 3, 1, 2).float()
    if x.shape[-1] != size:
        x = F.interpolate(x, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return (x - 127.5) / 127.5


def build_recogniser(config: dict[str, Any]) -> IResNet | IR:
    """A network of {backbone: iresnet|ir, layers, widths, size, embedding}."""
    return BACKBONES[config["backbone"]].from_config(config)


class Recogniser:
    """The embedded recogniser `name` (`arcface` or `curricularface`), ready to embed crops.
    Raises UserError: its weights are missing or damaged."""

    def __init__(self, name: str, device: str = "cpu", network: nn.Module | None = None) -> None:
        self.name, self.device = name, device
        if network is None:
            network = build_recogniser(embedded.entry(name)["config"])
            network.load_state_dict(embedded.load_state(name))
        self.network = network.eval().to(device)
        self.batches = Batches(BATCH)

    @torch.inference_mode()
    def embed(self, crops: np.ndarray) -> np.ndarray:
        """uint8 RGB aligned crops (n, 112, 112, 3) to float32 (n, d) of length 1."""
        size = int(self.network.size)  # type: ignore[arg-type]

        def part(start: int, end: int) -> np.ndarray:
            x = crops_to_input(crops[start:end], size).to(self.device)
            return F.normalize(self.network(x)).cpu().numpy()

        return joined(self.batches.run(part, len(crops))).astype(np.float32)
