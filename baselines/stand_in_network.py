"""Stand-In's network: Wan2.1 whose self-attention also reads a picture of a face.

The picture is one clean latent frame at time 0. LoRA layers change its queries, keys and values
alone; it attends to itself, skips the text, and passes through the network once. Every denoising
step, in both branches of guidance, reads its keys and values beside the video's.
Source: arXiv 2508.07901 and github.com/WeChatCV/Stand-In.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    ModelMixin,  # noqa: F401  diffusers looks for it here when loading a folder
    WanTransformer3DModel,
)
from torch import nn

from idbench.baselines.face_attention import LoRA
from idbench.checkpoints import check_fit
from idbench.models.concat_id.wan import ReferenceRotary, Rotary

RANK = 128
"""Of the LoRA layers, which have neither scale nor bias."""
OFFSET = 1
"""Rows, columns and frames of the video start at this position; the picture's frame is 0."""


class StandInRotary(ReferenceRotary):
    """Wan's rotary embedding with the video moved by `OFFSET`, and places for a picture."""

    def forward(self, hidden_states: torch.Tensor, references: int = 0) -> Rotary:
        """Of the video's latents (B, C, N, H, W): cosines and sines, each (1, tokens, 1, d)."""
        size = self.grid_size(hidden_states)
        return self.at(tuple(range(OFFSET, OFFSET + tokens) for tokens in size))

    def of_picture(self, video: torch.Tensor, picture: torch.Tensor) -> Rotary:
        """Of the picture's latents (B, C, 1, H, W), below and to the right of the video's."""
        _, rows, columns = self.grid_size(video)
        _, height, width = self.grid_size(picture)
        return self.at((
            range(1), range(OFFSET + rows, OFFSET + rows + height),
            range(OFFSET + columns, OFFSET + columns + width),
        ))


class StandInAttention(nn.Module):
    """The processor of a self-attention: reads the picture, then the video beside it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q_loras, self.k_loras, self.v_loras = (LoRA(width, width, RANK) for _ in "qkv")
        self.reading = False
        """Whether the tokens are the picture's."""
        self.remembered: tuple[torch.Tensor, torch.Tensor] | None = None

    def __call__(  # type: ignore[override]
        self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states: None = None,
        attention_mask: None = None, rotary_emb: Rotary | None = None,
    ) -> torch.Tensor:
        x = hidden_states
        q, k, v = attn.to_q(x), attn.to_k(x), attn.to_v(x)
        if self.reading:
            q, k, v = q + self.q_loras(x), k + self.k_loras(x), v + self.v_loras(x)
        heads = (attn.heads, -1)
        q, k = attn.norm_q(q).unflatten(2, heads), attn.norm_k(k).unflatten(2, heads)
        v = v.unflatten(2, heads)
        if rotary_emb is not None:
            q, k = rotate(q, rotary_emb), rotate(k, rotary_emb)
        if self.reading:
            self.remembered = k, v
        elif self.remembered is not None:
            face_k, face_v = (t.expand(len(k), -1, -1, -1) for t in self.remembered)
            k, v = torch.cat([k, face_k], dim=1), torch.cat([v, face_v], dim=1)
        out = nn.functional.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        )
        return attn.to_out[1](attn.to_out[0](out.transpose(1, 2).flatten(2).type_as(x)))


class StandInTransformer3DModel(WanTransformer3DModel):
    """diffusers' Wan transformer that can read a face; call `add_loras` first."""

    def add_loras(self, state: Mapping[str, torch.Tensor], path: Path) -> None:
        """Add the layers of a released checkpoint, `blocks.I.self_attn.{q,k,v}_loras.*`.
        Raises WeightError: other names or shapes than this network's."""
        config = self.config
        width = config.num_attention_heads * config.attention_head_dim
        self.rope = StandInRotary(
            config.attention_head_dim, config.patch_size, config.rope_max_seq_len
        ).to(self.device)
        with torch.device("meta"):
            made = nn.ModuleList(StandInAttention(width) for _ in self.blocks)
        wanted = {
            f"blocks.{name.replace('.', '.self_attn.', 1)}": tensor
            for name, tensor in made.state_dict().items()
        }
        check_fit(state, wanted, path, "Stand-In")
        made.load_state_dict({
            name.removeprefix("blocks.").replace(".self_attn.", ".", 1):
                tensor.to(self.device, self.dtype)
            for name, tensor in state.items()
        }, assign=True)
        for block, processor in zip(self.blocks, made.eval(), strict=True):
            block.attn1.set_processor(processor)

    def forward(  # type: ignore[override]
        self,
        hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        picture: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        """The velocity at the video's positions.

        Args:
            hidden_states: noisy video latents (B, C, N, H, W).
            timestep: (B,). encoder_hidden_states: text (B, L, text_dim).
            picture: clean latents (1, C, 1, h, w) of a face, read and remembered until another
                is given. Then only its tokens are computed, and None is returned.
        """
        if picture is None:
            return super().forward(
                hidden_states, timestep, encoder_hidden_states, return_dict=return_dict
            )
        rotary = self.rope.of_picture(hidden_states, picture)
        x = self.patch_embedding(picture.to(hidden_states.dtype)).flatten(2).transpose(1, 2)
        modulation = self.condition_embedder(
            torch.zeros_like(timestep[:1]), encoder_hidden_states[:1], None
        )[1].unflatten(1, (6, -1))
        for block in self.blocks:
            x = read_picture(block, x, modulation, rotary)
        return None


def read_picture(
    block: Any, x: torch.Tensor, modulation: torch.Tensor, rotary: Rotary
) -> torch.Tensor:
    """One block of Wan on the tokens of the picture (1, n, D), without text; `modulation` (1, 6, D)
    of time 0."""
    shift, scale, gate, shift_ff, scale_ff, gate_ff = (
        block.scale_shift_table + modulation.float()
    ).chunk(6, dim=1)
    processor = block.attn1.processor
    processor.reading = True
    try:
        normed = (block.norm1(x.float()) * (1 + scale) + shift).type_as(x)
        x = (x.float() + block.attn1(normed, None, None, rotary) * gate).type_as(x)
    finally:
        processor.reading = False
    normed = (block.norm3(x.float()) * (1 + scale_ff) + shift_ff).type_as(x)
    return (x.float() + block.ffn(normed).float() * gate_ff).type_as(x)


def rotate(x: torch.Tensor, rotary: Rotary) -> torch.Tensor:
    """Wan's rotary embedding of queries or keys (B, L, heads, d)."""
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = rotary[0][..., 0::2], rotary[1][..., 1::2]
    return torch.stack(
        [first * cos - second * sin, first * sin + second * cos], dim=-1
    ).flatten(-2).type_as(x)
