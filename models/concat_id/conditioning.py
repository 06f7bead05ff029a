"""Concat-ID's conditioning: references appended along time, nothing added to the network.

Each reference is one latent frame. `M` of them follow the `N` latent frames of the video in
the sequence; only the network's own 3D self-attention mixes them. Reference `i` sits at the
temporal position `N + i` of the rotary embedding and on the same (height, width) grid as the
video. The network's outputs at reference positions are dropped. Source: arXiv 2503.14151,
section 3; the released CogVideoX form holds at most three references.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid

from idbench.models.concat_id.about import MAXIMUM_REFERENCES


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # training uses what sampling has cached
def _rotary(
    head_dim: int, positions: tuple[int, ...], grid: tuple[int, int], base: tuple[int, int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines, each (len(positions) * height * width, head_dim), on the CPU."""
    crops = get_resize_crop_region_for_grid(grid, base[1], base[0])
    cos, sin = get_3d_rotary_pos_embed(head_dim, crops, grid, max(positions) + 1)
    frames = torch.tensor(positions)
    cos, sin = (
        part.view(max(positions) + 1, -1, head_dim)[frames].flatten(0, 1) for part in (cos, sin)
    )
    return cos, sin


def rotary_embedding(
    transformer: CogVideoXTransformer3DModel, frames: int, references: int, height: int, width: int,
    clip_frames: int | None = None, shared: bool = False,
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Rotary embedding of `frames` video latents and `references` appended ones, of (height, width)
    before patches: (cosines, sines) of shape (tokens, head_dim), or None if the network has none
    (CogVideoX-2B).

    Args:
        clip_frames: temporal position of the first reference; None: `frames`. Batches of single
            images give the clip's length, so that a reference has the same position beside an image
            as beside the clip whose first frame it is.
        shared: all references have the position of the first, as an ablation.
    """
    config = transformer.config
    if not config.use_rotary_positional_embeddings:
        return None
    if not 0 <= references <= MAXIMUM_REFERENCES:
        raise ValueError(f"0 to {MAXIMUM_REFERENCES} references, not {references}")
    first = frames if clip_frames is None else clip_frames
    if first < frames:
        raise ValueError(f"references at position {first} would overlap {frames} frames")
    positions = tuple(range(frames)) + (
        (first,) * references if shared else tuple(range(first, first + references))
    )
    patch = config.patch_size
    cos, sin = _rotary(
        config.attention_head_dim, positions, (height // patch, width // patch),
        (config.sample_height // patch, config.sample_width // patch),
    )
    device = transformer.device
    return cos.to(device), sin.to(device)


def denoise(
    transformer: CogVideoXTransformer3DModel, latents: torch.Tensor,
    references: torch.Tensor | None, text: torch.Tensor, times: torch.Tensor,
    clip_frames: int | None = None, shared: bool = False,
) -> torch.Tensor:
    """The network's prediction at the video's positions, (B, N, C, H, W).

    Args:
        transformer: an unchanged CogVideoX transformer.
        latents: noisy video latents (B, N, C, H, W).
        references: clean reference latents (B, M, C, H, W), left to right; None or M = 0 gives the
            base network's output, bit for bit.
        text: text embeddings (B, L, D).
        times: (B,) or scalar; references share it though they carry no noise.
        clip_frames, shared: see `rotary_embedding`.
    """
    frames = latents.shape[1]
    count = 0 if references is None else references.shape[1]
    rotary = rotary_embedding(
        transformer, frames, count, latents.shape[3], latents.shape[4], clip_frames, shared
    )
    sequence = latents if count == 0 else torch.cat([latents, references], dim=1)
    output = transformer(
        hidden_states=sequence, encoder_hidden_states=text, timestep=times, image_rotary_emb=rotary,
        return_dict=False,
    )[0]
    return output if count == 0 else output[:, :frames]
