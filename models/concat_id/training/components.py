"""What stands around the trained network and stays as it is: autoencoder, text encoder, noise.

Loaded from a diffusers folder, or `embedded` for the small ones that ship with idbench.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX, AutoencoderKLWan

from idbench.errors import UserError
from idbench.models.concat_id import networks

TextEncoder = Callable[[Sequence[str]], torch.Tensor]
"""From prompts to embeddings (n, L, D) as the network of this family wants them."""


TILED = 256 * 256
"""Pixels of a frame from which on it is decoded in tiles."""


class Autoencoder:
    """A video autoencoder of either family, with its latents scaled for the transformer.

    Args:
        vae: diffusers' AutoencoderKLCogVideoX or AutoencoderKLWan.
    """

    def __init__(self, vae: Any) -> None:
        self.vae = vae.eval().requires_grad_(False)
        config = vae.config
        self.wan = isinstance(vae, AutoencoderKLWan)
        if self.wan:
            shape = (1, -1, 1, 1, 1)
            self._mean = torch.tensor(config.latents_mean).view(shape)
            self._scale = 1 / torch.tensor(config.latents_std).view(shape)
            self.spatial = 2 ** (len(config.dim_mult) - 1)
            self.temporal = 2 ** sum(config.temperal_downsample)  # diffusers' spelling
        else:
            self._mean, self._scale = torch.zeros(1), torch.tensor(config.scaling_factor)
            self.spatial = 2 ** (len(config.block_out_channels) - 1)
            self.temporal = int(config.temporal_compression_ratio)

    def to(self, device: torch.device, dtype: torch.dtype) -> Autoencoder:
        """Move the network; returns itself."""
        torch.nn.Module.to(self.vae, device, dtype)  # diffusers' own `to` warns for nothing
        return self

    @torch.no_grad()
    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Means (B, N, C, h, w), float32 and scaled, of images (B, 3, T, H, W) in [-1, 1].

        With a temporal compression of 1 every frame is encoded alone.
        """
        batch, alone = len(images), self.temporal == 1
        if alone:
            images = images.transpose(1, 2).flatten(0, 1).unsqueeze(2)
        posterior = self.vae.encode(images.to(self.vae.device, self.vae.dtype)).latent_dist
        z = posterior.mean.float()
        z = (z - self._mean.to(z.device)) * self._scale.to(z.device)
        z = z.transpose(1, 2)
        return z.reshape(batch, -1, *z.shape[2:]) if alone else z

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, T, H, W) in [-1, 1] of scaled latents (B, N, C, h, w)."""
        batch, alone = len(latents), self.temporal == 1
        if alone:
            latents = latents.flatten(0, 1).unsqueeze(1)
        z = latents.transpose(1, 2)
        z = z / self._scale.to(z.device) + self._mean.to(z.device)
        # A 480x720 clip decodes in 80 GB without tiles, in 24 GB with them. Encoding needs none,
        # and small pictures must not have them: diffusers' tiles of odd sizes do not add up.
        if z.shape[-2] * z.shape[-1] * self.spatial**2 >= TILED:
            self.vae.enable_tiling()
        try:
            images = self.vae.decode(z.to(self.vae.device, self.vae.dtype)).sample.float()
        finally:
            self.vae.disable_tiling()
        if alone:
            images = images.squeeze(2).unflatten(0, (batch, -1)).transpose(1, 2)
        return images

    def check_size(self, frames: int, height: int, width: int) -> None:
        """Raises UserError where the autoencoder cannot make this size of latents in patches."""
        unit = 2 * self.spatial
        if height % unit or width % unit:
            raise UserError(
                f"Height and width must be multiples of {unit}, not {height}x{width}; change them."
            )
        if (frames - 1) % self.temporal:
            raise UserError(
                f"Frames must be {self.temporal}k + 1, not {frames}; take "
                f"{(frames - 1) // self.temporal * self.temporal + 1}."
            )


def load_autoencoder(source: str) -> Autoencoder:
    """The autoencoder of a diffusers folder (its subfolder `vae`), or `embedded`.

    Raises:
        UserError: missing or damaged.
    """
    if source == "embedded":
        return Autoencoder(networks.load_vae())
    folder = _part(source, "vae")
    config = AutoencoderKLCogVideoX.load_config(folder)
    kind = AutoencoderKLWan if "Wan" in str(config.get("_class_name")) else AutoencoderKLCogVideoX
    with _reading(folder):
        vae = kind.from_pretrained(folder)
    vae.enable_slicing()
    return Autoencoder(vae)


def load_text_encoder(source: str, device: torch.device) -> TextEncoder:
    """The text encoder of a diffusers folder (`tokenizer`, `text_encoder`), or `embedded`.

    CogVideoX: T5-XXL, 226 tokens, padding attended to and kept. Wan: UMT5-XXL, 512 tokens,
    padding masked and zeroed. Both as their pipelines in diffusers do it.

    Raises:
        UserError: missing or damaged.
    """
    if source == "embedded":
        return networks.load_text_encoder()
    from transformers import AutoTokenizer, T5EncoderModel, UMT5EncoderModel

    folder = _part(source, "text_encoder")
    with _reading(folder):
        tokenizer = AutoTokenizer.from_pretrained(_part(source, "tokenizer"))
        kind = UMT5EncoderModel if "umt5" in (folder / "config.json").read_text() else (
            T5EncoderModel
        )
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        encoder = kind.from_pretrained(folder, torch_dtype=dtype).to(device).eval()
    masked = kind is UMT5EncoderModel
    length = 512 if masked else 226

    @torch.no_grad()
    def encode(prompts: Sequence[str]) -> torch.Tensor:
        rows = tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=length,
            add_special_tokens=True, return_tensors="pt",
        ).to(device)
        if not masked:
            return encoder(rows.input_ids).last_hidden_state.float().cpu()
        hidden = encoder(rows.input_ids, rows.attention_mask).last_hidden_state
        return (hidden * rows.attention_mask.unsqueeze(-1)).float().cpu()

    return encode


def noise_schedule(source: str | None) -> torch.Tensor:
    """alpha_bar of CogVideoX's training times, float32 (1000,).

    From `scheduler` of a diffusers folder where there is one; else that of CogVideoX-5B, which is
    also the embedded scale's.
    """
    if source and source != "embedded":
        folder = Path(source) / "scheduler"
        if folder.is_dir():
            from diffusers import CogVideoXDPMScheduler

            with _reading(folder):
                return CogVideoXDPMScheduler.from_pretrained(folder).alphas_cumprod.float()
    return networks.build_scheduler().alphas_cumprod.float()


def to_image(array: np.ndarray) -> torch.Tensor:
    """uint8 RGB (H, W, 3) to float32 (3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.array(array)).permute(2, 0, 1).float().div_(127.5).sub_(1.0)


def _part(source: str, name: str) -> Path:
    folder = Path(source) / name
    if not folder.is_dir():
        raise UserError(
            f"{source} has no folder {name!r}; give a diffusers folder such as that of "
            "CogVideoX-5b, or `embedded`."
        )
    return folder


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Say in one sentence that the folder's files cannot be read."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder} cannot be read ({reason}); copy it again.") from error
