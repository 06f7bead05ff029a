"""CLIP (open_clip) and ViCLIP by name or file: images, videos, texts to vectors of length 1."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import cv2
import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from idbench import embedded
from idbench.checkpoints import fit, read_state
from idbench.metrics.networks.batches import Batches, joined
from idbench.metrics.networks.video_text import ViCLIP, convolutional_stem
from idbench.metrics.protocols import Picture

if TYPE_CHECKING:
    from open_clip import CLIP
    from open_clip.tokenizer import SimpleTokenizer

MEAN_STD = {
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}

BATCH = 64
"""Images that run through CLIP at once."""

OTHER = 32
"""Rows of a text tower shared by the tokens outside of its vocabulary, by their id modulo this
number."""


def prepare_pictures(frames: np.ndarray, size: int, picture: Picture) -> torch.Tensor:
    """uint8 RGB frames (n, h, w, 3) to normalised float32 (n, 3, size, size), by `picture`, see
    `Picture`."""
    mean, std = MEAN_STD[picture.normalisation]
    if picture.interpolation == "open_clip":
        from open_clip import image_transform

        if picture.resize != "crop":
            raise ValueError("open_clip's transform crops: resize must be 'crop'")
        transform = image_transform(size, is_train=False, mean=mean, std=std)
        return torch.stack([transform(Image.fromarray(np.asarray(frame))) for frame in frames])
    return normalised(_resized(frames, size, picture), picture.normalisation)


def normalised(x: torch.Tensor, statistics: str) -> torch.Tensor:
    """Pictures (n, 3, h, w) in 0..1 with the mean and standard deviation of `MEAN_STD` removed."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in MEAN_STD[statistics])
    return (x - mean) / std


def _resized(frames: np.ndarray, size: int, picture: Picture) -> torch.Tensor:
    """Float32 (n, 3, size, size) in 0..1."""
    if picture.interpolation == "bilinear-cv2" and picture.resize == "squash":
        frames = np.stack([cv2.resize(frame, (size, size)) for frame in frames])
    x = torch.as_tensor(frames).permute(0, 3, 1, 2)
    if picture.interpolation == "bicubic-torchvision":
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms import functional as tv

        sides = [size] if picture.resize == "crop" else [size, size]
        x = tv.resize(x, sides, InterpolationMode.BICUBIC, antialias=False)
        return tv.center_crop(x, [size, size]).float() / 255.0
    x = x.float() / 255.0
    height, width = x.shape[-2:]
    target = size, size
    if picture.resize == "crop":
        scale = size / min(height, width)
        target = max(size, round(height * scale)), max(size, round(width * scale))
    elif picture.resize != "squash":
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

    A list `stem` in `vision` replaces the patch convolution, see `convolutional_stem`."""
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


@cache
def _bpe() -> SimpleTokenizer:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


def clip_vocabulary(texts: Iterable[str]) -> list[int]:
    """The ids of CLIP's byte-pair encoding that occur in `texts`, ascending."""
    return sorted({token for text in texts for token in _bpe().encode(text)})


class FullTokenizer:
    """Texts to ids (n, context) of CLIP's full vocabulary: start, tokens, end (the largest id).

    Padded with zeros; longer texts are cut and end in the end of text, as CLIP and ViCLIP do it.
    `context`: tokens read, start and end included (CLIP 77, ViCLIP 32)."""

    def __init__(self, context: int) -> None:
        self.context = context

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        return _bpe()(list(texts), self.context)

    def share_read(self, text: str) -> float:
        """Share of the text's tokens that fit in the context, 0..1 (1 for an empty text)."""
        count = len(_bpe().encode(text))
        return min(1.0, (self.context - 2) / count) if count else 1.0


class ReducedTokenizer(FullTokenizer):
    """Texts to ids (n, context): start, tokens, end (the largest id), then zeros.

    CLIP's full embedding table (49,408 rows) would be several times as large as the rest of an
    embedded network. Ids: 0 padding, 1 start, then `OTHER` shared rows, then a row for each token
    of `vocabulary` (ids of CLIP's encoding), and the end of text last."""

    def __init__(self, vocabulary: Sequence[int], context: int = 32) -> None:
        super().__init__(context)
        self._row = {token: 2 + OTHER + i for i, token in enumerate(vocabulary)}
        self.size = 2 + OTHER + len(vocabulary) + 1

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        ids = torch.zeros(len(texts), self.context, dtype=torch.long)
        for row, text in zip(ids, texts, strict=True):
            tokens = _bpe().encode(text)[: self.context - 2]
            known = [self._row.get(t, 2 + t % OTHER) for t in tokens]
            row[: len(known) + 2] = torch.tensor([1, *known, self.size - 1])
        return ids


class _TwoTowers:
    """The embedded network `name` (usually `NAME`), or `network` with its `config`: texts and what
    they describe to float32 vectors of length 1. Raises UserError: its weights are missing or
    damaged."""

    NAME: ClassVar[str]
    BUILD: ClassVar[Any]
    """Makes the network of a config."""

    def __init__(
        self, name: str | None = None, device: str = "cpu", network: nn.Module | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        name = name or self.NAME
        config = config or embedded.entry(name)["config"]
        self.network: Any = embedded.built(name, self.BUILD) if network is None else network
        self.network.eval().to(device)
        self.device = device
        self.batches = Batches(BATCH)
        vision, text = config["vision"], config["text"]
        # As open_clip names them, or ViCLIP.
        self.size: int = vision.get("image_size") or vision["size"]
        context = text.get("context_length") or text["context"]
        self.tokenizer = (
            ReducedTokenizer(config["vocabulary"], context) if "vocabulary" in config
            else FullTokenizer(context)
        )

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts to (n, d)."""
        tokens = self.tokenizer(texts).to(self.device)
        return self.network.encode_text(tokens, normalize=True).cpu().numpy()


class ClipEmbedder(_TwoTowers):
    """CLIP: images and texts."""

    NAME, BUILD = "clip", staticmethod(build_clip)

    @torch.inference_mode()
    def pictures(self, frames: np.ndarray, picture: Picture) -> np.ndarray:
        """uint8 RGB (n, h, w, 3) to (n, d)."""

        def part(start: int, end: int) -> np.ndarray:
            x = prepare_pictures(frames[start:end], self.size, picture).to(self.device)
            return self.network.encode_image(x, normalize=True).cpu().numpy()

        return joined(self.batches.run(part, len(frames)))


class ViclipEmbedder(_TwoTowers):
    """ViCLIP: videos and texts."""

    NAME, BUILD = "viclip", ViCLIP

    @torch.inference_mode()
    def video(self, frames: np.ndarray, picture: Picture) -> np.ndarray:
        """uint8 RGB frames (t, h, w, 3), t the network's temporal positions, to (d,)."""
        x = prepare_pictures(frames, self.size, picture).transpose(0, 1)[None].to(self.device)
        return self.network.encode_video(x, normalize=True).cpu().numpy()[0]
