"""The baselines' mechanisms at the embedded scale: they start as the base and train alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from idbench import deltas, embedded
from idbench.baselines import face_tower
from idbench.baselines.embedded_models import side_by_side
from idbench.errors import UserError
from idbench.models.concat_id import networks
from idbench.models.concat_id.conditioning import denoise
from idbench.models.concat_id.families import BASELINES, family_named
from idbench.models.concat_id.training.network import configuration
from idbench.models.concat_id.training.objective import Batch
from idbench.models.concat_id.training.recipe import read_stage
from idbench.models.concat_id.training.setup import make_optimisers
from idbench.recipes import load_recipe


def recipe_of(name):
    return read_stage({**load_recipe(name)[1], "name": name})


def references(count, batch=2):
    torch.manual_seed(count)
    latents = torch.randn(batch, count, 16, 16, 24)
    return face_tower.pack(latents, torch.randn(batch, count, face_tower.sizes().total))


@pytest.fixture(scope="module", params=sorted(BASELINES))
def made(request):
    """(name, family, network with the base's weights)."""
    family = family_named(request.param)
    torch.manual_seed(0)
    network = family.build(configuration(recipe_of(request.param))[1])
    family.load_base(network, embedded.load_state("transformer_base"))
    return request.param, family, network


def test_a_new_network_computes_what_its_base_does(made):
    name, family, network = made
    latents, text = torch.randn(2, 2, 16, 16, 24), torch.randn(2, 32, 128)
    times = torch.tensor([300, 700])
    base = networks.load_transformer("transformer_base")
    with torch.no_grad():
        found = family.predict(
            network.eval(), latents, references(2 if name == "ingredients" else 1), text, times
        )
        assert torch.allclose(found, denoise(base, latents, None, text, times), atol=1e-5)


@pytest.mark.parametrize("also", [(), ("local_facial_extractor", "perceiver_cross_attention")])
def test_muon_updates_the_matrices_of_the_modules_that_are_named(also):
    recipe = replace(recipe_of("consisid"), optimiser="muon", muon_also=also)
    network = family_named("consisid").build(configuration(recipe)[1])
    trained = torch.nn.ModuleDict({"transformer": network})  # as the loop wraps it
    _, muon = make_optimisers(trained, recipe, Accelerator(cpu=True))
    updated = {id(p) for group in muon.param_groups for p in group["params"]}
    for name, parameter in network.named_parameters():
        of_block = name.startswith("transformer_blocks.")
        expected = parameter.ndim == 2 and (of_block or name.split(".")[0] in also)
        assert (id(parameter) in updated) == expected, name


def test_a_module_that_muon_does_not_find_is_refused():
    recipe = replace(recipe_of("id_animator"), optimiser="muon", muon_also=("resampeler",))
    network = family_named("id_animator").build(configuration(recipe)[1])
    with pytest.raises(UserError, match="did you mean 'resampler'"):
        make_optimisers(network, recipe, Accelerator(cpu=True))


def test_new_weights_get_gradients(made):
    name, family, network = made
    network.train()
    latents, text = torch.randn(2, 1, 16, 16, 24), torch.randn(2, 32, 128)
    rows = references(2 if name == "ingredients" else 1)
    heads = torch.zeros(2, 1, 16, 24, dtype=torch.uint8)
    heads[:, :, 4:12, 4:8], heads[:, :, 4:12, 16:20] = 1, 2
    batch = Batch(latents, rows, text, torch.rand(2), torch.randn_like(latents), people=heads,
                  heads_alone=torch.ones(2))
    output = family.predict(network, latents, rows, text, torch.tensor([300, 700]))
    family.loss(output, torch.randn_like(latents), batch).sum().backward()
    moved = {n for n, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    frozen = [n for n, p in network.named_parameters() if not p.requires_grad]
    expected = {
        "consisid": "perceiver_cross_attention.3.to_out.weight",
        "ingredients": "router.0.to_q.weight",
        "id_animator": "transformer_blocks.7.attn1.processor.to_v_face.weight",
    }
    assert expected[name] in moved
    assert bool(frozen) == (name == "id_animator")
    network.zero_grad()


def test_the_masked_loss_counts_heads_alone():
    family = family_named("consisid")
    target = torch.zeros(2, 1, 3, 4, 4)
    output = target.clone()
    output[:, :, :, 0, 0] = 2.0
    heads = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    heads[0, 0, 0, :2] = 1
    batch = Batch(*[target] * 5, people=heads, heads_alone=torch.ones(2))
    # 4 at one of two latents; a row without a head keeps the whole picture: 1 of 16.
    assert family.loss(output, target, batch).tolist() == pytest.approx([2.0, 0.25])
    off = Batch(*[target] * 5, people=heads, heads_alone=torch.zeros(2))
    assert family.loss(output, target, off).tolist() == pytest.approx([0.25, 0.25])


def test_rows_carry_latents_and_tokens():
    latents = torch.randn(2, 3, 16, 16, 24)
    known = face_tower.sizes()
    features = torch.randn(2, 3, known.total)
    rows = face_tower.pack(latents, features)
    assert rows.shape == (2, 3, 1, 1, latents[0, 0].numel() + known.total)
    found = face_tower.unpack(rows, latents.shape[2:])
    assert torch.equal(found.latents, latents)
    assert torch.equal(found.pooled, features[..., : known.pooled])
    assert [tuple(h.shape) for h in found.hidden] == [(2, 3, known.tokens, known.width)] * 2


def test_two_references_share_one_frame():
    latents = torch.arange(2.0)[None, :, None, None, None].expand(1, 2, 16, 16, 24) + 1
    frame = side_by_side(latents)
    assert (frame[..., :12] == 1).all() and (frame[..., 12:] == 2).all()


def test_every_system_for_one_person_sees_the_same_batches():
    """All that draws batches is equal; only network, entry and description differ."""
    own = ("network", "entry", "name", "description", "learning_rate")
    contents = {
        name: {k: v for k, v in load_recipe(name)[1].items() if k not in own}
        for name in ("equal_concat_id", "consisid", "id_animator")
    }
    assert contents["consisid"] == contents["equal_concat_id"] == contents["id_animator"]
    two = {
        name: {k: v for k, v in load_recipe(name)[1].items() if k not in own}
        for name in ("multi_scratch", "ingredients")
    }
    assert two["ingredients"] == two["multi_scratch"]


def test_a_difference_may_have_new_tensors():
    """New and grown tensors are whole, what did not change is not stored."""
    parent = {"kept": torch.randn(8, 64), "moved": torch.randn(8, 64), "grown": torch.randn(4, 3)}
    child = {**parent, "moved": parent["moved"] + 0.1, "grown": torch.randn(4, 6).half().float(),
             "new": torch.randn(5, 5).half().float()}
    packed = deltas.pack(child, parent)
    assert not [key for key in packed if key.startswith("kept")]
    found = deltas.unpack(packed, parent)
    assert found.keys() == child.keys()
    for name in ("kept", "grown", "new"):
        assert torch.equal(found[name], child[name])
    assert torch.allclose(found["moved"], child["moved"], atol=0.01)


def test_the_tower_reads_pictures():
    pictures = np.random.default_rng(0).integers(0, 255, (2, 64, 96, 3), dtype=np.uint8)
    found = face_tower.FaceTower().encode(pictures)
    assert found.shape == (2, face_tower.sizes().total)
    assert not torch.equal(found[0], found[1])
