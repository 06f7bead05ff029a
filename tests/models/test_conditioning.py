"""References in the sequence: what Concat-ID promises about the network."""

from __future__ import annotations

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.models.embeddings import get_3d_rotary_pos_embed

from idbench.models.concat_id import conditioning
from idbench.models.concat_id.conditioning import denoise, rotary_embedding
from idbench.models.concat_id.networks import use_matrix_attention


def test_there_is_no_new_parameter(transformer):
    plain = CogVideoXTransformer3DModel.from_config(transformer.config)
    ours = {name: value.shape for name, value in transformer.state_dict().items()}
    assert ours == {name: value.shape for name, value in plain.state_dict().items()}
    assert type(transformer) is CogVideoXTransformer3DModel


def test_without_references_the_output_is_the_base_networks_bit_for_bit(transformer, inputs):
    cos_sin = get_3d_rotary_pos_embed(16, ((0, 0), (2, 3)), (2, 3), 3)
    base = transformer(
        hidden_states=inputs["latents"], encoder_hidden_states=inputs["text"],
        timestep=inputs["times"], image_rotary_emb=cos_sin, return_dict=False,
    )[0]
    for none in (None, inputs["references"][:, :0]):
        ours = denoise(transformer, inputs["latents"], none, inputs["text"], inputs["times"])
        assert torch.equal(ours, base)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_only_the_videos_positions_come_out(transformer, inputs, count):
    references = inputs["references"].repeat(1, 2, 1, 1, 1)[:, :count]
    output = denoise(
        transformer, inputs["latents"], references, inputs["text"], inputs["times"]
    )
    assert output.shape == inputs["latents"].shape


def test_the_order_of_references_matters(transformer, inputs):
    a = denoise(transformer, **inputs)
    b = denoise(transformer, **{**inputs, "references": inputs["references"].flip(1)})
    assert (a - b).abs().max() > 1e-4


def test_references_follow_the_video_in_time(transformer):
    three = rotary_embedding(transformer, 3, 2, 4, 6)
    five = rotary_embedding(transformer, 5, 0, 4, 6)
    assert torch.equal(three[0], five[0]) and torch.equal(three[1], five[1])


def test_beside_one_image_a_reference_keeps_its_place_after_the_clip(transformer):
    image = rotary_embedding(transformer, 1, 1, 4, 6, clip_frames=3)[0]
    clip = rotary_embedding(transformer, 3, 1, 4, 6)[0]
    area = 2 * 3
    assert torch.equal(image[:area], clip[:area])
    assert torch.equal(image[area:], clip[3 * area :])


def test_more_than_three_references_are_refused(transformer):
    with pytest.raises(ValueError, match="0 to 3 references"):
        rotary_embedding(transformer, 3, 4, 4, 6)


def test_gradients_reach_references_only_through_attention(transformer, inputs):
    references = inputs["references"].clone().requires_grad_()
    for block in transformer.transformer_blocks:
        block.attn1.to_out[0].weight.data.zero_()
        block.attn1.to_out[0].bias.data.zero_()
    output = denoise(transformer, **{**inputs, "references": references})
    output.sum().backward()
    assert references.grad is None or not references.grad.any()


def test_matrix_attention_is_the_same_function(transformer, inputs):
    before = denoise(transformer, **inputs)
    weights = [p for p in transformer.parameters() if p.requires_grad]
    expected = torch.autograd.grad(before.square().mean(), weights)
    use_matrix_attention(transformer)
    after = denoise(transformer, **inputs)
    actual = torch.autograd.grad(after.square().mean(), weights)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_a_network_that_has_sampled_can_be_trained(transformer, inputs):
    conditioning._rotary.cache_clear()
    with torch.inference_mode():
        denoise(transformer, **inputs)
    denoise(transformer, **inputs).square().mean().backward()
    assert all(p.grad is not None for p in transformer.transformer_blocks.parameters())
