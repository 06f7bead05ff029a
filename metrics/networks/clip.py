"""CLIP (open_clip) and ViCLIP by name or file: images, videos, texts to vectors of length 1."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from idbench import embedded
from idbench.checkpoints import fit, read_state
from idbench.metrics.networks.batches import Batches, joined
from idbench.metrics.networks.stem import convolutional_stem
from idbench.metrics.networks.tokens import FullTokenizer, ReducedTokenizer
from idbench.metrics.networks.video_text import ViCLIP
from idbench.metrics.protocols import Picture

if TYPE_CHECKING:
    from open_clip import CLIP

MEAN_STD = {
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}

BATCH = 64
"""Images that run through CLIP at once."""

VBENCH_PICTURE = Picture("crop", "clip", "bicubic-torchvision")
"""ViCLIP's frames as VBench makes them: centre crop; no antialiasing, whole numbers 0..255."""
INTERNVIDEO_PICTURE = Picture("squash", "imagenet", "bilinear-cv2")
"""ViCLIP's frames as InternVideo's demo makes them: `cv2.resize` to a square."""


def prepare_pictures(
    frames: np.ndarray | torch.Tensor, size: int, picture: Picture
) -> torch.Tensor:
    """uint8 RGB frames (n, h, w, 3) to normalised float32 (n, 3, size, size), by `picture`, see
    `Picture`."""
    if picture.interpolation == "open_clip":
        return _open_clip_transform(frames, size, picture)
    if picture.interpolation == "bicubic-torchvision":
        x = _resize_torchvision(frames, size, picture.resize)
    elif picture.interpolation == "bilinear-cv2" and picture.resize == "squash":
        resized = [cv2.resize(np.asarray(f), (size, size)) for f in frames]
        x = torch.as_tensor(np.stack(resized)).permute(0, 3, 1, 2).float() / 255.0
    else:
        x = _resize(frames, size, picture)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in MEAN_STD[picture.normalisation])
    return (x - mean) / std


def _open_clip_transform(
    frames: np.ndarray | torch.Tensor, size: int, picture: Picture
) -> torch.Tensor:
    from open_clip import image_transform

    if picture.resize != "crop":
        raise ValueError("open_clip's transform crops: resize must be 'crop'")
    mean, std = MEAN_STD[picture.normalisation]
    transform = image_transform(size, is_train=False, mean=mean, std=std)
    return torch.stack([transform(Image.fromarray(np.asarray(frame))) for frame in frames])


def _resize_torchvision(frames: np.ndarray | torch.Tensor, size: int, resize: str) -> torch.Tensor:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as tv

    x = torch.as_tensor(frames).permute(0, 3, 1, 2)
    target = [size] if resize == "crop" else [size, size]
    x = tv.resize(x, target, InterpolationMode.BICUBIC, antialias=False)
    return tv.center_crop(x, [size, size]).float() / 255.0


def _resize(frames: np.ndarray | torch.Tensor, size: int, picture: Picture) -> torch.Tensor:
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
        # Bicubic interpolation overshoots; an image stays in 0..1.
        x = F.interpolate(
            x, target, mode=picture.interpolation, antialias=True, align_corners=False
        ).clamp(0.0, 1.0)
    top, left = (target[0] - size) // 2, (target[1] - size) // 2
    return x[..., top : top + size, left : left + size]


def build_clip(config: Mapping[str, Any]) -> CLIP:
    """open_clip's CLIP of {embed_dim, vision: {...}, text: {...}} with QuickGELU.

    A list `stem` in `vision` replaces the patch convolution, see `convolutional_stem`.
    """
    from open_clip import CLIP
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg

    vision = dict(config["vision"])
    stem = vision.pop("stem", None)
    network = CLIP(
        config["embed_dim"], CLIPVisionCfg(**vision), CLIPTextCfg(**config["text"]),
        quick_gelu=True,
    )
    if stem:
        network.visual.conv1 = convolutional_stem(stem, vision["patch_size"], vision["width"])
    return network


