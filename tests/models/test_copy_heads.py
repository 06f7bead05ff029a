"""Heads that begin by copying, and the rate of the norms that let attention look sharply."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator

from idbench.models.concat_id.conditioning import rotary_embedding
from idbench.models.concat_id.networks import _rotate, build_transformer
from idbench.models.concat_id.training.network import start_copying
from idbench.models.concat_id.training.recipe import read_stage
from idbench.models.concat_id.training.setup import make_optimisers

from .conftest import recipe

EMBEDDED = {
    "num_attention_heads": 3, "attention_head_dim": 64, "num_layers": 2, "time_embed_dim": 16,
    "text_embed_dim": 12, "in_channels": 16, "out_channels": 16, "sample_height": 16,
    "sample_width": 24, "sample_frames": 9,
}


@pytest.mark.parametrize(("rows", "columns"), [(0.0, 0.0), (0.0, 1.0), (-1.0, 0.0)])
def test_a_copying_head_reads_the_reference_at_its_place(rows, columns):
    torch.manual_seed(0)
    network = build_transformer(EMBEDDED)
    start_copying(network, [(1, rows, columns)])
    attention = network.transformer_blocks[1].attn1
    hidden = torch.randn(1, 192, 192)
    turns = rotary_embedding(network, 1, 1, 16, 24, clip_frames=9)
    query, key = (
        _rotate(norm(linear(hidden).view(1, 192, 3, 64)[:, :, 0]), *turns)
        for linear, norm in ((attention.to_q, attention.norm_q), (attention.to_k, attention.norm_k))
    )
    read = (query @ key.transpose(1, 2) / 8).softmax(-1)[0]
    place = 3 * 12 + 5
    shown = read[place, 96:].view(8, 12)
    assert shown.sum() > 0.99, "the reference is read, not the frame"
    assert divmod(int(shown.argmax()), 12) == (3 + rows, 5 + columns)
    assert shown.max() > 0.15, "nearly all of it from a few tokens"


def test_norms_of_queries_and_keys_have_a_rate_of_their_own():
    network = build_transformer(EMBEDDED)
    made = make_optimisers(network, read_stage(recipe(norm_rate=10.0)), Accelerator(cpu=True))
    factors = {id(p): group.get("factor", 1.0) for o in made for group in o.param_groups
               for p in group["params"]}
    for name, parameter in network.named_parameters():
        assert factors[id(parameter)] == (10.0 if ".norm_q." in name or ".norm_k." in name else 1.0)
