"""Model folders that would run, but not as what they are; settings that would be left unread."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_base import cogvideox_base, wan_base

from idbench.errors import UserError
from idbench.models.concat_id.model import ConcatID
from idbench.models.concat_id.model_folder import defaults_of, open_folder
from idbench.types import Reference, Sample

TINY = {"steps": 2, "frames": 5, "height": 32, "width": 48, "device": "cpu"}
WEIGHTS = {
    "transformer": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors", "text_encoder": "model.safetensors",
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return {"cogvideox": cogvideox_base(folder / "c")[0], "wan": wan_base(folder / "w")[0]}


@pytest.fixture(params=["cogvideox", "wan"])
def folder(request, bases, tmp_path):
    return shutil.copytree(bases[request.param], tmp_path / request.param)


def refused(folder, words, **options):
    with pytest.raises(UserError, match=words) as caught:
        open_folder(folder, **{"device": "cpu", **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", WEIGHTS)
def test_a_network_that_lacks_a_tensor_is_not_filled_at_random(folder, part):
    path = folder / part / WEIGHTS[part]
    state = load_file(path)
    name = sorted(state)[len(state) // 2]
    del state[name]
    save_file(state, path, metadata={"format": "pt"})
    refused(folder, f"{part} lacks 1 tensor .{name}")


def test_a_whole_network_opens_from_shards_too(folder):
    pipeline = open_folder(folder, device="cpu", bfloat16=False)
    shutil.rmtree(folder / "transformer")
    pipeline.transformer.save_pretrained(folder / "transformer", max_shard_size="20KB")
    assert len(list((folder / "transformer").glob("*.safetensors"))) > 1
    open_folder(folder, device="cpu")


def test_weights_of_references_are_not_left_out(bases, tmp_path):
    """AdaLN weights beside the configuration of the plain form."""
    folder = shutil.copytree(bases["wan"], tmp_path / "wan")
    place = folder / "transformer"
    state = load_file(place / WEIGHTS["transformer"])
    state["reference_time_proj.bias"] = state["condition_embedder.time_proj.bias"].clone()
    save_file(state, place / WEIGHTS["transformer"], metadata={"format": "pt"})
    refused(folder, "transformer contains 1 tensor .reference_time_proj.bias")


def index_with(folder, **changes):
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_base_of_two_transformers_is_refused(folder):
    """Wan2.2 has one for much noise and one for little; Wan2.1's folders may name none."""
    index_with(folder, transformer_2=[None, None], boundary_ratio=None)
    defaults_of(folder)
    index_with(folder, transformer_2=["diffusers", "WanTransformer3DModel"], boundary_ratio=0.875)
    with pytest.raises(UserError, match="generates videos with transformer_2 too"):
        defaults_of(folder)


@pytest.mark.parametrize("entry", [[], None, [None, None], "x"])
def test_a_part_that_the_index_does_not_name_is_lacking(folder, entry):
    index_with(folder, transformer=entry)
    refused(folder, "lacks transformer")


@pytest.mark.parametrize("options", [
    {"device": "gpu", "offload": "model"}, {"device": "cuda:99", "offload": "model"},
    {"device": "gpu"}, {"device": "meta"}, {"device": 1.5},
])
def test_a_device_that_is_not_here_is_said_before_loading(folder, options, monkeypatch):
    from idbench.models.concat_id import model_folder as module

    monkeypatch.setattr(module, "_load", lambda *_: pytest.fail("loaded"))
    refused(folder, "cannot be used", **options)


def test_the_index_is_among_the_files_that_matter(folder):
    """It tells how many tokens are read, and whether those behind the prompt's end are."""
    before = ConcatID(weights=str(folder), **TINY).weight_hashes()
    index_with(folder, text_tokens=9)
    after = ConcatID(weights=str(folder), **TINY).weight_hashes()
    assert {name for name in after if before[name] != after[name]} == {"model_index.json"}


@pytest.mark.parametrize("guidance", [float("nan"), float("inf")])
def test_guidance_that_would_give_black_videos_is_refused(folder, guidance):
    with pytest.raises(UserError, match="guidance and reference_guidance must be finite"):
        ConcatID(weights=str(folder), **TINY, guidance=guidance)


def test_wans_negative_prompt_is_the_releases(bases):
    assert ConcatID(weights=str(bases["wan"]), **TINY).settings()["negative"] == "..."
    assert ConcatID(weights=str(bases["wan"]), **TINY, negative="").settings()["negative"] == ""
    assert ConcatID(weights=str(bases["cogvideox"]), **TINY).settings()["negative"] == ""


def test_a_negative_prompt_is_wans_alone(bases):
    assert ConcatID(weights=str(bases["wan"]), **TINY, negative="blurry").negative == "blurry"
    assert ConcatID(weights=str(bases["cogvideox"]), **TINY, negative=None).negative is None
    with pytest.raises(UserError, match="negative belongs to Wan's form"):
        ConcatID(weights=str(bases["cogvideox"]), **TINY, negative="blurry")


def test_too_many_steps_are_said_before_the_first_sample(bases):
    with pytest.raises(UserError, match="At most 1000 steps"):
        ConcatID(weights=str(bases["cogvideox"]), **{**TINY, "steps": 1001}).load()
    with pytest.raises(UserError, match="At most 1000 steps"):
        ConcatID(steps=1001).load()


def test_a_note_on_a_face_is_not_one_on_the_same_picture_as_a_place(bases, tmp_path):
    Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(tmp_path / "meadow.png")
    references = tuple(
        Reference(kind, kind, tmp_path / "meadow.png") for kind in ("face", "background")
    )
    sample = Sample("s", "background", "p", "a person", "c", references, 7)
    (video,) = ConcatID(weights=str(bases["cogvideox"]), **TINY).generate([sample])
    assert video.notes == ("reference face: no face found: whole image used",)
