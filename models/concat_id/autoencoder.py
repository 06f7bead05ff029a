"""The embedded scale's video autoencoder: diffusers' class, its sizes, and helpers around it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import CogVideoXCausalConv3d
from torch.nn import functional as F


def build_vae(config: Mapping[str, Any]) -> AutoencoderKLCogVideoX:
    """An autoencoder of random weights from a recipe's `network`; spatial compression is 2 **
    (len(block_out_channels) - 1)."""
    blocks = len(config["block_out_channels"])
    vae = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * blocks,
        up_block_types=("CogVideoXUpBlock3D",) * blocks,
        **config,
    )
    start_without_time(vae)
    return vae


@torch.no_grad()
def start_without_time(vae: AutoencoderKLCogVideoX) -> None:
    """Set all but the last temporal tap of each causal kernel to zero, so that every frame is
    treated alone, as training on single frames should leave it for clips. He initialisation counts
    the used tap."""
    for module in causal_convolutions(vae):
        weight = module.conv.weight
        if module.time_kernel_size > 1:
            weight[:, :, -1] *= module.time_kernel_size**0.5
            weight[:, :, :-1] = 0


def causal_convolutions(vae: AutoencoderKLCogVideoX) -> list[CogVideoXCausalConv3d]:
    return [m for m in vae.modules() if isinstance(m, CogVideoXCausalConv3d)]


def speed_up_single_frames(vae: AutoencoderKLCogVideoX, last_tap_only: bool = False) -> None:
    """Compute single frames with 2D convolutions; clips go through diffusers' own code.

    A causal convolution repeats the first frame into the past, so on one frame it equals the 2D
    convolution with the kernel summed over time. `last_tap_only` leaves out the sum where the other
    taps are zero, and so keeps their gradients zero."""
    for module in causal_convolutions(vae):
        original = type(module).forward.__get__(module)
        module.forward = partial(_forward, module, original, last_tap_only)


def _forward(
    module: CogVideoXCausalConv3d, original: Any, last: bool, inputs: torch.Tensor,
    conv_cache: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    if inputs.shape[2] != 1 or conv_cache is not None:
        return original(inputs, conv_cache=conv_cache)
    weight = module.conv.weight
    kernel = weight[:, :, -1] if last or weight.shape[2] == 1 else weight.sum(2)
    padding = (module.height_pad, module.width_pad)
    output = F.conv2d(inputs[:, :, 0], kernel, module.conv.bias, padding=padding)
    return output.unsqueeze(2), None


def to_tensor(frames: np.ndarray) -> torch.Tensor:
    """uint8 RGB (B, T, H, W, 3) to float32 (B, 3, T, H, W) in [-1, 1], channels last in memory."""
    tensor = torch.from_numpy(np.ascontiguousarray(frames))
    return tensor.permute(0, 4, 1, 2, 3).float().div_(127.5).sub_(1.0)


def to_frames(images: torch.Tensor) -> np.ndarray:
    """float (B, 3, T, H, W) in [-1, 1] to uint8 RGB (B, T, H, W, 3)."""
    values = images.float().clamp(-1, 1).add(1).mul(127.5).round()
    return values.to(torch.uint8).permute(0, 2, 3, 4, 1).cpu().numpy()


@torch.no_grad()
def encode(vae: AutoencoderKLCogVideoX, images: torch.Tensor) -> torch.Tensor:
    """Scaled means, float32 (B, N, C, h, w), of images (B, 3, T, H, W).

    N = (T - 1) / r + 1 for a temporal compression of r. With r = 1 every frame is encoded alone.
    Matrix products are computed in bfloat16 on the CPU, elsewhere in the network's precision.
    """
    batch, alone = len(images), vae.config.temporal_compression_ratio == 1
    images = images.to(vae.dtype)
    if alone:
        images = images.transpose(1, 2).flatten(0, 1).unsqueeze(2)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=images.device.type == "cpu"):
        z = vae.encode(images).latent_dist.mean.float()
    z = z.transpose(1, 2) * vae.config.scaling_factor
    return z.reshape(batch, -1, *z.shape[2:]) if alone else z


@torch.no_grad()
def decode(vae: AutoencoderKLCogVideoX, latents: torch.Tensor) -> torch.Tensor:
    """Images, float32 (B, 3, T, H, W), of scaled latents (B, N, C, h, w); precision as `encode`.
    Scaled back in float32, so that a network in bfloat16 rounds the latents once."""
    batch, alone = len(latents), vae.config.temporal_compression_ratio == 1
    if alone:
        latents = latents.flatten(0, 1).unsqueeze(1)
    z = (latents.transpose(1, 2).float() / vae.config.scaling_factor).to(vae.dtype)
    with torch.autocast(z.device.type, torch.bfloat16, enabled=z.device.type == "cpu"):
        images = vae.decode(z).sample.float()
    if alone:
        images = images.squeeze(2).unflatten(0, (batch, -1)).transpose(1, 2)
    return images
