"""The folder that a training leaves: complete where its parts are known, and honest where not."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_base import cogvideox_base, wan_base
from tiny_stage import make_cache, recipe

from idbench.errors import UserError
from idbench.models.concat_id import networks
from idbench.models.concat_id.model import ConcatID
from idbench.models.concat_id.model_folder import open_folder
from idbench.models.concat_id.training import loop, network
from idbench.models.concat_id.training.recipe import read_stage
from idbench.types import Reference, Sample

pytestmark = pytest.mark.usefixtures("one_thread")


def video_of(folder, tmp_path, **more) -> np.ndarray:
    Image.new("RGB", (40, 40), (200, 30, 90)).save(tmp_path / "cloth.png")
    reference = Reference("garment", "cloth", tmp_path / "cloth.png")
    sample = Sample("s", "tryon", "p", "a person smiles", "c", (reference,), 7)
    settings = {"steps": 2, "frames": 5, "height": 32, "width": 48, "device": "cpu", **more}
    (video,) = ConcatID(weights=str(folder), **settings).generate([sample])
    return video.frames


def test_wan_with_its_own_modulation_trains_from_the_plain_base_to_a_video(tmp_path):
    base, _ = wan_base(tmp_path / "base")
    cache = make_cache(
        tmp_path / "cache", references=1, latents=(2, 4, 4, 6), text=(512, 20)
    )
    content = recipe(
        cache, network="init", init=str(base), reference_adaln=True, frames=5, height=16, width=24,
        references=1, steps=2, time_shift=3.0,
    )
    loop.train(content, tmp_path / "state")
    export = tmp_path / "state" / "export"
    pipeline = open_folder(export, device="cpu", bfloat16=False)
    assert pipeline.transformer.config.reference_adaln
    assert not pipeline.transformer.config.reference_ffn_quirk  # of the release alone
    assert pipeline.scheduler.config.shift == 3.0
    assert video_of(export, tmp_path).shape == (5, 32, 48, 3)


def test_an_export_with_the_embedded_parts_reads_text_as_they_do(tmp_path, monkeypatch):
    """Their text has 32 tokens and hides what stands behind a prompt's end."""
    tokenizer = networks.build_tokenizer(["a", "person", "smiles", "."])
    torch.manual_seed(0)
    text = networks.TextEncoder(tokenizer, networks.build_text_encoder({
        "vocab_size": len(tokenizer), "d_model": 12, "num_layers": 1, "num_heads": 2, "d_kv": 6,
        "d_ff": 16,
    }).eval())
    vae = open_folder(cogvideox_base(tmp_path / "base")[0], device="cpu", bfloat16=False).vae
    monkeypatch.setattr(networks, "load_text_encoder", lambda: text)
    monkeypatch.setattr(networks, "load_vae", lambda: vae)
    cache = make_cache(tmp_path / "cache", text=(32, 12))
    loop.train(recipe(cache, components="embedded", steps=1), tmp_path / "state")
    export = tmp_path / "state" / "export"
    pipeline = open_folder(export, device="cpu", bfloat16=False)
    torch.testing.assert_close(pipeline.encode_text(["a person"]), text(["a person"]))
    assert video_of(export, tmp_path).shape == (5, 32, 48, 3)


def test_a_transformer_alone_says_so(tmp_path):
    cache = make_cache(tmp_path / "cache")
    loop.train(recipe(cache, steps=1), tmp_path / "state")
    export = tmp_path / "state" / "export"
    said = json.loads((export / "training.json").read_text())
    assert said["lacks"] == "the recipe names neither components nor init"
    with pytest.raises(UserError, match="contains only a transformer .the recipe names neither"):
        ConcatID(weights=str(export))


def test_parts_of_another_base_do_not_cost_the_weights(tmp_path):
    """A week of training does not end in an error: the weights are kept, and why is said."""
    base, _ = cogvideox_base(tmp_path / "base")
    cache = make_cache(tmp_path / "cache")  # its text has another width than the base's
    loop.train(recipe(cache, components=str(base), steps=1), tmp_path / "state")
    export = tmp_path / "state" / "export"
    assert "does not fit the checkpoint" in json.loads(
        (export / "training.json").read_text()
    )["lacks"]
    assert (export / "transformer" / "diffusion_pytorch_model.safetensors").is_file()
    assert not (export / "model_index.json").exists()


def test_a_run_takes_its_size_and_its_references_from_the_training(tmp_path):
    base, _ = wan_base(tmp_path / "base")
    cache = make_cache(tmp_path / "cache", references=1, latents=(2, 4, 4, 6), text=(512, 20))
    said = json.loads((cache / "cache.json").read_text())
    (cache / "cache.json").write_text(json.dumps(
        {**said, "fps": 12.0, "alignment": "arcface", "parser": "none"}
    ))
    content = recipe(cache, network="init", init=str(base), frames=5, height=16, width=24,
                     references=1, steps=1)
    loop.train(content, tmp_path / "state")
    model = ConcatID(weights=str(tmp_path / "state" / "export"))
    assert (model.frames, model.height, model.width, model.fps) == (5, 16, 24, 12.0)
    assert (model.pictures.alignment, model.pictures.parser) == ("arcface", "none")
    assert (model.steps, model.guidance) == (50, 5.0)  # of the base
    other = ConcatID(weights=str(tmp_path / "state" / "export"), frames=9, parser="embedded",
                     alignment="upright")
    chosen = other.pictures.parser, other.pictures.alignment
    assert (other.frames, *chosen) == (9, "embedded", "upright")
    with pytest.raises(UserError, match="contains a training; its model folder is .*export"):
        ConcatID(weights=str(tmp_path / "state"))


def test_adaln_training_starts_from_a_first_stage_without_it(tmp_path):
    base, _ = wan_base(tmp_path / "base")
    cache = make_cache(
        tmp_path / "cache", references=1, latents=(2, 4, 4, 6), text=(512, 20)
    )
    shared = {"network": "init", "frames": 5, "height": 16, "width": 24, "references": 1,
              "steps": 1, "clip": 0, "ema": 0}
    loop.train(recipe(cache, init=str(base), **shared), tmp_path / "first")
    first = tmp_path / "first" / "export"
    content = recipe(
        cache, init=str(first), reference_adaln=True, reference_ffn_quirk=True, **shared
    )
    begun = network.load(read_stage(content))
    assert begun.config.reference_adaln and begun.config.reference_ffn_quirk
    plain = network.load(read_stage(recipe(cache, init=str(first), **shared))).state_dict()
    state = begun.state_dict()
    assert all(torch.equal(state[name], value) for name, value in plain.items())
    assert torch.equal(state["blocks.0.reference_table"], state["blocks.0.scale_shift_table"])
    loop.train(content, tmp_path / "second")
    made = open_folder(tmp_path / "second" / "export", device="cpu", bfloat16=False).transformer
    assert made.config.reference_adaln and made.config.reference_ffn_quirk


def test_no_limit_of_the_gradient_is_no_limit(tmp_path):
    """0 would clip every gradient to nothing, were it taken as the largest norm."""
    cache = make_cache(tmp_path / "cache")
    rates = {"steps": 1, "ema": 0, "weight_decay": 0.0}
    ends = [
        loop.train(recipe(cache, clip=clip, **rates), tmp_path / str(clip)) and
        load_file(tmp_path / str(clip) / "export/transformer/diffusion_pytorch_model.safetensors")
        for clip in (0, 1e9)
    ]
    assert all(torch.equal(ends[0][name], value) for name, value in ends[1].items())
