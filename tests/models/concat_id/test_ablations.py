"""Ablations of how references enter at sampling: each changes what it says, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from idbench.errors import UserError
from idbench.models.concat_id import networks
from idbench.models.concat_id.conditioning import rotary_embedding
from idbench.models.concat_id.families import CogVideoX
from idbench.models.concat_id.generator import with_noise
from idbench.models.concat_id.model import REFERENCES, ConcatID
from idbench.types import Reference, Sample


def settings(value: str) -> dict[str, object]:
    return dict(ConcatID("multi", references=value).settings())


def test_the_usual_way_keeps_its_settings_and_every_other_has_its_own() -> None:
    assert "references" not in settings("given")
    assert {settings(v)["references"] for v in REFERENCES if v != "given"} == {
        v for v in REFERENCES if v != "given"}
    with pytest.raises(UserError, match="sees no references"):
        ConcatID("base", references="noisy")
    with pytest.raises(UserError, match="references is one of"):
        ConcatID("multi", references="left")


def test_shared_references_have_the_position_of_the_first() -> None:
    transformer = networks.build_transformer({
        "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 1, "in_channels": 4,
        "out_channels": 4, "time_embed_dim": 16, "text_embed_dim": 20, "sample_height": 8,
        "sample_width": 12, "sample_frames": 9,
    })
    usual, shared = (
        rotary_embedding(transformer, 3, 2, 4, 6, shared=shared) for shared in (False, True)
    )
    assert usual is not None and shared is not None
    tokens = 2 * 3
    for before, after in zip(usual, shared, strict=True):
        assert torch.equal(before[: 4 * tokens], after[: 4 * tokens])  # video, first reference
        assert torch.equal(after[4 * tokens :], after[3 * tokens : 4 * tokens])
        assert not torch.equal(before[4 * tokens :], after[4 * tokens :])


@pytest.mark.parametrize("text_scale", [1.0, 3.0])
@pytest.mark.parametrize("reference_scale", [1.0, 2.0, 3.0])
def test_guidance_of_the_text_and_of_the_references(
    text_scale: float, reference_scale: float
) -> None:
    """A network whose velocity is 1, plus 10 with references, plus 100 with the text."""
    made = []
    sizes = []

    class Watched(CogVideoX):
        def step(self, scheduler, velocity, *others):
            made.append(float(velocity.mean()))
            return super().step(scheduler, velocity, *others)

    def network(latents, references, text, times):
        sizes.append(len(latents))
        added = 1 + 10 * references[:, :1, :1, :1, :1] + 100 * text[:, :1, :1, None, None]
        return added.expand_as(latents)

    Watched(networks.build_scheduler()).sample(
        network, [0], (3, 4, 4, 6), torch.ones(1, 5, 20), torch.ones(1, 2, 4, 4, 6), 2,
        text_scale, reference_guidance=reference_scale,
    )
    assert made == [1 + 10 * reference_scale + 100 * text_scale] * 2
    needed = {(1, 1): 1, (3, 1): 2, (3, 3): 2}.get((int(text_scale), int(reference_scale)), 3)
    assert sizes == [needed] * 2


def test_noise_is_that_of_training_and_follows_the_seed() -> None:
    images = torch.zeros(1, 3, 3, 32, 48)
    noisy = with_noise(images, 7)
    assert torch.equal(noisy, with_noise(images, 7))
    assert not torch.equal(noisy, with_noise(images, 8))
    levels = torch.cat([with_noise(images, s)[0].flatten(1).std(1).log() for s in range(60)])
    assert levels.mean() == pytest.approx(-3.0, abs=0.15)
    assert levels.std() == pytest.approx(0.5, abs=0.1)


def test_each_changes_the_video(tmp_path: Path) -> None:
    from PIL import Image

    picture = Image.new("RGB", (40, 40), (200, 120, 40))
    picture.paste((20, 60, 220), (10, 10, 30, 30))
    picture.save(tmp_path / "a.png")
    reference = Reference("garment", "a", tmp_path / "a.png")
    sample = Sample("s", "multi", "p", "A person smiles.", "c", (reference, reference), 7)
    model = ConcatID("multi", steps=1, frames=1, height=32, width=48, reference_guidance=2.0)
    frames = {}
    for model.references in REFERENCES:
        model.zeroed = model.references == "zeroed"
        frames[model.references] = next(iter(model.generate([sample]))).frames
    for value in REFERENCES:
        same = (frames[value] == frames["given"]).all()
        assert same == (value == "given"), value
