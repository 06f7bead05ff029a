"""Ingredients: its inventory, its routing against a plain form, and its folder to a video."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tiny_consisid import PACK, RELEASED, SIZE, SMALL, make_folder, run_of, world_of_faces

from idbench.baselines.ingredients import Ingredients, side_by_side
from idbench.baselines.routing import (
    IngredientsTransformer3DModel,
    collect_logits,
    routing_loss,
)
from idbench.video import read_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """As released: the config names ConsisID's class and keys of an earlier layout."""
    made = make_folder(
        tmp_path_factory.mktemp("ingredients") / "Ingredients", IngredientsTransformer3DModel
    )
    for path, name in ((made / "transformer/config.json", "ConsisIDTransformer3DModel"),):
        config = json.loads(path.read_text())
        config.update(_class_name=name, LFE_heads=12, LFE_num_tokens=32, LFE_output_dim=768)
        path.write_text(json.dumps(config))
    index = json.loads((made / "model_index.json").read_text())
    index["transformer"] = ["diffusers", "ConsisIDTransformer3DModel"]
    (made / "model_index.json").write_text(json.dumps(index))
    return made


@pytest.fixture
def inputs():
    torch.manual_seed(0)
    return {
        "hidden_states": torch.randn(2, 3, 8, 4, 6), "encoder_hidden_states": torch.randn(2, 7, 20),
        "timestep": torch.tensor([5, 5]), "id_cond": torch.randn(1, 2, 536),
        "id_vit_hidden": [torch.randn(1, 2, 5, 64) for _ in range(5)], "return_dict": False,
    }


def network():
    torch.manual_seed(1)
    config = {**SMALL, "max_text_seq_length": 7, "use_learned_positional_embeddings": False,
              "use_rotary_positional_embeddings": False}
    return IngredientsTransformer3DModel(**config).eval()


def test_the_released_network_has_its_size():
    """ConsisID's 6,217,102,912 numbers and 21 routers of 10,496,032."""
    with torch.device("meta"):
        made = IngredientsTransformer3DModel(**RELEASED)
    shapes = {name: tuple(tensor.shape) for name, tensor in made.state_dict().items()}
    assert sum(np.prod(s, dtype=np.int64) for s in shapes.values()) == 6_437_519_584
    assert shapes["router.20.id_merge.weight"] == (1, 32)
    assert shapes["router.20.to_q.weight"] == (2048, 3072)
    assert shapes["router.20.to_kv.weight"] == (2048, 2048)
    assert not [name for name in shapes if "_router" in name]


def test_a_run_from_the_released_layout(folder, tmp_path):
    world = world_of_faces(tmp_path)
    done = world.run(*run_of("ingredients", folder, "multi", PACK, *SIZE))
    assert done.returncode == 0, done.stderr
    videos = sorted((tmp_path / "out").glob("samples/*/video.mp4"))
    assert len(videos) == 2
    assert read_video(videos[0]).frames.shape == (9, 32, 48, 3)
    torch.manual_seed(3)  # the video depends on the sample's seed alone
    again = [*run_of("ingredients", folder, "multi", PACK, *SIZE), "--limit", "1", "--out", "again"]
    assert world.run(*again).returncode == 0
    (same,) = (tmp_path / "again").glob("samples/*/video.mp4")
    assert same.read_bytes() in [video.read_bytes() for video in videos]
    done = world.run(*run_of("ingredients", folder, "single", PACK, *SIZE))
    assert done.returncode == 2
    assert "takes 2 people, not 1 (its routers tell two faces apart)" in (
        " ".join(done.stderr.split())
    )


def test_a_file_that_the_release_lacks_says_where_it_comes_from(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("IDBENCH_CACHE", str(tmp_path / "empty"))
    world = world_of_faces(tmp_path)
    done = world.run(*run_of("ingredients", folder, "multi", *SIZE))
    assert done.returncode == 2
    assert "facexlib-detection is not on this machine; run `idbench weights get facexlib" in (
        " ".join(done.stderr.split())
    )


def test_routing_is_the_published_sum(inputs):
    """sum_k softmax_k(q . key_k) x attention to face k, after every second block."""
    made = network()
    attention, router = made.perceiver_cross_attention[0], made.router[0]
    faces, hidden = torch.randn(1, 2, 4, 64), torch.randn(1, 11, 96)
    with torch.no_grad():
        found = attention(faces, hidden)
        keys = torch.stack([
            router.to_kv(router.id_merge(router.norm1(faces[0, k]).T)[:, 0]) for k in range(2)
        ])
        weights = (router.to_q(router.norm2(hidden[0])) @ keys.T).softmax(-1)
        plain = super(type(attention), attention).forward
        each = torch.stack([plain(faces[:, k], hidden)[0] for k in range(2)], -1)
        wanted = (each * weights[:, None]).sum(-1)
    assert torch.allclose(found[0], wanted, atol=1e-6)


def test_only_the_negative_branch_is_routed_as_released(inputs):
    """With one row of faces, the second row's tokens do not reach the routers; with two they do."""
    made = network()
    other = {**inputs, "hidden_states": inputs["hidden_states"].clone()}
    other["hidden_states"][1] += 1
    both = {"id_cond": inputs["id_cond"].repeat(2, 1, 1),
            "id_vit_hidden": [h.repeat(2, 1, 1, 1) for h in inputs["id_vit_hidden"]]}
    with torch.no_grad(), collect_logits() as before:
        made(**inputs)
    with torch.no_grad(), collect_logits() as after:
        made(**other)
    assert before[0].shape == (1, 18, 2)
    assert torch.equal(before[0], after[0])
    with torch.no_grad(), collect_logits() as routed:
        made(**{**other, **both})
    assert routed[0].shape == (2, 18, 2) and torch.allclose(routed[0][:1], before[0], atol=1e-6)


def test_the_setting_mends_the_branch(folder):
    settings = {"weights": str(folder), "face_crop": "pack", "height": 32, "width": 48}
    face = type("Face", (), {
        "vector": torch.zeros(1, 536), "hidden": [torch.zeros(1, 5, 64)] * 5,
        "crop": np.zeros((512, 512, 3), np.uint8),
    })
    assert Ingredients(**settings)._inputs([face, face])["id_cond"].shape == (1, 2, 536)
    mended = Ingredients(**settings, routed="both")._inputs([face, face])
    assert mended["id_cond"].shape == (2, 2, 536)
    assert mended["id_vit_hidden"][0].shape == (2, 2, 5, 64)


def test_the_loss_is_a_cross_entropy_without_background():
    logits = torch.randn(2, 5, 2)
    people = torch.tensor([[0, 1, -1, -1, 1], [-1, -1, -1, -1, -1]])
    shown = [0, 1, 4]
    wanted = -logits[0].log_softmax(-1)[shown, people[0, shown]].mean()
    found = routing_loss([logits, logits], people)
    assert found[0].item() == pytest.approx(wanted.item(), abs=1e-6)
    assert found[1] == 0


def test_two_crops_lie_side_by_side_on_white():
    crops = [np.full((512, 512, 3), value, np.uint8) for value in (10, 200)]
    canvas = side_by_side(crops, 480, 720)
    assert (canvas[:60] == 255).all() and (canvas[420:] == 255).all()
    assert (canvas[60:420, :360] == 10).all() and (canvas[60:420, 360:] == 200).all()