def load_open_clip(name: str, path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The model that open_clip calls `name`, with the weights of a local file, which must fit
    exactly (open_clip itself would stretch positions); and its {vision: {image_size}, text:
    {context_length}}. Raises WeightError: the file is damaged or of other weights, or open_clip
    cannot build the model here."""
    import open_clip
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    state = read_state(path)
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # "initialized randomly": the file's weights come next
    try:
        network = open_clip.create_model(
            name, load_weights=False, pretrained_text=False, pretrained_image=False
        )
    except Exception as error:  # towers of other libraries fail in their own ways
        raise embedded.WeightError(
            f"open_clip cannot build {name} here ({type(error).__name__}); use a model of which "
            "both towers are open_clip's own, such as ViT-B-32."
        ) from error
    finally:
        logging.disable(level)
    state = convert_state_dict(network, state)
    if "positional_embedding" in state and not hasattr(network, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)  # files of before towers were split
    for key in ("logit_scale", "logit_bias"):
        if key in state and getattr(network, key, None) is not None:
            state[key] = state[key].reshape(getattr(network, key).shape)
    fit(network, state, path, f"open_clip's {name}")
    size = network.visual.image_size
    size = size if isinstance(size, int) else size[0]
    return network, {
        "vision": {"image_size": size}, "text": {"context_length": network.context_length},
    }


def make_tokenizer(config: Mapping[str, Any], context: int) -> FullTokenizer:
    """CLIP's tokenizer: of its full vocabulary, or of `config["vocabulary"]` where there is one."""
    if "vocabulary" in config:
        return ReducedTokenizer(config["vocabulary"], context)
    return FullTokenizer(context)


class ClipEmbedder:
    """The embedded CLIP, or `network`: images and texts to float32 vectors of length 1.
    Raises UserError: its weights are missing or damaged."""

    def __init__(
        self, name: str = "clip", device: str = "cpu",
        network: nn.Module | None = None, config: Mapping[str, Any] | None = None,
    ) -> None:
        config = config or embedded.entry(name)["config"]
        if network is None:
            network = build_clip(config)
            network.load_state_dict(embedded.load_state(name))
        self.network = network.eval().to(device)
        self.device, self.size = device, config["vision"]["image_size"]
        self.tokenizer = make_tokenizer(config, config["text"]["context_length"])
        self.batches = Batches(BATCH)

    @torch.inference_mode()
    def pictures(self, frames: np.ndarray, picture: Picture) -> np.ndarray:
        """uint8 RGB (n, h, w, 3) to (n, d)."""

        def part(start: int, end: int) -> np.ndarray:
            x = prepare_pictures(frames[start:end], self.size, picture).to(self.device)
            return self.network.encode_image(x, normalize=True).cpu().numpy()

        return joined(self.batches.run(part, len(frames)))

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts to (n, d)."""
        tokens = self.tokenizer(texts).to(self.device)
        return self.network.encode_text(tokens, normalize=True).cpu().numpy()


class ViclipEmbedder:
    """The embedded ViCLIP, or `network`: videos and texts to float32 vectors of length 1.
    Raises UserError: its weights are missing or damaged."""

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
        self.tokenizer = make_tokenizer(config, config["text"]["context"])

    @torch.inference_mode()
    def video(self, frames: np.ndarray, picture: Picture) -> np.ndarray:
        """uint8 RGB frames (t, h, w, 3), t the network's temporal positions, to (d,)."""
        x = prepare_pictures(frames, self.size, picture).transpose(0, 1)[None].to(self.device)
        return F.normalize(self.network.encode_video(x)).cpu().numpy()[0]

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts to (n, d)."""
        tokens = self.tokenizer(texts).to(self.device)
        return F.normalize(self.network.encode_text(tokens)).cpu().numpy()
