"""facexlib's BiSeNet face parser with its released file, as Stand-In runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from idbench.baselines.loading import need_package
from idbench.checkpoints import check_fit, read_checkpoint

CLASSES = 19


def load_bisenet(path: Path, extra: str, device: str) -> Callable[[np.ndarray], np.ndarray]:
    """From a crop, uint8 RGB (512, 512, 3), to the class of each pixel, (512, 512).

    Args:
        extra: of idbench, to install facexlib.

    Raises:
        UserError: facexlib is not installed; the file is missing, damaged or of another network.
    """
    kind = need_package("facexlib.parsing.bisenet", extra, "The released face parser").BiSeNet
    network = kind(num_class=CLASSES)
    state = read_checkpoint(path).state
    check_fit(state, network.state_dict(), path, "BiSeNet")
    network.load_state_dict(state)
    network = network.to(device).eval().requires_grad_(False)

    def classes(crop: np.ndarray) -> np.ndarray:
        picture = torch.from_numpy(crop).permute(2, 0, 1)[None].to(device).float() / 127.5 - 1
        return network(picture)[0].argmax(1)[0].cpu().numpy()

    return classes
