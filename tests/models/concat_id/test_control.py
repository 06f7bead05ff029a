"""`references=zeroed`: the same network without what the references show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_base import cogvideox_base, wan_base

from idbench import embedded
from idbench.errors import UserError
from idbench.models.concat_id import networks
from idbench.models.concat_id.generator import Generator
from idbench.models.concat_id.model import ConcatID
from idbench.models.concat_id.reference_pictures import ReferencePictures
from idbench.models.concat_id.training import evaluation
from idbench.models.concat_id.training.recipe import read_stage
from idbench.types import Reference, Sample


@pytest.fixture(params=["embedded", "cogvideox", "wan"])
def make(request, tmp_path, monkeypatch, transformer, vae, text):
    """Makes a model of the embedded kind, or of a folder, of tiny random networks."""
    if request.param == "embedded":
        monkeypatch.setattr(networks, "load_vae", lambda: vae)
        monkeypatch.setattr(networks, "load_text_encoder", lambda: text)
        monkeypatch.setattr(networks, "load_transformer", lambda name: transformer)
        # Without bfloat16, which is slow on processors that lack it.
        size = {"frames": 9, "height": 16, "width": 24, "bfloat16": False}
        return lambda variant=None, **more: ConcatID(variant, **{"steps": 2, **size, **more})
    folder, _ = (cogvideox_base if request.param == "cogvideox" else wan_base)(tmp_path / "base")
    size = {"frames": 5, "height": 32, "width": 48, "weights": str(folder), "device": "cpu"}
    return lambda variant=None, **more: ConcatID(variant, **{"steps": 2, **size, **more})


@pytest.fixture
def sample(tmp_path):
    def build(seed=0, count=1):
        pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), np.uint8)
        path = tmp_path / f"{seed}.png"
        Image.fromarray(pixels).save(path)
        # Garments: prepared without a network that looks for faces.
        return Sample("s", "tryon", "p", "a person smiles", "c",
                      (Reference("garment", str(seed), path),) * count, 7)

    return build


def frames(model, sample):
    return next(iter(model.generate([sample]))).frames


def test_what_the_references_show_does_not_matter_that_they_are_there_does(make, sample):
    zeroed = frames(make(references="zeroed"), sample(0))
    assert np.array_equal(zeroed, frames(make(references="zeroed"), sample(1)))
    assert not np.array_equal(zeroed, frames(make(), sample(0)))
    # Not the base network: the sequence is as long as with references.
    assert not np.array_equal(zeroed, frames(make("base"), sample(0)))
    assert not np.array_equal(zeroed, frames(make(references="zeroed"), sample(0, count=2)))


def test_every_pass_sees_zeros_at_the_places_of_the_references(make, sample, monkeypatch):
    model = make(references="zeroed")
    pipeline = model.pipeline("single")
    seen = []
    original = pipeline.transformer.forward

    def spy(*rest, **named):
        # Wan takes them on their own, CogVideoX at the end of the sequence.
        seen.append(rest[3] if len(rest) > 3 else named["hidden_states"][:, -2:])
        return original(*rest, **named)

    monkeypatch.setattr(pipeline.transformer, "forward", spy)
    frames(model, sample(0, count=2))
    assert len(seen) == 2 and not any(latents.any() for latents in seen)


def test_references_are_not_even_prepared(make, sample, monkeypatch):
    monkeypatch.setattr(ReferencePictures, "prepare", lambda *_: pytest.fail("prepared"))
    video = next(iter(make(references="zeroed").generate([sample(0)])))
    assert video.notes == ()


@pytest.mark.parametrize("make", ["embedded"], indirect=True)
def test_no_part_of_a_video_depends_on_the_number_of_threads(
    make, sample, monkeypatch, one_thread
):
    """Each works with one: a network's sums, and so a face that is just found, move with it."""
    threads = []
    for kind, name in ((ReferencePictures, "prepare"), (Generator, "_video")):
        original = getattr(kind, name)

        def spy(*arguments, original=original):
            threads.append(torch.get_num_threads())
            return original(*arguments)

        monkeypatch.setattr(kind, name, spy)
    torch.set_num_threads(2)  # the fixture of this folder restores it
    made = list(make(batch=2).generate([sample(0), sample(1), sample(2)]))
    assert len(made) == 3 and len(threads) >= 6 and set(threads) == {1}
    assert torch.get_num_threads() == 2


def test_runs_of_old_keep_their_identity_and_the_control_has_its_own(make):
    given = make().settings()
    assert make(references="given").settings() == given and "references" not in given
    assert make(references="zeroed").settings() == {**given, "references": "zeroed"}


@pytest.mark.parametrize("value", ["zero", "", None, 0])
def test_other_values_are_refused(value):
    with pytest.raises(UserError, match="references is one of given, zeroed, .*noisy, not"):
        ConcatID(references=value)


def test_the_base_has_no_references_to_zero():
    with pytest.raises(UserError, match="sees no references"):
        ConcatID("base", references="zeroed")


@pytest.mark.parametrize("make", ["embedded"], indirect=True)
def test_the_evaluation_of_a_recipe_has_the_same_control(make, sample, monkeypatch, tmp_path):
    """`idbench train single --evaluate` and `idbench run --set references=zeroed` agree."""
    videos, entry = {}, {"file": "f", "sha256": "0", "steps": 1}
    names = ("arcface", "curricularface", "clip", "viclip", "transformer_single", "face_parser")
    monkeypatch.setattr(embedded, "entries", lambda: {name: entry for name in names})
    monkeypatch.setattr(embedded, "entry", lambda name: entry)
    monkeypatch.setattr(embedded, "save_measured", lambda *_: None)
    monkeypatch.setattr(evaluation, "validation_samples", lambda *_, **__: [sample(0), sample(1)])
    monkeypatch.setattr(evaluation, "_score", lambda _, made, __: videos.update(made) or {})
    monkeypatch.setattr(evaluation, "_picture", lambda *_: None)
    monkeypatch.setattr(
        evaluation, "make_model", lambda name, chosen: make(name.partition("@")[2], **chosen))
    threads = torch.get_num_threads()
    recipe = read_stage({
        "name": "single", "trainer": "x", "entry": "transformer_single", "threads": threads,
        "groups": {"image_one": 1.0},
    })
    evaluation.evaluate_recipe(recipe, tmp_path)
    control = make("single", steps=20, references="zeroed")
    for number, made in enumerate(videos["without"]):
        assert np.array_equal(made.frames, frames(control, sample(number)))
    assert not np.array_equal(videos["with"][0].frames, videos["without"][0].frames)


def test_a_transformer_that_a_recipe_has_written_is_a_variant(monkeypatch):
    entries = {"transformer_multi": {}, "transformer_mine": {}, "vae": {}}
    three = Sample("i", "multi3", "p", "a prompt", "c", tuple(
        Reference("face", str(i), Path("x.png")) for i in range(3)), 0)
    assert ConcatID().variant_of(three) == "multi3"
    monkeypatch.setattr(embedded, "entries", lambda: entries)
    assert ConcatID("mine").variant == "mine"
    with pytest.raises(UserError, match="no variant 'multi4'; use one of base, .*, mine"):
        ConcatID("multi4")


def test_describing_the_model_imports_no_network() -> None:
    """So that a finished run is answered at once."""
    code = (
        "import sys; from idbench.models.concat_id.model import ConcatID; m = ConcatID('multi'); "
        "m.settings(), m.weight_hashes(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
