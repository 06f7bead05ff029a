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
from torch import nn

from idbench.models.concat_id.about import MAXIMUM_REFERENCES
from idbench.models.concat_id.wan_layers import ReferenceBlock, ReferenceRotary


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
