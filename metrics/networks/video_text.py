"""ViCLIP: a video-text model with joint space-time attention, in its published key layout.

The vision tower is CLIP's ViT with a 3D patch convolution of temporal depth 1, one class token,
spatial positions shared by all frames, and one temporal position a frame; every token attends
to every token of every frame. The text tower is CLIP's with a context of 32 tokens.

Source: Wang et al., InternVid (arXiv 2307.06942).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

VIT_L_14: dict[str, Any] = {
    "output": 768,
    "vision": {"size": 224, "patch": 14, "width": 1024, "layers": 24, "heads": 16, "frames": 8},
    "text": {"vocabulary": 49408, "context": 32, "width": 768, "layers": 12, "heads": 12},
}
"""Of `ViClip-InternVid-10M-FLT.pth`: 427.6 M parameters, CLIP's full vocabulary."""


def convolutional_stem(widths: Sequence[int], patch: int, width: int) -> nn.Sequential:
    """Images (n, 3, s, s) to tokens (n, width, s / patch, s / patch), in place of CLIP's single
    patch convolution.

    A patch of 12 pixels seen by one linear layer hides whether a mouth of 8 pixels smiles; a few
    small convolutions show it. Each stage is two of 3x3, of which the first one shrinks the side.
    Source: Xiao et al., Early Convolutions Help Transformers See Better (arXiv 2106.14881).

    Args:
        widths: channels of the stages.
        patch: pixels along each side of a token: the product of the stages' strides.
        width: channels of a token.
    """
    layers: list[nn.Module] = []
    channels = 3
    for stride, wide in zip(strides(patch, len(widths)), widths, strict=True):
        for step in (stride, 1):
            layers += [nn.Conv2d(channels, wide, 3, step, 1, bias=False), nn.BatchNorm2d(wide),
                       nn.ReLU()]
            channels = wide
    return nn.Sequential(*layers, nn.Conv2d(channels, width, 1))


def strides(patch: int, stages: int) -> list[int]:
    """`stages` strides of at least 2 whose product is `patch`, the largest one last.
    Raises ValueError: there are none."""
    found = []
    for _ in range(stages - 1):
        smallest = next(n for n in range(2, patch + 2) if patch % n == 0 or n > patch)
        found.append(smallest)
        patch //= smallest
    if patch < 2:
        raise ValueError(f"{stages} stages do not fit a patch of this size")
    return [*found, patch]


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), CLIP's approximation of GELU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)


class ResidualAttentionBlock(nn.Module):
    """Pre-norm attention and MLP, each added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(width, width * 4),
                gelu=QuickGELU(),
                c_proj=nn.Linear(width * 4, width),
            )
        )
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """A stack of blocks on (n, tokens, width)."""

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(ResidualAttentionBlock(width, heads) for _ in range(layers))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class VideoTransformer(nn.Module):
    """Videos (n, 3, frames, size, size) to embeddings (n, output), not normalised.

    `stem` replaces the patch convolution, see `convolutional_stem`; the published network has none.
    """

    def __init__(
        self, size: int, patch: int, width: int, layers: int, heads: int, output: int,
        frames: int = 8, stem: Sequence[int] = (),
    ) -> None:
        super().__init__()
        kernel = (1, patch, patch)
        self.conv1: nn.Module = (
            convolutional_stem(stem, patch, width) if stem
            else nn.Conv3d(3, width, kernel, kernel, bias=False)
        )
        scale = width**-0.5
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        tokens = (size // patch) ** 2
        self.positional_embedding = nn.Parameter(scale * torch.randn(tokens + 1, width))
        self.temporal_positional_embedding = nn.Parameter(torch.zeros(1, frames, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, layers, heads)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(scale * torch.randn(width, output))

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        if isinstance(self.conv1, nn.Conv3d):
            x = self.conv1(video)
        else:  # frame by frame
            x = self.conv1(video.transpose(1, 2).flatten(0, 1))
            x = x.unflatten(0, (len(video), -1)).transpose(1, 2)
        x = x.flatten(3).permute(0, 2, 3, 1)  # (n, frames, tokens, width)
        x = x + self.positional_embedding[1:]
        temporal: torch.Tensor = self.temporal_positional_embedding
        if x.shape[1] == 1:  # a single image has no time: the mean position
            temporal = temporal.mean(1, keepdim=True)
        x = x + temporal[:, :, None]
        # Tokens are ordered place by place, each with its frames, as in the published code; the
        # order does not change the class token's output.
        x = x.transpose(1, 2).flatten(1, 2)
        first = (self.class_embedding + self.positional_embedding[0]).expand(len(x), 1, -1)
        x = self.transformer(self.ln_pre(torch.cat([first, x], dim=1)))
        return self.ln_post(x[:, 0]) @ self.proj


class TextTransformer(nn.Module):
    """Token ids (n, context), zero-padded, end-of-text the largest id, to (n, output)."""

    def __init__(
        self, vocabulary: int, context: int, width: int, layers: int, heads: int, output: int
    ) -> None:
        super().__init__()
        self.context = context
        self.transformer = Transformer(width, layers, heads)
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.randn(context, width) * 0.01)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.randn(width, output) * width**-0.5)
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.token_embedding(tokens) + self.positional_embedding
        # Made here: a buffer would stay empty when the network is built without memory (meta).
        mask = torch.full((self.context, self.context), float("-inf"), device=x.device)
        x = self.ln_final(self.transformer(x, mask.triu_(1).to(x.dtype)))
        return x[torch.arange(len(x), device=x.device), tokens.argmax(-1)] @ self.text_projection


class ViCLIP(nn.Module):
    """The two towers of {vision: {size, patch, width, layers, heads, frames}, text: {vocabulary,
    context, width, layers, heads}, output}. `temp` is the temperature of the contrastive loss
    (cosines / temp)."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.vision_encoder = VideoTransformer(**config["vision"], output=config["output"])
        self.text_encoder = TextTransformer(**config["text"], output=config["output"])
        self.temp = nn.Parameter(torch.tensor(0.07))

    def encode_video(self, video: torch.Tensor, normalize: bool = False) -> torch.Tensor:
        """(n, 3, frames, size, size) to (n, output)."""
        found = self.vision_encoder(video)
        return F.normalize(found) if normalize else found

    def encode_text(self, tokens: torch.Tensor, normalize: bool = False) -> torch.Tensor:
        """(n, context) to (n, output)."""
        found = self.text_encoder(tokens)
        return F.normalize(found) if normalize else found


def from_clip(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state of a CLIP (open_clip's layout) as a start for a ViCLIP of the same sizes.

    The patch convolution gets a temporal depth of 1, the temporal positions are missing (they start
    at zero), and the scale of the cosines becomes the temperature. ViCLIP itself was trained so."""
    started: dict[str, torch.Tensor] = {}
    text = ("transformer.", "token_embedding.", "positional_embedding", "ln_final.",
            "text_projection")
    for key, value in state.items():
        if key.startswith("visual."):
            inflated = value[:, :, None] if key == "visual.conv1.weight" else value
            started[key.replace("visual.", "vision_encoder.", 1)] = inflated
        elif key.startswith(text):
            started[f"text_encoder.{key}"] = value
        elif key == "logit_scale":
            started["temp"] = torch.exp(-value)
    return started
