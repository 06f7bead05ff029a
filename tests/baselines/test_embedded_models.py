"""The embedded baselines as models: without `weights` a name means its embedded network."""

from __future__ import annotations

import shutil

import pytest
import torch
from PIL import Image

from idbench import embedded
from idbench.baselines.embedded_models import FaceFamily
from idbench.errors import UserError
from idbench.metrics.networks import dlib_resnet
from idbench.models.concat_id.families import family_named
from idbench.models.concat_id.training import loop
from idbench.models.concat_id.training.network import configuration
from idbench.models.concat_id.training.recipe import read_stage
from idbench.recipes import load_recipe
from idbench.registry import make_model
from idbench.suite import load_suite


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """The embedded weights, with an untrained network of each baseline among them."""
    for path in map(embedded.stored_path, embedded.entries()):
        (tmp_path / path.name).symlink_to(path)
    shutil.copyfile(embedded.weights_folder() / "manifest.json", tmp_path / "manifest.json")
    monkeypatch.setenv("IDBENCH_WEIGHTS", str(tmp_path))
    return tmp_path


def write(name):
    """An entry as a training writes it: new layers random, all else the base's."""
    recipe = read_stage({**load_recipe(name)[1], "name": name})
    family, config = configuration(recipe)
    kind: type[FaceFamily] = family_named(family)
    torch.manual_seed(0)
    network = kind.build(config)
    kind.load_base(network, embedded.load_state("transformer_base"))
    torch.manual_seed(1)
    state = {
        key: torch.randn_like(value) * 0.2
        if any(part in key for part in ("to_out.weight", "to_v_face")) else value
        for key, value in network.state_dict().items()
    }
    embedded.save_entry(
        name, state, recipe=name, seed=0, steps=1, config=config, measured={},
        parent="transformer_base",
    )
    return state


@pytest.mark.parametrize(("name", "split"), [
    ("consisid", "single"), ("id_animator", "single"), ("ingredients", "multi"),
])
def test_a_baseline_generates_from_its_entry(weights, name, split):
    embedded.stored_path(name).unlink(missing_ok=True)
    state = write(name)
    assert embedded.weight_path(name).stat().st_size <= 8_000_000
    model = make_model(name, {"steps": 1, "frames": 2})
    found = model.pipeline(name).transformer.state_dict()
    assert found.keys() == state.keys()
    samples = list(load_suite("avatars").samples(split, limit=2))
    assert not [s for s in samples if model.abilities.refusal(s)]
    (video,) = model.generate(samples[:1])
    assert video.frames.shape == (2, 64, 96, 3)
    zeroed = make_model(name, {"steps": 1, "frames": 2, "references": "zeroed"})
    (control,) = zeroed.generate(samples[:1])
    assert (video.frames != control.frames).any(), "the references change nothing"
    assert embedded.entry(name)["file"] in model.weight_hashes()
    assert "face_tower.safetensors" in model.weight_hashes()


@pytest.mark.parametrize("name", ["consisid", "id_animator", "ingredients"])
def test_the_weights_of_a_baseline_are_evaluated(weights, name, tmp_path, monkeypatch):
    """`idbench train NAME --evaluate`: on as many people as it was trained on."""
    write(name)
    monkeypatch.setattr(dlib_resnet, "installed", lambda: False)  # takes longest, and is the same
    content = {**load_recipe(name)[1], "name": name, "evaluation": {
        "identities": 2, "each": 1, "steps": 1}}
    measured = loop.train(content, tmp_path / "state", evaluate=True)
    assert measured["videos"] == 2 and measured["sampling_steps"] == 1
    assert measured["guidance"] == measured["reference_guidance"] == 2  # Concat-ID's are 5
    assert {"nearest_with", "nearest_without", "frames_with_face_with"} <= measured.keys()
    people = 2 if name == "ingredients" else 1
    pictures = Image.open(tmp_path / "state/evaluation.png")
    assert pictures.size == (2 * 96 * (people + 6), 2 * 64 * 2)  # references and three frames each
    assert embedded.entry(name)["measured"] == measured
    with pytest.raises(UserError, match=f"set entry={name}"):
        loop.train({**content, "entry": "vae"}, tmp_path / "state", evaluate=True)


def test_settings_of_both_forms_are_known():
    with pytest.raises(UserError, match="did you mean 'steps'"):
        make_model("consisid", {"stepz": 3})
    with pytest.raises(UserError, match="Unknown variant of consisid 'multi'"):
        make_model("consisid@multi")
