"""Training on part of the tokens: all that show heads, a share of the rest, at true positions.

Most tokens of a frame show no head, so a step on the others costs much less. The network is
unchanged: attention takes any set of tokens, and each keeps the rotary embedding of its place.
A training ends on whole frames. Source: MaskDiT (arXiv 2306.09305) and MicroDiT (2407.15811)
train on random subsets; here the heads decide.
"""

from __future__ import annotations

import torch
from diffusers import CogVideoXTransformer3DModel

from idbench.models.concat_id.conditioning import rotary_embedding

PATCH = 2
"""Latents along each side of a token."""


def choose_tokens(
    heads: torch.Tensor, share: float, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Tokens to keep of each row, sorted: int64 (B, K).

    K is the same for all rows: what the row with the most head tokens needs. Rows with fewer keep
    more of the rest.

    Args:
        heads: bool (B, T), whether a token of the video shows a head.
        share: of the other tokens that are kept, drawn at random.
    """
    most = int(heads.sum(1).max())
    count = most + round(share * (heads.shape[1] - most))
    # Heads are in front, the others follow in random order.
    order = torch.rand(heads.shape, generator=generator) - heads.float()
    return order.argsort(1)[:, :count].sort(1).values


def reference_tokens(
    references: int, height: int, width: int, fill: float = 1.0
) -> torch.Tensor:
    """Tokens of `references` prepared faces without their black margins, (K,), from 0.

    A prepared face is a square that fills `fill` of the height; margins surround it.

    Args:
        height, width: in tokens.
    """
    top = int(height * (1 - fill) / 2)
    left = max(0, int((width - height * fill) / 2))
    places = torch.arange(height * width).view(height, width)
    places = places[top : height - top, left : width - left]
    every = places.flatten() + height * width * torch.arange(references)[:, None]
    return every.flatten()


def token_mask(keep: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """1 at the latents of kept tokens, else 0: (B, N, 1, h, w) for latents of `shape`."""
    batch, frames, _, height, width = shape
    rows, columns = height // PATCH, width // PATCH
    video = frames * rows * columns
    mask = torch.zeros(batch, video + 1, device=keep.device)
    mask.scatter_(1, keep.clamp(max=video), 1.0)  # references go to the last place
    mask = mask[:, :video].view(batch, frames, 1, rows, columns)
    return mask.repeat_interleave(PATCH, 3).repeat_interleave(PATCH, 4)


def denoise_tokens(
    transformer: CogVideoXTransformer3DModel, latents: torch.Tensor, references: torch.Tensor,
    text: torch.Tensor, times: torch.Tensor, keep: torch.Tensor, clip_frames: int | None = None,
) -> torch.Tensor:
    """`conditioning.denoise` on the tokens `keep` alone; needs `attention.MatrixAttention`.

    Args:
        keep: (B, K), of the sequence of the video's tokens and the references'.

    Returns:
        (B, N, C, h, w), zero at the video's other tokens.
    """
    batch, frames, channels, height, width = latents.shape
    length = text.shape[1]
    rotary = rotary_embedding(transformer, frames, references.shape[1], height, width, clip_frames)
    rotary = None if rotary is None else (rotary[0][keep], rotary[1][keep])
    sequence = torch.cat([latents, references], dim=1)
    embedded = transformer.patch_embed(text, sequence)
    words, tokens = embedded[:, :length], embedded[:, length:]
    hidden = tokens.gather(1, keep[..., None].expand(-1, -1, tokens.shape[2]))
    time = transformer.time_embedding(transformer.time_proj(times).to(hidden.dtype))
    for block in transformer.transformer_blocks:
        hidden, words = block(
            hidden_states=hidden, encoder_hidden_states=words, temb=time, image_rotary_emb=rotary
        )
    output = transformer.proj_out(transformer.norm_out(transformer.norm_final(hidden), temb=time))
    whole = output.new_zeros(batch, tokens.shape[1], output.shape[2])
    whole = whole.scatter(1, keep[..., None].expand_as(output), output)
    whole = whole.view(batch, -1, height // PATCH, width // PATCH, channels, PATCH, PATCH)
    return whole.permute(0, 1, 4, 2, 5, 3, 6).reshape(sequence.shape)[:, :frames]
