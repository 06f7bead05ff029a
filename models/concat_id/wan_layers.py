"""Layers of Concat-ID on Wan2.1: positions of the references, and blocks that know them."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed, WanTransformerBlock
from torch import nn

Rotary = tuple[torch.Tensor, torch.Tensor]
Modulation = tuple[torch.Tensor, ...]


class ReferenceRotary(WanRotaryPosEmbed):
    """Wan's rotary embedding, with places for references."""

    def forward(self, hidden_states: torch.Tensor, references: int = 0) -> Rotary:
        """Cosines and sines, each (1, tokens, 1, head_dim), for the video's latents (B, C, N, H, W)
        and the `references` frames that follow them."""
        if references == 0:
            return super().forward(hidden_states)
        frames, height, width = (
            size // patch
            for size, patch in zip(hidden_states.shape[2:], self.patch_size, strict=True)
        )
        if max(frames + references, height, 2 * width) > self.max_seq_len:
            raise ValueError(
                f"{frames} + {references} frames of {height}x{width} tokens need more than the "
                f"{self.max_seq_len} positions of the network"
            )
        video = (range(frames), range(height), range(width))
        beside = (range(frames, frames + references), range(height), range(width, 2 * width))
        cos, sin = (
            torch.cat([self._grid(table, video), self._grid(table, beside)])
            for table in (self.freqs_cos, self.freqs_sin)
        )
        return cos[None, :, None], sin[None, :, None]

    def _grid(self, table: torch.Tensor, axes: tuple[range, range, range]) -> torch.Tensor:
        """Rows of `table` for every (time, height, width), (tokens, head_dim)."""
        shape = tuple(len(axis) for axis in axes)
        parts = []
        columns = table.split([self.t_dim, self.h_dim, self.w_dim], dim=1)
        for place, (axis, part) in enumerate(zip(axes, columns, strict=True)):
            view = [1, 1, 1, -1]
            view[place] = len(axis)
            rows = part[axis.start : axis.stop].view(view)
            parts.append(rows.expand(*shape, -1))
        return torch.cat(parts, dim=-1).flatten(0, 2)


class ReferenceBlock(WanTransformerBlock):
    """Wan's block on a sequence whose last tokens are those of references; `adaln`, `quirk`:
    `reference_adaln`, `reference_ffn_quirk` of the transformer."""

    def __init__(self, *others: Any, adaln: bool, quirk: bool) -> None:
        super().__init__(*others)
        self.quirk = quirk
        start = nn.Parameter(self.scale_shift_table.detach().clone()) if adaln else None
        self.register_parameter("reference_table", start)

    def forward(
        self, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, temb: torch.Tensor,
        rotary_emb: Rotary, tokens: int = 0, reference_temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """One block.

        Args:
            hidden_states: (B, L, D), the video's tokens, then the references'.
            encoder_hidden_states: text (B, T, D).
            temb: modulation of the video from the timestep, (B, 6, D).
            rotary_emb: of all L tokens.
            tokens: how many of the L belong to references; with 0 this is Wan's own block.
            reference_temb: modulation of the references, (B, 6, D); None where they share the
                video's.
        """
        if tokens == 0:
            return super().forward(hidden_states, encoder_hidden_states, temb, rotary_emb)
        x, lengths = hidden_states, [hidden_states.shape[1] - tokens, tokens]
        video = (self.scale_shift_table + temb.float()).chunk(6, dim=1)
        reference: Modulation = video
        if self.reference_table is not None and reference_temb is not None:
            reference = (self.reference_table + reference_temb.float()).chunk(6, dim=1)

        def modulate(normed: torch.Tensor, at: int, reference_at: int) -> torch.Tensor:
            """Shift and scale from rows `at` and `at + 1` of each part's modulation."""
            first, second = normed.split(lengths, dim=1)
            first = first * (1 + video[at + 1]) + video[at]
            second = second * (1 + reference[reference_at + 1]) + reference[reference_at]
            return torch.cat([first, second], dim=1).type_as(x)

        def gate(before: torch.Tensor, update: torch.Tensor, at: int) -> torch.Tensor:
            first, second = update.float().split(lengths, dim=1)
            gated = torch.cat([first * video[at], second * reference[at]], dim=1)
            return (before.float() + gated).type_as(x)

        update = self.attn1(modulate(self.norm1(x.float()), 0, 0), None, None, rotary_emb)
        x = gate(x, update, 2)

        watched, beside = x.split(lengths, dim=1)
        query = self.norm2(watched.float()).type_as(x)
        watched = watched + self.attn2(query, encoder_hidden_states, None, None)
        x = torch.cat([watched, beside], dim=1)

        reference_at = 0 if self.quirk and self.reference_table is not None else 3
        update = self.ffn(modulate(self.norm3(x.float()), 3, reference_at))
        return gate(x, update, 5)
