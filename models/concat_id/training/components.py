"""What is not trained: autoencoder and text encoder.

Loaded from a diffusers folder, or `embedded` for the small ones that ship with idbench.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from idbench.errors import UserError, explained
from idbench.models.concat_id import networks
from idbench.models.concat_id.families import CogVideoX, Family, Wan, family_of

TextEncoder = Callable[[Sequence[str]], torch.Tensor]
"""From prompts to embeddings (n, L, D), float32 on the CPU."""
TILED = 256 * 256
"""Frames with this many pixels or more are decoded in tiles."""


class Autoencoder:
    """A video autoencoder of either family, frozen, used as its family uses it.

    Args:
        vae: diffusers' AutoencoderKLCogVideoX or AutoencoderKLWan.
    """

    def __init__(self, vae: Any) -> None:
        self.vae = vae.eval().requires_grad_(False)
        self.family = family_of(type(vae).__name__)
        self.temporal, self.spatial = self.family.compression(vae)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Means (B, N, C, h, w), float32 and scaled, of images (B, 3, T, H, W) in [-1, 1]."""
        return self.family.encode(self.vae, images.to(self.vae.device))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, T, H, W) in [-1, 1] of scaled latents (B, N, C, h, w).

        A 480x720 clip takes 80 GB without tiles, 24 GB with them. Small frames must not be tiled:
        diffusers' tiles of odd sizes do not add up.
        """
        height, width = (size * self.spatial for size in latents.shape[-2:])
        if height * width >= TILED:
            self.vae.enable_tiling()
        try:
            return self.family.decode(self.vae, latents.to(self.vae.device))
        finally:
            self.vae.disable_tiling()


def load_autoencoder(source: str, device: torch.device) -> Autoencoder:
    """The autoencoder of a diffusers folder (its subfolder `vae`), or `embedded`; in bfloat16 on a
    GPU. Raises UserError: missing or damaged."""
    vae: Any
    if source == "embedded":
        vae = networks.load_vae()
    else:
        folder = _part(source, "vae")
        with explained(f"{folder} cannot be read", "copy it again"):
            config = CogVideoX.AUTOENCODER.load_config(folder)
            vae = family_of(str(config.get("_class_name"))).AUTOENCODER.from_pretrained(folder)
        vae.enable_slicing()
    torch.nn.Module.to(vae, device, _precision(device))  # diffusers' own `to` warns for nothing
    return Autoencoder(vae)


def load_text_encoder(source: str, device: torch.device) -> TextEncoder:
    """The text encoder of a diffusers folder (`tokenizer`, `text_encoder`), or `embedded`. Raises
    UserError: missing or damaged."""
    if source == "embedded":
        return networks.load_text_encoder()
    folder = _part(source, "text_encoder")
    with explained(f"{folder} cannot be read", "copy it again"):
        tokenizer = AutoTokenizer.from_pretrained(_part(source, "tokenizer"))
        wan = "umt5" in (folder / "config.json").read_text()
        family: Family = Wan(None) if wan else CogVideoX(None)
        encoder = family.TEXT_ENCODER.from_pretrained(folder, torch_dtype=_precision(device))
        encoder = encoder.to(device).eval()
    return lambda prompts: family.encode_text(tokenizer, encoder, prompts).float().cpu()


def _precision(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def _part(source: str, name: str) -> Path:
    folder = Path(source) / name
    if not folder.is_dir():
        raise UserError(
            f"{source} has no folder {name!r}; use a diffusers folder such as that of "
            "CogVideoX-5b, or `embedded`."
        )
    return folder
