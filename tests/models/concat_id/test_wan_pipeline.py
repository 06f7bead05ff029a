"""Sampling in Wan's form: each sample alone, both branches, the schedule, saving and loading."""

from __future__ import annotations

import pytest
import torch

from idbench.errors import UserError
from idbench.models.concat_id.pipeline import ConcatIDWanPipeline

SIZE = {"steps": 3, "guidance": 2.0, "frames": 5, "height": 32, "width": 48}


def generate(pipeline, prompts, seeds, references=None, **settings):
    return pipeline(prompts, references, seeds, **{**SIZE, **settings})


def images(samples, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(samples, count, 3, 32, 48, generator=generator) * 2 - 1


def test_a_sample_does_not_depend_on_its_batch(wan_pipeline):
    faces, prompts = images(3, 2), ["a person", "a person smiles", "smiles"]
    together = generate(wan_pipeline, prompts, [5, 6, 7], faces)
    assert together.shape == (3, 3, 5, 32, 48)
    for i in range(3):
        alone = generate(wan_pipeline, prompts[i : i + 1], [5 + i], faces[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-3)
    assert (together[0] - together[1]).abs().max() > 0.01


def test_seed_and_references_change_the_video(wan_pipeline):
    first = generate(wan_pipeline, ["a person"], [1], images(1, 1))
    assert torch.equal(first, generate(wan_pipeline, ["a person"], [1], images(1, 1)))
    for other in (
        generate(wan_pipeline, ["a person"], [2], images(1, 1)),
        generate(wan_pipeline, ["a person"], [1], images(1, 1, seed=9)),
        generate(wan_pipeline, ["a person"], [1]),
        generate(wan_pipeline, ["smiles"], [1], images(1, 1)),
    ):
        assert (first - other).abs().max() > 1e-3


@pytest.mark.parametrize("negative", ["", None, "smiles"])
def test_references_stand_in_both_branches(wan_pipeline, monkeypatch, negative):
    seen = []
    transformer = wan_pipeline.transformer
    original = transformer.forward

    def spy(latents, time, text, references, **rest):
        seen.append((text, references))
        return original(latents, time, text, references, **rest)

    monkeypatch.setattr(transformer, "forward", spy)
    generate(wan_pipeline, ["a person"], [1], images(1, 2), negative=negative)
    text, references = seen[0]
    assert len(seen) == SIZE["steps"]
    assert references.shape == (2, 4, 2, 4, 6) and torch.equal(references[0], references[1])
    expected = torch.zeros_like(text[:1])
    if negative is not None:
        expected = wan_pipeline.encode_text([negative])
    assert torch.equal(text[:1], expected)
    assert torch.equal(text[1:], wan_pipeline.encode_text(["a person"]))
    assert not torch.equal(text[:1], text[1:])


def test_guidance_1_leaves_out_the_other_branch(wan_pipeline, monkeypatch):
    sizes = []
    transformer = wan_pipeline.transformer
    original = transformer.forward

    def spy(latents, *rest, **more):
        sizes.append(len(latents))
        return original(latents, *rest, **more)

    monkeypatch.setattr(transformer, "forward", spy)
    generate(wan_pipeline, ["a person"], [1], images(1, 1), guidance=1.0)
    assert sizes == [1, 1, 1]


def test_references_and_text_are_encoded_once(wan_pipeline, monkeypatch):
    calls = []
    for owner, name in ((wan_pipeline.vae, "encode"), (wan_pipeline.text_encoder, "forward")):
        original = getattr(owner, name)
        monkeypatch.setattr(
            owner, name,
            lambda *a, _o=original, _n=name, **k: (calls.append(_n), _o(*a, **k))[1],
        )
    generate(wan_pipeline, ["a person"], [1], images(1, 2), steps=4)
    assert calls.count("encode") == 1 and calls.count("forward") == 2


def test_latents_are_normalised_and_back(wan_pipeline):
    faces = images(2, 2)
    held = wan_pipeline.encode_references(faces)
    assert held.shape == (2, 2, 4, 4, 6)
    alone = wan_pipeline.encode_references(faces[1:, 1:])
    torch.testing.assert_close(held[1:, 1:], alone)
    raw = wan_pipeline.vae.encode(faces[:1, 0].unsqueeze(2)).latent_dist.mode()
    config = wan_pipeline.vae.config
    for channel in range(4):
        expected = (raw[0, channel, 0] - config.latents_mean[channel]) / config.latents_std[channel]
        torch.testing.assert_close(held[0, 0, channel], expected)


def test_saved_and_loaded_pipelines_agree(wan_pipeline, tmp_path):
    before = generate(wan_pipeline, ["a person smiles."], [4], images(1, 1))
    wan_pipeline.save_pretrained(tmp_path)
    assert (tmp_path / "transformer" / "diffusion_pytorch_model.safetensors").exists()
    loaded = ConcatIDWanPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert loaded.config.text_tokens == 32
    assert torch.equal(generate(loaded, ["a person smiles."], [4], images(1, 1)), before)


def test_slicing_changes_nothing_and_tiling_little(wan_pipeline):
    prompts, seeds = ["a person", "smiles"], [1, 2]
    before = generate(wan_pipeline, prompts, seeds)
    wan_pipeline.enable_vae_slicing()
    torch.testing.assert_close(generate(wan_pipeline, prompts, seeds), before, rtol=0, atol=1e-4)
    wan_pipeline.disable_vae_slicing()
    wan_pipeline.enable_vae_tiling()
    assert generate(wan_pipeline, prompts, seeds).shape == before.shape
    wan_pipeline.disable_vae_tiling()
    assert torch.equal(generate(wan_pipeline, prompts, seeds), before)


def test_bfloat16_networks_give_nearly_the_same_video(wan_pipeline):
    before = generate(wan_pipeline, ["a person"], [1], images(1, 1), guidance=1.0)
    wan_pipeline.transformer.to(torch.bfloat16)
    wan_pipeline.text_encoder.to(torch.bfloat16)
    after = generate(wan_pipeline, ["a person"], [1], images(1, 1), guidance=1.0)
    assert after.dtype == torch.float32
    assert not torch.equal(after, before)
    assert (after - before).abs().mean() < 0.1 * before.std()


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"frames": 10}, "Frames must be 4k \\+ 1, not 10; try 9"),
     ({"height": 40}, "multiples of 16, not 40x48"), ({"steps": 0}, "steps must be at least 1"),
     ({"references": torch.zeros(1, 4, 3, 32, 48)}, "at most 3 references"),
     ({"references": torch.zeros(1, 1, 3, 48, 32)}, "prepare them")],
)
def test_impossible_requests_are_refused_in_one_sentence(wan_pipeline, settings, words):
    with pytest.raises(UserError, match=words):
        generate(wan_pipeline, ["a person"], [1], **settings)


def test_the_defaults_are_the_papers():
    import inspect

    given = inspect.signature(ConcatIDWanPipeline.__call__).parameters
    defaults = {name: given[name].default for name in ("steps", "guidance", "frames")}
    assert defaults == {"steps": 50, "guidance": 5.0, "frames": 81}
    assert (given["height"].default, given["width"].default) == (480, 832)
