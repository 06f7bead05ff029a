"""Concat-ID on Wan2.1: references appended to the sequence of diffusers' Wan transformer.

Each reference is one latent frame after the `N` of the video. Reference `i` has the temporal
position `N + i`, the video's rows, and columns shifted to the right of the video's (`w` to
`2w - 1`). Its tokens take part in self-attention alone: text cross-attention passes them by,
and the network's outputs at their positions are dropped. The plain form adds no parameter.

The AdaLN form gives the references their own modulation: one more time projection, and one
more table in each block (14.16 M and 0.28 M parameters for Wan2.1-T2V-1.3B).

The released code handles one reference; `N + i` for more follows the CogVideoX form.
Source: arXiv 2503.14151 and the released Concat-ID-Wan inference code.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    ModelMixin,  # noqa: F401  diffusers looks for it here when loading a folder
    WanTransformer3DModel,
)
from diffusers.configuration_utils import register_to_config
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed, WanTransformerBlock
from torch import nn

from idbench.models.concat_id.about import MAXIMUM_REFERENCES

Rotary = tuple[torch.Tensor, torch.Tensor]
Modulation = tuple[torch.Tensor, ...]


class ReferenceRotary(WanRotaryPosEmbed):
    """Wan's rotary embedding, with places for references."""

    def forward(self, hidden_states: torch.Tensor, references: int = 0) -> Rotary:
        """Cosines and sines, each (1, tokens, 1, head_dim), for the video's latents (B, C, N, H, W)
        and the `references` frames that follow them."""
        if references == 0:
            return super().forward(hidden_states)
        frames, height, width = self.grid_size(hidden_states)
        if max(frames + references, height, 2 * width) > self.max_seq_len:
            raise ValueError(
                f"{frames} + {references} frames of {height}x{width} tokens need more than the "
                f"{self.max_seq_len} positions of the network"
            )
        return self.at(
            (range(frames), range(height), range(width)),
            (range(frames, frames + references), range(height), range(width, 2 * width)),
        )

    def grid_size(self, latents: torch.Tensor) -> tuple[int, ...]:
        """Tokens of latents (B, C, N, H, W) in time, height and width."""
        return tuple(s // p for s, p in zip(latents.shape[2:], self.patch_size, strict=True))

    def at(self, *grids: tuple[range, ...]) -> Rotary:
        """Cosines and sines, each (1, tokens, 1, head_dim), of every (time, height, width) of the
        `grids`, one after the other."""
        places = torch.cat([
            torch.cartesian_prod(*(torch.arange(axis.start, axis.stop) for axis in axes))
            for axes in grids
        ])
        sizes = [self.t_dim, self.h_dim, self.w_dim]

        def rows(table: torch.Tensor) -> torch.Tensor:
            parts = zip(table.split(sizes, dim=1), places.to(table.device).unbind(1), strict=True)
            return torch.cat([part[index] for part, index in parts], dim=1)[None, :, None]

        return rows(self.freqs_cos), rows(self.freqs_sin)


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


class ConcatIDWanTransformer3DModel(WanTransformer3DModel):
    """diffusers' Wan transformer that takes references.

    Args:
        reference_adaln: references have their own modulation (the AdaLN form). Without it the
            state dict is that of `WanTransformer3DModel`.
        reference_ffn_quirk: only with `reference_adaln`. The released weights were trained with
            the references' feed-forward input shifted and scaled by the modulation of the
            attention (rows 0 and 1 of six), not by that of the feed-forward (rows 3 and 4), so
            they need True. False is the form one would expect; take it for a new training.
        image_dim, added_kv_proj_dim, pos_embed_seq_len: None; they stand in the configuration
            of `WanTransformer3DModel`, and only image-to-video networks have them.
        others: of `WanTransformer3DModel`; its defaults are Wan2.1-T2V-14B.

    Raises:
        ValueError: the configuration of an image-to-video network.
    """

    _no_split_modules = ["ReferenceBlock"]
    _repeated_blocks = ["ReferenceBlock"]
    _keep_in_fp32_modules = [*WanTransformer3DModel._keep_in_fp32_modules, "reference_table"]

    @register_to_config
    def __init__(
        self, patch_size: tuple[int, ...] = (1, 2, 2), num_attention_heads: int = 40,
        attention_head_dim: int = 128, in_channels: int = 16, out_channels: int = 16,
        text_dim: int = 4096, freq_dim: int = 256, ffn_dim: int = 13824, num_layers: int = 40,
        cross_attn_norm: bool = True, qk_norm: str | None = "rms_norm_across_heads",
        eps: float = 1e-6, rope_max_seq_len: int = 1024, image_dim: None = None,
        added_kv_proj_dim: None = None, pos_embed_seq_len: None = None,
        reference_adaln: bool = False, reference_ffn_quirk: bool = True,
    ) -> None:
        if image_dim is not None or added_kv_proj_dim is not None:
            raise ValueError("Concat-ID builds on a text-to-video Wan, not on image-to-video")
        super().__init__(
            patch_size=patch_size, num_attention_heads=num_attention_heads,
            attention_head_dim=attention_head_dim, in_channels=in_channels,
            out_channels=out_channels, text_dim=text_dim, freq_dim=freq_dim, ffn_dim=ffn_dim,
            num_layers=0, cross_attn_norm=cross_attn_norm, qk_norm=qk_norm, eps=eps,
            rope_max_seq_len=rope_max_seq_len,
        )
        # The base class has written its own view of the configuration: no layers.
        self.register_to_config(num_layers=num_layers)
        width = num_attention_heads * attention_head_dim
        self.rope = ReferenceRotary(attention_head_dim, patch_size, rope_max_seq_len)
        self.blocks = nn.ModuleList(
            ReferenceBlock(
                width, ffn_dim, num_attention_heads, qk_norm, cross_attn_norm, eps,
                adaln=reference_adaln, quirk=reference_ffn_quirk,
            )
            for _ in range(num_layers)
        )
        self.reference_time_proj = nn.Linear(width, 6 * width) if reference_adaln else None

    @classmethod
    def from_base(
        cls, base: WanTransformer3DModel, *, adaln: bool = False, quirk: bool = False
    ) -> ConcatIDWanTransformer3DModel:
        """Concat-ID before its training: the weights of `base`, a text-to-video Wan transformer (or
        Concat-ID's without AdaLN); references start as the video. `adaln`, `quirk`:
        `reference_adaln`, `reference_ffn_quirk`. Raises ValueError: an image-to-video base, which
        has an image embedding."""
        config = {k: v for k, v in base.config.items() if not k.startswith("_")}
        config.update(reference_adaln=adaln, reference_ffn_quirk=quirk)
        made = cls(**config)
        state = base.state_dict()
        if adaln:
            for end in ("weight", "bias"):
                state[f"reference_time_proj.{end}"] = state[f"condition_embedder.time_proj.{end}"]
            for i in range(len(made.blocks)):
                state[f"blocks.{i}.reference_table"] = state[f"blocks.{i}.scale_shift_table"]
        # Each tensor in its own dtype: a network in bfloat16 keeps some in float32.
        made.load_state_dict({name: value.clone() for name, value in state.items()}, assign=True)
        made.rope.to(base.device, base.rope.freqs_cos.dtype)
        return made

    def forward(  # type: ignore[override]
        self,
        hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        references: torch.Tensor | None = None,
        return_dict: bool = True,
        attention_kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """The velocity at the video's positions.

        Args:
            hidden_states: noisy video latents (B, C, N, H, W).
            timestep: (B,); references share it though they carry no noise.
            encoder_hidden_states: text embeddings (B, L, text_dim).
            references: clean reference latents (B, C, M, H, W), left to right; None or M = 0
                gives the base network's output, bit for bit.
            return_dict: diffusers' output object instead of a tuple.
            attention_kwargs: passed on; only without references.

        Raises:
            ValueError: more than three references, another frame size than the video's.
        """
        if references is None or references.shape[2] == 0:
            return super().forward(
                hidden_states, timestep, encoder_hidden_states, None, return_dict,
                attention_kwargs=attention_kwargs,
            )
        self._check(hidden_states, timestep, references)
        count, frames = references.shape[2], hidden_states.shape[2]
        rotary = self.rope(hidden_states, count)
        sequence = torch.cat([hidden_states, references.to(hidden_states.dtype)], dim=2)
        x = self.patch_embedding(sequence)
        grid = x.shape[3:]
        x = x.flatten(2).transpose(1, 2).contiguous()
        tokens = count * grid[0] * grid[1]
        embedder = self.condition_embedder
        emb, modulation, text, _ = embedder(timestep, encoder_hidden_states, None)
        modulation = modulation.unflatten(1, (6, -1))
        beside = None
        if self.reference_time_proj is not None:
            beside = self.reference_time_proj(embedder.act_fn(emb)).unflatten(1, (6, -1))
        for block in self.blocks:
            arguments = (x, text, modulation, rotary, tokens, beside)
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                x = self._gradient_checkpointing_func(block, *arguments)
            else:
                x = block(*arguments)
        x = x[:, :-tokens]
        shift, scale = (self.scale_shift_table.to(emb.device) + emb.unsqueeze(1)).chunk(2, dim=1)
        x = (self.norm_out(x.float()) * (1 + scale) + shift).type_as(x)
        output = self._to_frames(self.proj_out(x), (frames, *grid))
        if not return_dict:
            return (output,)
        return Transformer2DModelOutput(sample=output)

    def _to_frames(self, x: torch.Tensor, grid: tuple[int, ...]) -> torch.Tensor:
        """Tokens (B, n, patch * C) to latents (B, C, N, H, W)."""
        _, rows, columns = self.config.patch_size
        patches = x.unflatten(1, grid).unflatten(-1, (rows, columns, -1))
        # (B, N, h, w, rows, columns, C): each token is a patch of rows x columns latents.
        return patches.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)

    def _check(
        self, latents: torch.Tensor, timestep: torch.Tensor, references: torch.Tensor
    ) -> None:
        if references.shape[2] > MAXIMUM_REFERENCES:
            raise ValueError(f"0 to {MAXIMUM_REFERENCES} references, not {references.shape[2]}")
        if references.shape[3:] != latents.shape[3:]:
            raise ValueError(
                f"references of {tuple(references.shape[3:])} do not fit a video of "
                f"{tuple(latents.shape[3:])} latents"
            )
        if self.config.patch_size[0] != 1 or timestep.ndim != 1:
            raise ValueError("references need patches of one frame and one timestep a sample")
