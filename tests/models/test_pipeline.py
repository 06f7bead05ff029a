"""Sampling: determinism of each sample, guidance, sizes, saving and loading."""

from __future__ import annotations

import pytest
import torch

from idbench.errors import UserError
from idbench.models.concat_id import networks
from idbench.models.concat_id.families import CogVideoX
from idbench.models.concat_id.pipeline import ConcatIDPipeline


@pytest.fixture
def pipeline(transformer, vae, text):
    made = ConcatIDPipeline(
        text.tokenizer, text.network, vae, transformer, networks.build_scheduler()
    )
    made.set_progress_bar_config(disable=True)
    return made


def generate(pipeline, prompts, seeds, references=None, **settings):
    return pipeline(
        prompts, references, seeds, steps=3, guidance=2.0, frames=9, height=16, width=24,
        **settings,
    )


def test_a_sample_does_not_depend_on_its_batch(pipeline):
    images = torch.rand(3, 2, 3, 16, 24) * 2 - 1
    prompts = ["a person", "a person smiles", "smiles"]
    together = generate(pipeline, prompts, [5, 6, 7], images)
    for i in range(3):
        alone = generate(pipeline, prompts[i : i + 1], [5 + i], images[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=2e-2)
    assert together.shape == (3, 3, 9, 16, 24)
    assert (together[0] - together[1]).abs().max() > 0.05


def test_the_same_seed_gives_the_same_video(pipeline):
    first = generate(pipeline, ["a person"], [1])
    assert torch.equal(first, generate(pipeline, ["a person"], [1]))
    assert not torch.equal(first, generate(pipeline, ["a person"], [2]))


def test_the_unconditional_branch_keeps_the_references_and_has_no_text(pipeline, monkeypatch):
    seen = []
    original = CogVideoX.predict

    def spy(transformer, latents, references, text, *rest):
        seen.append((references, text))
        return original(transformer, latents, references, text, *rest)

    monkeypatch.setattr(CogVideoX, "predict", staticmethod(spy))
    generate(pipeline, ["a person"], [1], torch.rand(1, 1, 3, 16, 24))
    references, text = seen[0]
    assert torch.equal(references[0], references[1])
    assert not text[0].any() and text[1].any()


def test_saved_and_loaded_pipelines_agree(pipeline, tmp_path):
    before = generate(pipeline, ["a person smiles."], [4])
    pipeline.save_pretrained(tmp_path)
    assert (tmp_path / "model_index.json").exists()
    assert (tmp_path / "transformer" / "diffusion_pytorch_model.safetensors").exists()
    loaded = ConcatIDPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert torch.equal(generate(loaded, ["a person smiles."], [4]), before)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"frames": 10}, "4k \\+ 1, not 10"), ({"height": 20}, "multiples of 8"),
     ({"seeds": [1, 2]}, "need one seed each")],
)
def test_impossible_sizes_are_refused_in_one_sentence(pipeline, settings, words):
    with pytest.raises(UserError, match=words):
        pipeline(["a person"], **{"seeds": [1], "height": 16, "width": 24, **settings})


def test_too_many_references_are_refused(pipeline):
    with pytest.raises(UserError, match="at most 3 references"):
        generate(pipeline, ["a person"], [1], torch.rand(1, 4, 3, 16, 24))


@pytest.mark.parametrize("shape", [(1, 3, 16, 24), (1, 1, 3, 16, 24), (2, 1, 4, 16, 24)])
def test_references_of_another_shape_are_refused(pipeline, shape):
    with pytest.raises(UserError, match="do not fit 2 prompts; give .prompts, references of each"):
        generate(pipeline, ["a person", "smiles"], [1, 2], torch.rand(shape))


def test_no_prompts_and_too_many_steps_are_refused(pipeline):
    with pytest.raises(UserError, match="1 or more prompts"):
        generate(pipeline, [], [])
    with pytest.raises(UserError, match="At most 1000 steps can be taken, not 1001"):
        pipeline(["a person"], seeds=[1], steps=1001, height=16, width=24)
