"""facexlib's BiSeNet face parser with its released file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from idbench.baselines.loading import need_package
from idbench.checkpoints import check_fit, read_checkpoint

CLASSES = 19


class BiSeNet:
    """The parser, ready to read crops; `extra` of idbench installs facexlib. Raises UserError:
    facexlib is not installed; the file is missing, damaged or of another network."""

    def __init__(self, path: Path, extra: str, device: str) -> None:
        kind = need_package("facexlib.parsing.bisenet", extra, "The released face parser").BiSeNet
        self.device = device
        self._network = filled(kind(num_class=CLASSES), path, "BiSeNet").to(device)

    @torch.no_grad()
    def classes(self, pictures: torch.Tensor) -> np.ndarray:
        """The class of each pixel, (512, 512), of a normalised crop (1, 3, 512, 512)."""
        found: np.ndarray = self._network(pictures.to(self.device))[0].argmax(1)[0].cpu().numpy()
        return found


def filled(network: Any, path: Path, what: str) -> Any:
    """`network` with the tensors of a released file."""
    state = read_checkpoint(path).state
    check_fit(state, network.state_dict(), path, what)
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def as_tensor(crop: np.ndarray) -> torch.Tensor:
    """A crop, uint8 RGB (h, w, 3), as float32 (1, 3, h, w) in 0..255."""
    return torch.from_numpy(crop).permute(2, 0, 1)[None].float()
