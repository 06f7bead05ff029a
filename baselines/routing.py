"""Ingredients' transformer: ConsisID's with two faces, and routers that mix them for each token.

Each second block asks both faces and adds their answers, weighted by a softmax over the faces.
Source: arXiv 2501.01790 and its code (Apache-2.0, github.com/feizc/Ingredients), in our words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from diffusers import ConsisIDTransformer3DModel
from diffusers.models.transformers.consisid_transformer_3d import (
    LocalFacialExtractor,
    PerceiverCrossAttention,
)
from torch import nn
from torch.nn import functional as F

BACKGROUND = -1
"""In masks of people: a token that shows nobody."""
_collected: ContextVar[list[torch.Tensor] | None] = ContextVar("collected", default=None)


class IDRouter(nn.Module):
    """Scores how much a token (of width `dim`) belongs to each face (of `tokens` tokens of width
    `id_dim`), without scaling."""

    def __init__(self, dim: int, id_dim: int, tokens: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(id_dim), nn.LayerNorm(dim)
        self.id_merge = nn.Linear(tokens, 1, bias=False)
        self.to_q = nn.Linear(dim, id_dim, bias=False)
        self.to_kv = nn.Linear(id_dim, id_dim, bias=False)

    def forward(self, faces: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Logits (B, T, N) of faces (B, N, Q, D) for tokens (B, T, C)."""
        merged = self.id_merge(self.norm1(faces).transpose(-2, -1)).squeeze(-1)
        return self.to_q(self.norm2(hidden)) @ self.to_kv(merged).transpose(-2, -1)


class FacesExtractor(LocalFacialExtractor):
    """ConsisID's extractor for N faces at once."""

    def forward(
        self, id_embeds: torch.Tensor, vit_hidden_states: list[torch.Tensor]
    ) -> torch.Tensor:
        """Tokens (B, N, Q, D) of vectors (B, N, E) and hidden states, each (B, N, T, W)."""
        flat = super().forward(
            id_embeds.flatten(0, 1), [states.flatten(0, 1) for states in vit_hidden_states]
        )
        return flat.unflatten(0, id_embeds.shape[:2])


class RoutedCrossAttention(PerceiverCrossAttention):
    """ConsisID's cross-attention to each face, mixed by a router, which is held elsewhere in the
    network, as the released file names it."""

    def __init__(self, router: IDRouter, **sizes: Any) -> None:
        super().__init__(**sizes)
        self._router = (router,)  # in a tuple: its parameters are not this module's

    def forward(self, faces: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """(F, T, C) for faces (F, N, Q, D) and tokens (B, T, C). With fewer rows of faces than of
        tokens, only the first rows are routed."""
        rows, count = hidden[: len(faces)], faces.shape[1]
        logits = self._router[0](faces, rows)
        kept = _collected.get()
        if kept is not None:
            kept.append(logits)
        answers = super().forward(faces.flatten(0, 1), rows.repeat_interleave(count, dim=0))
        weights = logits.float().softmax(-1).to(logits.dtype)
        return torch.einsum("btn,bntc->btc", weights, answers.unflatten(0, (-1, count)))


class IngredientsTransformer3DModel(ConsisIDTransformer3DModel):
    """`ConsisIDTransformer3DModel` of N faces, with the routers of the released file.

    `id_cond` is (F, N, E), `id_vit_hidden` a list of (F, N, T, W). F is the batch, or 1 with a
    batch of both branches of the guidance: then, as released, the first (negative) row alone is
    routed, and what it gives is added to both.
    """

    def _init_face_inputs(self) -> None:
        super()._init_face_inputs()
        self.local_facial_extractor = FacesExtractor(
            id_dim=self.LFE_id_dim, vit_dim=self.LFE_vit_dim, depth=self.LFE_depth,
            dim_head=self.LFE_dim_head, heads=self.LFE_num_heads,
            num_id_token=self.LFE_num_id_token, num_queries=self.LFE_num_querie,
            output_dim=self.LFE_output_dim, ff_mult=self.LFE_ff_mult,
            num_scale=self.LFE_num_scale,
        )
        self.router = nn.ModuleList(
            IDRouter(self.inner_dim, self.LFE_output_dim, self.LFE_num_querie)
            for _ in range(self.num_cross_attn)
        )
        self.perceiver_cross_attention = nn.ModuleList(
            RoutedCrossAttention(
                router, dim=self.inner_dim, dim_head=self.cross_attn_dim_head,
                heads=self.cross_attn_num_heads, kv_dim=self.cross_attn_kv_dim,
            )
            for router in self.router
        )


@contextmanager
def collect_logits() -> Iterator[list[torch.Tensor]]:
    """The logits (B, T, N) of every router that runs within, in order; one list a thread."""
    kept: list[torch.Tensor] = []
    token = _collected.set(kept)
    try:
        yield kept
    finally:
        _collected.reset(token)


def routing_loss(logits: Sequence[torch.Tensor], people: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of each row, (B,), over the blocks; 0 if a row shows nobody. Logits of
    each block are (B, T, N); `people` (B, T): the face that each token shows, or `BACKGROUND`,
    which does not count."""
    shown = (people != BACKGROUND).sum(1).clamp(min=1)
    total = torch.zeros(len(people), device=people.device)
    for block in logits:
        each = F.cross_entropy(
            block.float().transpose(1, 2), people, ignore_index=BACKGROUND, reduction="none"
        )
        total = total + each.sum(1) / shown
    return total / len(logits)
