"""Concat-ID in Wan's form: what it promises about the network."""

from __future__ import annotations

import pytest
import released_forms
import torch
from diffusers import WanTransformer3DModel

from idbench.models.concat_id.convert_wan import to_released
from idbench.models.concat_id.wan import ConcatIDWanTransformer3DModel

BILLION = {
    "num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960, "num_layers": 30,
}


def output(network, inputs, **changes):
    with torch.no_grad():
        return network(**{**inputs, **changes}, return_dict=False)[0]


def with_one(inputs):
    return {**inputs, "references": inputs["references"][:, :, :1]}


def test_without_references_the_output_is_the_base_networks_bit_for_bit(wan, wan_inputs):
    base = WanTransformer3DModel(
        **{k: v for k, v in wan.config.items() if not k.startswith(("_", "reference"))}
    ).eval()
    left_over = base.load_state_dict(wan.state_dict(), strict=False)
    assert not left_over.missing_keys
    inputs = {k: v for k, v in wan_inputs.items() if k != "references"}
    expected = output(base, inputs)
    for none in (None, wan_inputs["references"][:, :, :0]):
        assert torch.equal(output(wan, inputs, references=none), expected)


def test_the_plain_form_has_no_new_parameter(wan_base):
    ours = ConcatIDWanTransformer3DModel.from_base(wan_base).state_dict()
    theirs = wan_base.state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)


@pytest.mark.parametrize("adaln", [False, True])
def test_a_base_in_bfloat16_keeps_its_dtypes_and_its_output(wan_base, wan_inputs, tmp_path, adaln):
    """diffusers leaves norms, tables and the time embedding in float32."""
    wan_base.save_pretrained(tmp_path)
    base = WanTransformer3DModel.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    ours = ConcatIDWanTransformer3DModel.from_base(base, adaln=adaln)
    kinds = {name: tensor.dtype for name, tensor in base.state_dict().items()}
    assert len(set(kinds.values())) == 2
    state = ours.state_dict()
    assert kinds == {name: state[name].dtype for name in kinds}
    if adaln:
        assert ours.blocks[0].reference_table.dtype == torch.float32
        assert ours.reference_time_proj.weight.dtype == torch.bfloat16
    inputs = {
        name: value if name == "timestep" else value.bfloat16()
        for name, value in wan_inputs.items() if name != "references"
    }
    assert torch.equal(output(ours, inputs), output(base, inputs))
    state["proj_out.bias"].zero_()  # a copy of the base's, not the base's own
    assert base.state_dict()["proj_out.bias"].any()


@pytest.mark.parametrize("wan", ["plain", "adaln"], indirect=True)
def test_one_reference_gives_what_the_released_networks_compute(wan, wan_inputs):
    inputs = with_one(wan_inputs)
    with torch.no_grad():
        expected = released_forms.wan(
            to_released(wan.state_dict()), inputs["hidden_states"], inputs["references"],
            inputs["encoder_hidden_states"], inputs["timestep"], heads=2,
        )
    assert expected.std() > 0.1
    torch.testing.assert_close(output(wan, inputs), expected, rtol=1e-4, atol=1e-4)


def test_the_quirk_matters(wan_inputs):
    inputs = with_one(wan_inputs)
    outputs = []
    for quirk in (True, False):
        torch.manual_seed(0)
        network = ConcatIDWanTransformer3DModel(
            **_tiny(), reference_adaln=True, reference_ffn_quirk=quirk
        ).eval()
        outputs.append(output(network, inputs))
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3


def _tiny():
    return {
        "num_attention_heads": 2, "attention_head_dim": 24, "in_channels": 4, "out_channels": 4,
        "text_dim": 12, "freq_dim": 16, "ffn_dim": 40, "num_layers": 2,
    }


def test_the_new_modulation_starts_as_the_videos(wan_base, wan_inputs):
    """Before training the AdaLN form is the plain form: without the quirk, to the last digits."""
    plain = ConcatIDWanTransformer3DModel.from_base(wan_base)
    adaln = ConcatIDWanTransformer3DModel.from_base(wan_base, adaln=True)
    torch.testing.assert_close(output(adaln, wan_inputs), output(plain, wan_inputs))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_only_the_videos_positions_come_out(wan, wan_inputs, count):
    references = wan_inputs["references"].repeat(1, 1, 2, 1, 1)[:, :, :count]
    assert output(wan, wan_inputs, references=references).shape == (2, 4, 3, 4, 6)


