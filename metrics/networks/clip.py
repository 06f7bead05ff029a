"""CLIP (open_clip) and ViCLIP by name: pictures, videos and texts to embeddings of length 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from idbench import embedded
from idbench.metrics.networks.tokens import ReducedTokenizer
from idbench.metrics.networks.viclip import ViCLIP
from idbench.metrics.protocols import Picture

if TYPE_CHECKING:
    from open_clip import CLIP

MEAN_STD = {
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def prepare_pictures(
    frames: np.ndarray | torch.Tensor, size: int, picture: Picture
) -> torch.Tensor:
    """uint8 RGB frames (n, h, w, 3) to normalised float32 (n, 3, size, size)."""
    x = torch.as_tensor(frames).permute(0, 3, 1, 2).float() / 255.0
    height, width = x.shape[-2:]
    if picture.resize == "squash":
        target = size, size
    elif picture.resize == "crop":
        scale = size / min(height, width)
        target = max(size, round(height * scale)), max(size, round(width * scale))
    else:
        raise ValueError(f"unknown resize {picture.resize!r}")
    if (height, width) != target:
        # Bicubic interpolation overshoots; a picture stays in 0..1.
        x = F.interpolate(
            x, target, mode=picture.interpolation, antialias=True, align_corners=False
        ).clamp(0.0, 1.0)
    top, left = (target[0] - size) // 2, (target[1] - size) // 2
    x = x[..., top : top + size, left : left + size]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in MEAN_STD[picture.normalisation])
    return (x - mean) / std


def build_clip(config: Mapping[str, Any]) -> CLIP:
    """open_clip's CLIP of {embed_dim, vision: {...}, text: {...}} with QuickGELU."""
    from open_clip import CLIP
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg

    return CLIP(
        config["embed_dim"],
        CLIPVisionCfg(**config["vision"]),
        CLIPTextCfg(**config["text"]),
        quick_gelu=True,
    )


class ClipEmbedder:
    """The embedded CLIP, or `network`: pictures and texts to float32 vectors of length 1.

    Raises:
        UserError: its weights are missing or damaged.
    """

    def __init__(
        self, name: str = "clip", device: str = "cpu",
        network: CLIP | None = None, config: Mapping[str, Any] | None = None,
    ) -> None:
        config = config or embedded.entry(name)["config"]
        if network is None:
            network = build_clip(config)
            network.load_state_dict(embedded.load_state(name))
        self.network = network.eval().to(device)
        self.device, self.size = device, config["vision"]["image_size"]
        self.tokenizer = ReducedTokenizer(config["vocabulary"], config["text"]["context_length"])

    @torch.inference_mode()
    def pictures(self, frames: np.ndarray, picture: Picture, batch: int = 64) -> np.ndarray:
        """uint8 RGB (n, h, w, 3) to (n, d)."""
        parts = []
        for start in range(0, len(frames), batch):
            x = prepare_pictures(frames[start : start + batch], self.size, picture)
            vectors = self.network.encode_image(x.to(self.device), normalize=True)
            parts.append(vectors.cpu().numpy())
        return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts to (n, d)."""
        tokens = self.tokenizer(texts).to(self.device)
        return self.network.encode_text(tokens, normalize=True).cpu().numpy()


class ViclipEmbedder:
    """The embedded ViCLIP, or `network`: videos and texts to float32 vectors of length 1.

    Raises:
        UserError: its weights are missing or damaged.
    """

    def __init__(
        self, name: str = "viclip", device: str = "cpu",
        network: ViCLIP | None = None, config: Mapping[str, Any] | None = None,
    ) -> None:
        config = config or embedded.entry(name)["config"]
        if network is None:
            network = ViCLIP.from_config(config)
            network.load_state_dict(embedded.load_state(name))
        self.network = network.eval().to(device)
        self.device, self.size = device, config["vision"]["size"]
        self.tokenizer = ReducedTokenizer(config["vocabulary"], config["text"]["context"])

    @torch.inference_mode()
    def video(self, frames: np.ndarray, picture: Picture) -> np.ndarray:
        """uint8 RGB frames (t, h, w, 3), t the network's temporal positions, to (d,)."""
        x = prepare_pictures(frames, self.size, picture).transpose(0, 1)[None]
        return F.normalize(self.network.encode_video(x.to(self.device)))[0].cpu().numpy()

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts to (n, d)."""
        tokens = self.tokenizer(texts).to(self.device)
        return F.normalize(self.network.encode_text(tokens)).cpu().numpy()
