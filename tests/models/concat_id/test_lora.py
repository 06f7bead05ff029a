"""LoRA by peft: what trains, what is written, and who can read it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import CogVideoXPipeline, CogVideoXTransformer3DModel
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_base import cogvideox_base
from tiny_stage import WAN, make_cache, recipe

from idbench.errors import UserError
from idbench.models.concat_id.model import ConcatID
from idbench.models.concat_id.training import adapters, loop, network, samples
from idbench.models.concat_id.training.plan import adapter_parameters
from idbench.models.concat_id.training.recipe import StageRecipe, read
from idbench.types import Reference, Sample

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return cogvideox_base(tmp_path_factory.mktemp("base") / "base")[0]


def stage(base: Path, cache: Path, **changes):
    """A stage of four steps on the base; alpha is not the rank, so that it shows when lost."""
    return recipe(cache, **{
        "network": "init", "init": str(base), "components": str(base), "frames": 5, "height": 32,
        "width": 48, "references": 1, "lora_rank": 4, "lora_alpha": 32.0, "steps": 4,
        "learning_rate": 0.02, "clip": 10.0, **changes,
    })


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(
        tmp_path_factory.mktemp("cache"), references=1, latents=(2, 4, 8, 12), text=(226, 20)
    )


@pytest.fixture(scope="module")
def trained(base, cache, tmp_path_factory):
    """The session of a finished training, and what its network gave before."""
    AcceleratorState._reset_state(True)
    folder = tmp_path_factory.mktemp("lora")
    made = read(StageRecipe, stage(base, cache))
    session = loop.Session(made, samples.Cache.open(cache), folder)
    before = {name: p.detach().clone() for name, p in session.network.named_parameters()}
    plain = output(network.load(made))
    session.run()
    return session, before, plain


def output(transformer) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    transformer.eval()
    with torch.no_grad():
        return network.Denoiser(transformer)(
            normal(1, 2, 4, 8, 12), normal(1, 1, 4, 8, 12), normal(1, 226, 20), torch.tensor([300])
        )


def test_the_adapters_train_and_the_network_is_frozen(trained):
    session, before, _ = trained
    live = [n for n, p in session.network.named_parameters() if p.requires_grad]
    plain = network.load(session.recipe)
    planned = adapter_parameters(plain, session.recipe)
    assert sum(before[name].numel() for name in live) == planned
    groups = [group for made in session.optimisers for group in made.param_groups]
    assert sum(v.numel() for group in groups for v in group["params"]) == planned
    moved = {
        name for name, p in session.network.named_parameters()
        if not torch.equal(p.detach(), before[name])
    }
    assert moved == set(live) and all("lora_" in name for name in moved)


def averaged(session) -> torch.Tensor:
    with session.averaged():
        return output(session.accelerator.unwrap_model(session.network).transformer)


def test_diffusers_reads_the_export(trained, base):
    session, _, plain = trained
    folder = session.state_dir / "export"
    expected = averaged(session)
    assert (expected - plain).abs().max() > 0.01
    loaded = CogVideoXTransformer3DModel.from_pretrained(folder / "transformer")
    assert torch.equal(output(loaded), plain)  # the frozen weights are the base's
    adapters.load(loaded, folder)
    torch.testing.assert_close(output(loaded), expected)
    pipeline = CogVideoXPipeline.from_pretrained(base)
    pipeline.load_lora_weights(folder)
    torch.testing.assert_close(output(pipeline.transformer), expected)
    with safe_open(folder / adapters.FILE, framework="pt") as file:
        assert json.loads(file.metadata()["lora_adapter_metadata"])["transformer.lora_alpha"] == 32
        assert all(name.startswith("transformer.") and "lora_" in name for name in file.keys())


def test_a_next_stage_starts_from_network_and_adapters_together(trained, base, cache):
    session, _, _ = trained
    content = stage(base, cache, init=str(session.state_dir / "export"), lora_rank=0)
    merged = network.load(read(StageRecipe, content))
    assert not any("lora" in name for name, _ in merged.named_parameters())
    torch.testing.assert_close(output(merged), averaged(session), rtol=1e-4, atol=1e-5)


def test_a_released_file_holds_network_and_adapters_together(trained, tmp_path):
    from idbench.models.concat_id import convert_sat
    from idbench.models.concat_id.released_checkpoints import convert

    session, _, _ = trained
    export = session.state_dir / "export"
    for number, source in enumerate((export, export / "transformer")):
        report = convert(source, tmp_path / f"{number}.pt")
        with safe_open(export / adapters.FILE, framework="pt") as file:
            plain = CogVideoXTransformer3DModel.from_pretrained(export / "transformer")
            assert report.mapped == len(plain.state_dict()) + len(file.keys())
        released = torch.load(tmp_path / f"{number}.pt", weights_only=True)["module"]
        network, _, _ = convert_sat.sort(released)
        plain.load_state_dict(convert_sat.from_released(network))
        torch.testing.assert_close(output(plain), averaged(session), rtol=1e-4, atol=1e-5)


def test_videos_are_made_with_the_adapters(trained, base, tmp_path):
    session, _, _ = trained
    pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "cloth.png")
    reference = Reference("garment", "cloth", tmp_path / "cloth.png")
    sample = Sample("s", "tryon", "p", "a person smiles", "c", (reference,), 7)
    videos, hashes = [], []
    for folder in (base, session.state_dir / "export"):
        model = ConcatID(
            weights=str(folder), steps=2, frames=5, height=32, width=48, device="cpu",
            bfloat16=False,
        )
        videos.append(next(iter(model.generate([sample]))).frames.astype(int))
        hashes.append(model.weight_hashes())
    assert np.abs(videos[0] - videos[1]).max() > 0
    assert adapters.FILE in hashes[1] and adapters.FILE not in hashes[0]


def test_wan_trains_adapters_too(tmp_path):
    cache = make_cache(tmp_path / "cache")
    loop.train(recipe(cache, network=WAN, lora_rank=2, steps=1), tmp_path / "state")
    with safe_open(tmp_path / "state" / "export" / adapters.FILE, framework="pt") as file:
        assert any("attn2" in name for name in file.keys())


def test_without_peft_it_is_said(trained, base, cache, monkeypatch, tmp_path):
    session, _, _ = trained
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"LoRA needs the package peft; run pip install"):
        loop.train(stage(base, cache), tmp_path)
    with pytest.raises(UserError, match=r"contains LoRA adapters, which need the package peft"):
        adapters.load(network.load(session.recipe), session.state_dir / "export")


@pytest.mark.parametrize(("names", "words"), [
    (["transformer_blocks.0.attn1.to_q"], "contains 2 adapter tensors, 0 of them for this"),
    (["transformer.transformer_blocks.9.attn1.to_q"], "do not fit the network"),
    (["transformer.transformer_blocks.0.attn1.to_q", "transformer_blocks.0.attn1.to_k"],
     "contains 4 adapter tensors, 2 of them"),
    ([], "contains 0 adapter tensors"),
])
def test_adapters_of_another_network_are_not_passed_by(trained, base, tmp_path, names, words):
    session, _, _ = trained
    state = {"other": torch.zeros(1)}
    for name in names:
        state |= {f"{name}.lora_A.weight": torch.ones(2, 32), f"{name}.lora_B.weight":
                  torch.ones(32, 2)}
    save_file(state, tmp_path / adapters.FILE)
    plain = CogVideoXTransformer3DModel.from_pretrained(base / "transformer")
    with pytest.raises(UserError, match=words) as caught:
        adapters.load(plain, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", [{}, {"network": WAN}], ids=["cogvideox", "wan"])
def test_adapters_on_the_feed_forward_layers(tmp_path, family):
    cache = make_cache(tmp_path / "cache")
    made = read(StageRecipe, recipe(cache, lora_rank=2, lora_feed_forward=True, **family))
    transformer = network.build(made)
    planned = adapter_parameters(transformer, made)
    adapters.add(transformer, made)
    trained = {n: p.numel() for n, p in transformer.named_parameters() if p.requires_grad}
    assert sum(trained.values()) == planned
    assert sum(".net." in name for name in trained) == 2 * 2 * 2  # blocks, layers, matrices
