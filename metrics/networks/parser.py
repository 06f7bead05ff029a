"""The face parser: which pixels of a crop belong to the head (face, hair, glasses, neck).

transformers' SegFormer, the class of the parser that Concat-ID removes backgrounds with, in a
small configuration and with the parts of the avatars. Source: Xie et al., SegFormer
(arXiv 2105.15203).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from idbench import embedded
from idbench.metrics.networks.clip import normalised

if TYPE_CHECKING:
    from transformers import SegformerForSemanticSegmentation

CLASSES = ("background", "skin", "hair", "glasses", "neck", "garment")
"""As the renderer's parts. Skin includes eyes, brows, lips; hair includes beards."""
FOREGROUND = ("skin", "hair", "glasses", "neck")
"""What background removal keeps: all but the background and the clothes."""


def build_parser(config: dict[str, Any]) -> SegformerForSemanticSegmentation:
    """A SegFormer of {size, hidden_sizes, depths, num_attention_heads, sr_ratios, ...}."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    settings = {k: v for k, v in config.items() if k != "size"}
    labels = dict(enumerate(CLASSES))
    return SegformerForSemanticSegmentation(
        SegformerConfig(
            id2label=labels, hidden_dropout_prob=0.0, classifier_dropout_prob=0.0,
            drop_path_rate=0.0, **settings,
        )
    )


def crops_to_parser(crops: np.ndarray, size: int) -> torch.Tensor:
    """uint8 RGB (n, h, w, 3) to normalised (n, 3, size, size), shape not kept."""
    x = torch.as_tensor(np.array(crops)).permute(0, 3, 1, 2).float() / 255.0
    if x.shape[-2:] != (size, size):
        x = F.interpolate(x, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return normalised(x, "imagenet")


class FaceParser:
    """The embedded face parser, or `network` with its input `size`. Raises UserError: its weights
    are missing or damaged."""

    def __init__(
        self, name: str = "face_parser", device: str = "cpu",
        network: nn.Module | None = None, size: int | None = None,
    ) -> None:
        if network is None:
            network = embedded.built(name, build_parser)
            size = embedded.entry(name)["config"]["size"]
        self.network, self.size, self.device = network.eval().to(device), int(size or 0), device

    @torch.inference_mode()
    def probabilities(self, crops: np.ndarray) -> np.ndarray:
        """uint8 RGB crops (n, h, w, 3) to float32 (n, classes, h, w), summing to 1 each pixel."""
        x = crops_to_parser(crops, self.size).to(self.device)
        logits = self.network(pixel_values=x).logits
        logits = F.interpolate(logits, crops.shape[1:3], mode="bilinear", align_corners=False)
        return logits.softmax(1).cpu().numpy()


@cache
def embedded_parser() -> FaceParser:
    """The embedded face parser, loaded once a process."""
    return FaceParser()


def face_foreground(crop: np.ndarray, parser: FaceParser | None = None) -> np.ndarray:
    """The head in a face crop, uint8 RGB (h, w, 3), that it mostly fills: float32 (h, w), the
    probability of `FOREGROUND`. `parser`: default the embedded one. Raises UserError: its weights
    are missing or damaged."""
    parser = parser or embedded_parser()
    kept = [CLASSES.index(name) for name in FOREGROUND]
    return parser.probabilities(np.ascontiguousarray(crop)[None])[0, kept].sum(0)