def test_the_order_of_references_matters(wan, wan_inputs):
    flipped = output(wan, wan_inputs, references=wan_inputs["references"].flip(2))
    assert (output(wan, wan_inputs) - flipped).abs().max() > 1e-3


def test_references_sit_after_the_video_and_to_its_right(wan):
    """Position (N + i, h, w + W) equals that place of one large video."""
    rope = wan.rope
    cos, sin = rope(torch.zeros(1, 4, 3, 4, 6), references=2)
    large = [part.view(5, 2, 6, -1) for part in rope(torch.zeros(1, 4, 5, 4, 12))]
    for ours, places in zip((cos, sin), large, strict=True):
        ours = ours.view(5, 2, 3, -1)
        assert torch.equal(ours[:3], places[:3, :, :3])
        assert torch.equal(ours[3:], places[3:, :, 3:])


def test_text_reaches_reference_tokens_through_the_video_alone(wan, wan_inputs):
    """In one block, other text leaves the reference tokens as they are."""
    block, tokens = wan.blocks[0], 2 * 6
    x = torch.randn(2, 5 * 6, 48, generator=torch.Generator().manual_seed(1))
    modulation = torch.randn(2, 6, 48, generator=torch.Generator().manual_seed(2))
    rotary = wan.rope(wan_inputs["hidden_states"], 2)
    first, second = (
        block(x, torch.full((2, 5, 48), value), modulation, rotary, tokens, modulation)
        for value in (0.3, -1.0)
    )
    assert torch.equal(first[:, -tokens:], second[:, -tokens:])
    assert (first[:, :-tokens] - second[:, :-tokens]).abs().max() > 1e-3


def test_gradients_reach_references_only_through_attention(wan, wan_inputs):
    references = wan_inputs["references"].clone().requires_grad_()
    wan(**{**wan_inputs, "references": references}).sample.square().sum().backward()
    assert references.grad.abs().max() > 1e-3
    references.grad = None
    for block in wan.blocks:
        block.attn1.to_out[0].weight.data.zero_()
    wan(**{**wan_inputs, "references": references}).sample.square().sum().backward()
    assert not references.grad.any()


def test_gradient_checkpointing_changes_no_gradient(wan, wan_inputs):
    weights = [p for p in wan.parameters() if p.requires_grad]

    def gradients():
        loss = wan(**wan_inputs).sample.square().mean()
        return torch.autograd.grad(loss, weights, allow_unused=True)

    expected = gradients()
    wan.enable_gradient_checkpointing()
    for a, b in zip(gradients(), expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b)


def test_the_adaln_form_adds_what_was_published():
    """14.16 M for the time projection and 0.28 M for the tables at Wan2.1-T2V-1.3B."""
    with torch.device("meta"):
        network = ConcatIDWanTransformer3DModel(**BILLION, reference_adaln=True)
        base = WanTransformer3DModel(**BILLION)
    projection = sum(p.numel() for p in network.reference_time_proj.parameters())
    tables = sum(block.reference_table.numel() for block in network.blocks)
    assert round(projection / 1e6, 2) == 14.16
    assert round(tables / 1e6, 2) == 0.28
    added = sum(p.numel() for p in network.parameters()) - sum(
        p.numel() for p in base.parameters()
    )
    assert added == projection + tables


def test_saved_and_loaded_networks_agree(wan, wan_inputs, tmp_path):
    before = output(wan, wan_inputs)
    wan.save_pretrained(tmp_path)
    loaded = ConcatIDWanTransformer3DModel.from_pretrained(tmp_path)
    assert loaded.config.num_layers == 2
    assert torch.equal(output(loaded, wan_inputs), before)


@pytest.mark.parametrize(
    ("change", "words"),
    [(lambda r: r.repeat(1, 1, 2, 1, 1), "0 to 3 references"),
     (lambda r: r[..., :4], "do not fit a video")],
)
def test_impossible_references_are_refused(wan, wan_inputs, change, words):
    with pytest.raises(ValueError, match=words):
        output(wan, wan_inputs, references=change(wan_inputs["references"]))


def test_an_image_to_video_base_is_refused():
    with torch.device("meta"):
        base = WanTransformer3DModel(**_tiny(), image_dim=8, added_kv_proj_dim=48)
    with pytest.raises(ValueError, match="text-to-video"):
        ConcatIDWanTransformer3DModel.from_base(base)
