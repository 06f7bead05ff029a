"""The attention of CogVideoX by matrix products: the same function, quicker at small sizes.

PyTorch's fused attention is slow on CPUs at these lengths, above all backwards: at 224 tokens
and 3 heads of 64 in bfloat16, forward and backward take 8.7 ms a sample for 8 layers here and
20.2 ms there (47 and 89 ms at 512 tokens; one core, AVX-512 BF16).
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel


class _Attention(torch.autograd.Function):
    """softmax(q k^T scale) v of (B, N, D) tensors, keeping only the probabilities."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> Any:
        weights = torch.bmm(q, k.transpose(1, 2)).mul_(scale).softmax(-1)
        ctx.save_for_backward(q, k, v, weights)
        ctx.scale = scale
        return torch.bmm(weights, v)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        q, k, v, weights = ctx.saved_tensors
        inner = torch.bmm(gradient, v.transpose(1, 2))
        inner = torch._softmax_backward_data(inner, weights, -1, weights.dtype).mul_(ctx.scale)
        return (
            torch.bmm(inner, k), torch.bmm(inner.transpose(1, 2), q),
            torch.bmm(weights.transpose(1, 2), gradient), None,
        )


class MatrixAttention:
    """Attention processor for `CogVideoXTransformer3DModel`, without masks and dropout. The rotary
    embedding is (tokens, D), or (B, tokens, D) if samples have different positions."""

    def __call__(
        self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        length = encoder_hidden_states.shape[1]
        x = torch.cat([encoder_hidden_states, hidden_states], dim=1)
        batch, tokens = x.shape[:2]

        def heads(y: torch.Tensor) -> torch.Tensor:
            return y.view(batch, tokens, attn.heads, -1).transpose(1, 2)

        query, key, value = heads(attn.to_q(x)), heads(attn.to_k(x)), heads(attn.to_v(x))
        dtype = value.dtype
        query, key = attn.norm_q(query), attn.norm_k(key)
        if image_rotary_emb is not None:
            cos, sin = (_with_text(part, length, fill) for part, fill in
                        zip(image_rotary_emb, (1.0, 0.0), strict=True))
            if cos.ndim == 3:  # every sample has positions of its own
                cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
            query, key = _rotate(query, cos, sin), _rotate(key, cos, sin)
        dim = value.shape[-1]
        flat = [y.to(dtype).reshape(-1, tokens, dim) for y in (query, key, value)]
        output = _Attention.apply(*flat, dim**-0.5)
        output = output.view(batch, attn.heads, tokens, dim).transpose(1, 2).flatten(2)
        output = attn.to_out[0](output)
        return output[:, length:], output[:, :length]


def _with_text(part: torch.Tensor, length: int, fill: float) -> torch.Tensor:
    """Rotary values with rows in front that leave the text tokens as they are."""
    rows = part.new_full((*part.shape[:-2], length, part.shape[-1]), fill)
    return torch.cat([rows, part], dim=-2)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate pairs of channels (real, imaginary, real, ...) of (B, H, N, D)."""
    pairs = x.unflatten(-1, (-1, 2))
    turned = torch.stack([-pairs[..., 1], pairs[..., 0]], dim=-1).flatten(-2)
    return x * cos.to(x.dtype) + turned * sin.to(x.dtype)


def use_matrix_attention(transformer: CogVideoXTransformer3DModel) -> None:
    """Replace the attention's computation; parameters stay as they are."""
    transformer.set_attn_processor(MatrixAttention())
