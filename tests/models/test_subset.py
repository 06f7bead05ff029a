"""Training on part of the tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from idbench.models.concat_id.conditioning import denoise
from idbench.models.concat_id.families import CogVideoX
from idbench.models.concat_id.networks import build_scheduler, use_matrix_attention
from idbench.models.concat_id.training.network import Denoiser
from idbench.models.concat_id.training.objective import Batch, loss
from idbench.models.concat_id.training.subset import (
    choose_tokens,
    denoise_tokens,
    reference_tokens,
    token_mask,
)

TOKENS = 3 * 2 * 3  # of three frames of 4 x 6 latents


def test_all_tokens_in_any_order_give_the_output_of_the_whole(transformer, inputs):
    use_matrix_attention(transformer)
    with torch.no_grad():
        expected = denoise(transformer, *inputs.values(), clip_frames=9)
        keep = torch.stack([torch.randperm(TOKENS + 12) for _ in range(2)])
        actual = denoise_tokens(transformer, *inputs.values(), keep, clip_frames=9)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_other_tokens_are_zero_and_unseen(transformer, inputs):
    use_matrix_attention(transformer)
    keep = torch.tensor([[0, 4, 17], [1, 2, 3]])
    mask = token_mask(keep, inputs["latents"].shape)
    changed = {**inputs, "latents": torch.where(mask == 0, 100.0, inputs["latents"])}
    with torch.no_grad():
        output = denoise_tokens(transformer, *inputs.values(), keep)
        again = denoise_tokens(transformer, *changed.values(), keep)
    assert bool((output * (1 - mask) == 0).all()) and bool((output * mask != 0).any())
    torch.testing.assert_close(again, output)
    assert mask.sum().item() == 6 * 4


def test_heads_are_kept_whole_and_a_share_of_the_rest():
    heads = torch.zeros(2, 20, dtype=torch.bool)
    heads[0, 3:11] = True
    heads[1, [0, 19]] = True
    keep = choose_tokens(heads, 0.25, torch.Generator().manual_seed(0))
    assert keep.shape == (2, 8 + 3)
    assert all(len(set(row.tolist())) == 11 for row in keep)
    assert set(range(3, 11)) <= set(keep[0].tolist()) and {0, 19} <= set(keep[1].tolist())
    assert choose_tokens(heads, 1.0).tolist() == [list(range(20))] * 2


def test_margins_of_references_are_left_out():
    assert reference_tokens(2, 2, 4).tolist() == [1, 2, 5, 6, 9, 10, 13, 14]
    smaller = reference_tokens(1, 8, 12, fill=0.75).view(6, 6)
    assert smaller[0].tolist() == [15, 16, 17, 18, 19, 20] and smaller[-1, -1] == 80
    assert reference_tokens(0, 2, 4).tolist() == []


def test_the_loss_counts_kept_tokens_alone(transformer, inputs):
    use_matrix_attention(transformer)
    network, family = Denoiser(transformer, 9), CogVideoX(build_scheduler())
    batch = Batch(
        inputs["latents"], inputs["references"], inputs["text"], torch.tensor([0.3, 0.7]),
        torch.randn(inputs["latents"].shape, generator=torch.Generator().manual_seed(0)),
    )
    every = torch.arange(TOKENS + 12).expand(2, -1)
    whole, same = loss(network, family, batch), loss(network, family, replace(batch, keep=every))
    torch.testing.assert_close(same, whole, rtol=1e-4, atol=1e-5)
    some = replace(batch, keep=torch.tensor([[0, 5, 20], [7, 8, 25]]))
    mask = token_mask(some.keep, batch.latents.shape)
    noise = torch.where(mask == 0, -batch.noise, batch.noise)  # changes the other targets
    assert loss(network, family, some).tolist() == pytest.approx(
        loss(network, family, replace(some, noise=noise)).tolist(), rel=1e-5)
