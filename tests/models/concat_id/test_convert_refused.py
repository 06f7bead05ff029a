"""Tensors, settings, targets, bases that the conversion refuses: one sentence, nothing written."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from released_shapes import random_state, sat_shapes, wan_shapes, write_sat
from safetensors.torch import save_file
from tiny_base import cogvideox_base, wan_base

from idbench.errors import UserError
from idbench.models.concat_id import convert_sat
from idbench.models.concat_id.checkpoint_layouts import layer_count
from idbench.models.concat_id.released_checkpoints import ASIDE, convert, read_released

QKV = "transformer.layers.0.attention.query_key_value.weight"
MODULATION = "mixins.adaln_layer.adaLN_modulations.0.1.weight"
BIAS = "time_embed.0.bias"


def refused(words, source, target, **options):
    with pytest.raises(UserError, match=words) as caught:
        convert(source, target, **options)
    assert "\n" not in str(caught.value)
    assert not target.exists() or target.is_dir() and not list(target.iterdir())
    assert not list(target.parent.glob(".*part*")) if target.parent.is_dir() else True


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return {"cogvideox": cogvideox_base(folder / "c")[0], "wan": wan_base(folder / "w")[0]}


@pytest.fixture
def changed(bases, tmp_path):
    """A copy of a base, some JSON file of it changed."""

    def build(kind, file, change):
        folder = shutil.copytree(bases[kind], tmp_path / "base")
        content = json.loads((folder / file).read_text())
        content = {**content, **change} if isinstance(change, dict) else change
        (folder / file).write_text(json.dumps(content))
        return folder

    return build


@pytest.mark.parametrize(("name", "tensor", "words"), [
    (QKV, torch.zeros(4), "has shape .4,., which does not split into 3 tensors"),
    (QKV, torch.zeros(()), "has shape .., which does not split into 3 tensors"),
    (MODULATION, torch.zeros(3), "does not split into 2 tensors"),
    (BIAS, torch.zeros(24, dtype=torch.int8), "not a dense floating-point tensor .int8"),
    (BIAS, torch.zeros(24).to_sparse(), "not a dense .*sparse_coo"),
    ("mixins.adaln_layer.query_layernorm_list.0.weight", torch.zeros(0), "belongs to another base"),
    ("transformer.layers.².x", torch.zeros(1), "holds 1 tensor .transformer.layers.²"),
])
def test_a_tensor_of_another_kind(name, tensor, words, tmp_path):
    state = random_state(sat_shapes()) | {convert_sat.PREFIX + name: tensor}
    torch.save({"module": state}, tmp_path / "bad.pt")
    refused(words, tmp_path / "bad.pt", tmp_path / "ours")


def test_a_wan_of_no_width(tmp_path):
    state = random_state(wan_shapes(True)) | {"patch_embedding.weight": torch.zeros(0, 4, 1, 2, 2)}
    torch.save(state, tmp_path / "bad.pt")
    refused("does not have the settings of a ConcatIDWan", tmp_path / "bad.pt", tmp_path / "ours")


def test_layers_are_counted_up_to_the_first_that_is_missing():
    """A name with a large number costs nothing."""
    names = ["a.0.x", "a.1.x", "a.1.y", "a.3.x", "a.999999999999.x", "b.2.x"]
    assert layer_count(names, "a.") == 2 and layer_count(names, "c.") == 0


@pytest.mark.parametrize(("kind", "change", "words"), [
    ("cogvideox", [], "is not a JSON object"),
    ("cogvideox", {"num_layers": "two"}, "not have the settings of a CogVideoXTransformer3D"),
    ("cogvideox", {"activation_fn": "none"}, "not have the settings of a CogVideoXTransformer3D"),
    ("cogvideox", {"norm_eps": 0.1}, "has norm_eps 0.1, but the released code uses 1e-05"),
    ("wan", {"image_dim": 8, "added_kv_proj_dim": 128}, "text-to-video Wan, not on image-to-video"),
    ("wan", {"num_attention_heads": 2, "attention_head_dim": 64}, "attention_head_dim 64"),
    ("wan", {"eps": 0.1}, "has eps 0.1"),
])
def test_a_folder_with_other_settings(kind, change, words, changed, tmp_path):
    folder = changed(kind, "transformer/config.json", change)
    refused(words, folder, tmp_path / "back.pt")


@pytest.mark.parametrize("target", ["file/inside", "file/inside.pt"])
def test_a_target_in_a_file(target, bases, tmp_path):
    (tmp_path / "file").write_text("mine")
    refused("is a file, not a folder", bases["cogvideox"], tmp_path / target)


def test_a_folder_in_the_place_of_a_file(bases, tmp_path):
    (tmp_path / "back.pt").mkdir()
    refused("is a folder; remove it", bases["cogvideox"], tmp_path / "back.pt")


@pytest.mark.parametrize(("file", "change", "words"), [
    ("model_index.json", [], "is not a JSON object"),
    ("model_index.json", {"vae": None}, "lacks vae"),
    ("model_index.json", {"vae": ["diffusers"]}, "lacks vae"),
    ("model_index.json", {"text_encoder": [None, None]}, "lacks text_encoder"),
    ("vae/config.json", [], "is not a JSON object"),
])
def test_a_damaged_base(file, change, words, changed, tmp_path):
    source = write_sat(tmp_path / "sat", random_state(sat_shapes()))
    base = changed("cogvideox", file, change)
    refused(words, source, tmp_path / "ours", base=base)


def test_a_base_whose_links_lead_nowhere(bases, tmp_path):
    """As in a hub's cache of which files were removed."""
    source = write_sat(tmp_path / "sat", random_state(sat_shapes()))
    base = shutil.copytree(bases["cogvideox"], tmp_path / "base")
    weights = base / "vae" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    weights.symlink_to(tmp_path / "gone")
    refused("is a broken link", source, tmp_path / "ours", base=base)


def test_what_is_kept_aside_comes_back_from_the_transformers_folder_too(tmp_path):
    source = write_sat(tmp_path / "sat", random_state(sat_shapes()))
    convert(source, tmp_path / "ours")
    convert(tmp_path / "ours" / "transformer", tmp_path / "back.pt")
    back = read_released(tmp_path / "back.pt").state
    assert back.keys() == read_released(source).state.keys()
    stranger = {"transformer.final_layernorm.weight": torch.zeros(32)}
    save_file(stranger, tmp_path / "ours" / ASIDE)
    refused("holds 1 tensor", tmp_path / "ours", tmp_path / "again.pt")
