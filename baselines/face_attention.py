"""ID-Animator's mechanism: a resampler of CLIP's tokens, and face attention beside the text's.

`UNetFaceAttention` is the released processor of Stable Diffusion's cross-attention;
`JointFaceAttention` is the same for CogVideoX's joint attention of text and video.
Source: arXiv 2404.15275 and its code (github.com/ID-Animator/ID-Animator), in our words.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.models.transformers.consisid_transformer_3d import PerceiverAttention
from torch import nn
from torch.nn import functional as F

from idbench.models.concat_id.networks import MatrixAttention


class Resampler(nn.Module):
    """Image tokens (B, T, embedding_dim) to `num_queries` face tokens (B, Q, output_dim)."""

    def __init__(
        self, dim: int = 768, depth: int = 4, dim_head: int = 64, heads: int = 12,
        num_queries: int = 16, embedding_dim: int = 1280, output_dim: int = 768, ff_mult: int = 4,
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(1, num_queries, dim) / dim**0.5)
        self.proj_in = nn.Linear(embedding_dim, dim)
        self.proj_out = nn.Linear(dim, output_dim)
        self.norm_out = nn.LayerNorm(output_dim)
        self.layers = nn.ModuleList(
            nn.ModuleList([
                PerceiverAttention(dim, dim_head, heads),
                nn.Sequential(
                    nn.LayerNorm(dim), nn.Linear(dim, dim * ff_mult, bias=False), nn.GELU(),
                    nn.Linear(dim * ff_mult, dim, bias=False),
                ),
            ])
            for _ in range(depth)
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        latents, tokens = self.latents.repeat(len(tokens), 1, 1), self.proj_in(tokens)
        for attention, feed_forward in self.layers:  # type: ignore[misc]  # pairs
            latents = attention(tokens, latents) + latents
            latents = feed_forward(latents) + latents
        return self.norm_out(self.proj_out(latents))


class LoRA(nn.Module):
    """A layer of low rank, added to a linear one; at first 0."""

    def __init__(self, width: int, out: int, rank: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, rank, bias=False), nn.Linear(rank, out, bias=False)
        nn.init.normal_(self.down.weight, std=1 / rank)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(self.down(x))


class FaceAttention(nn.Module):
    """The parameters of one attention: LoRA of `rank` on its four layers, keys and values of the
    face. `hidden`, `text` and `face` are widths of the tokens, `scale` is of the face's part."""

    def __init__(self, hidden: int, text: int, face: int, rank: int = 128) -> None:
        super().__init__()
        self.to_q_lora, self.to_out_lora = LoRA(hidden, hidden, rank), LoRA(hidden, hidden, rank)
        self.to_k_lora, self.to_v_lora = LoRA(text, hidden, rank), LoRA(text, hidden, rank)
        self.to_k_face = nn.Linear(face, hidden, bias=False)
        self.to_v_face = nn.Linear(face, hidden, bias=False)
        self.scale = 1.0


class UNetFaceAttention(FaceAttention):
    """Processor of a cross-attention whose last `tokens` text tokens are the face's."""

    def __init__(self, hidden: int, text: int = 768, rank: int = 128, tokens: int = 16) -> None:
        super().__init__(hidden, text, text, rank)
        self.tokens = tokens

    def __call__(  # diffusers reads its arguments from here
        self, attn: Any, hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None, temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        assert encoder_hidden_states is not None
        words = encoder_hidden_states[:, : -self.tokens]
        face = encoder_hidden_states[:, -self.tokens :]
        adapted = _Adapted(attn, self)
        query = adapted.to_q(hidden_states)
        text = _attend(attn, query, adapted.to_k(words), adapted.to_v(words))
        seen = _attend(attn, query, self.to_k_face(face), self.to_v_face(face))
        out = adapted.to_out[0](text + self.scale * seen)
        return attn.to_out[1](out) / attn.rescale_output_factor


class JointFaceAttention(FaceAttention):
    """Processor of CogVideoX's joint attention: the video's tokens attend to the face too."""

    def __init__(self, hidden: int, face: int, rank: int) -> None:
        super().__init__(hidden, hidden, face, rank)
        nn.init.zeros_(self.to_v_face.weight)  # at first the base's own output

    def __call__(  # diffusers reads its arguments from here
        self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
        faces: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        adapted = _Adapted(attn, self)
        if faces is not None:
            query = adapted.norm_q(_heads(attn, adapted.to_q(hidden_states)))
            key, value = _heads(attn, self.to_k_face(faces)), _heads(attn, self.to_v_face(faces))
            seen = F.scaled_dot_product_attention(
                query.to(value.dtype), adapted.norm_k(key).to(value.dtype), value
            )
            adapted.face = self.scale * seen.transpose(1, 2).flatten(2)
        return MatrixAttention()(
            adapted, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb
        )


class _Adapted:
    """An attention's layers with LoRA, as a processor reads them; `face` (B, T, C) is added to the
    video's tokens before the output layer."""

    def __init__(self, attn: Any, parts: FaceAttention) -> None:
        self._attn, self._parts = attn, parts
        self.heads, self.norm_q, self.norm_k = attn.heads, attn.norm_q, attn.norm_k
        self.face: torch.Tensor | None = None

    def to_q(self, x: torch.Tensor) -> torch.Tensor:
        return self._attn.to_q(x) + self._parts.to_q_lora(x)

    def to_k(self, x: torch.Tensor) -> torch.Tensor:
        return self._attn.to_k(x) + self._parts.to_k_lora(x)

    def to_v(self, x: torch.Tensor) -> torch.Tensor:
        return self._attn.to_v(x) + self._parts.to_v_lora(x)

    @property
    def to_out(self) -> list[Any]:
        return [self._out]

    def _out(self, x: torch.Tensor) -> torch.Tensor:
        if self.face is not None:
            text = x.shape[1] - self.face.shape[1]
            x = torch.cat([x[:, :text], x[:, text:] + self.face], dim=1)
        return self._attn.to_out[0](x) + self._parts.to_out_lora(x)


class IDAnimatorTransformer3DModel(CogVideoXTransformer3DModel):
    """CogVideoX with face attention in every block: ID-Animator's mechanism at our small scale.

    `face_width` and `face_tokens` are of the face tokens, `face_depth` of the resampler,
    `image_width` of the image tokens, `face_rank` of LoRA, `config` of
    `CogVideoXTransformer3DModel`."""

    def __init__(
        self, *, image_width: int, face_width: int = 128, face_tokens: int = 16,
        face_depth: int = 2, face_rank: int = 16, **config: Any,
    ) -> None:
        super().__init__(**config)
        width = config["num_attention_heads"] * config["attention_head_dim"]
        self.resampler = Resampler(
            face_width, face_depth, 32, face_width // 32, face_tokens, image_width, face_width
        )
        for block in self.transformer_blocks:
            block.attn1.set_processor(JointFaceAttention(width, face_width, face_rank))

    def forward(self, *args: Any, image_tokens: torch.Tensor, **options: Any) -> Any:
        """As the base's, with the image tokens (B, T, image_width) of a face."""
        return super().forward(
            *args, attention_kwargs={"faces": self.resampler(image_tokens)}, **options
        )


def _heads(attn: Any, x: torch.Tensor) -> torch.Tensor:
    """(B, T, C) to (B, heads, T, C / heads)."""
    return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)


def _attend(attn: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    out = F.scaled_dot_product_attention(*(_heads(attn, x) for x in (query, key, value)))
    return out.transpose(1, 2).flatten(2)
