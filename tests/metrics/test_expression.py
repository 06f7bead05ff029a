"""The reader of expressions: its recipe, its weights in the manifest, and what it says of crops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from idbench import embedded
from idbench.errors import UserError
from idbench.metrics.networks.expression_reader import crops_to_grey, embedded_reader
from idbench.metrics.training.expression_recognition import measure, rendered
from idbench.prompts.avatars.scene import EXPRESSIONS
from idbench.recipes import load_recipe, load_trainer

ACCURACY = 0.8
DATA = {"split": "training", "seed": 1, "identities": 3, "scenes": 3, "frames": 1, "looks": True}


@pytest.fixture
def fresh():
    """The embedded reader is built anew before and after the test."""
    embedded_reader.cache_clear()
    yield
    embedded_reader.cache_clear()


def test_the_embedded_reader_reads_new_people_as_often_as_the_manifest_says():
    crops, labels = rendered(20, 1, 0.04)
    measured = measure(embedded_reader()(crops), labels)
    known = embedded.entry("expression")["measured"]
    assert known["accuracy"] >= ACCURACY and known["crops"] == 600
    # 40 crops of the 600: three standard deviations of a share of so many.
    assert measured["accuracy"] == pytest.approx(known["accuracy"], abs=0.24)
    assert embedded.weight_path("expression").stat().st_size < 1e6


def test_the_recipe_trains_writes_and_measures(tmp_path, monkeypatch, fresh):
    _, recipe = load_recipe("expression")
    assert recipe["entry"] == recipe["name"] == "expression"
    assert recipe["data"]["split"] == "training"
    tiny = {**recipe, "data": DATA, "steps": 2, "batch": 4, "copies": 1, "warmup": 1,
            "validation": {"clips": 4, "seed": 1, "landmark_noise": 0.04}}
    monkeypatch.setenv("IDBENCH_WEIGHTS", str(tmp_path))
    train = load_trainer("expression", recipe)
    measured = train(tiny, tmp_path / "state" / "expression", False, False)
    entry = embedded.entry("expression")
    assert entry["measured"] == measured and entry["recipe"] == "expression"
    assert entry["config"]["classes"] == list(EXPRESSIONS)
    before = entry["sha256"]
    again = train(tiny, tmp_path / "state" / "expression", False, True)
    # Stored at half precision, a crop near a border may be read otherwise.
    assert again["crops"] == 8 and again["accuracy"] == pytest.approx(measured["accuracy"], abs=0.3)
    assert embedded.entry("expression")["sha256"] == before


def test_the_reader_sees_no_exposure_and_no_skin_colour():
    patches = np.random.default_rng(0).integers(10, 120, (14, 14, 3))
    crop = np.kron(patches, np.ones((8, 8, 1), int)).astype(np.uint8)[None]
    np.testing.assert_allclose(
        crops_to_grey(crop, 64).numpy(), crops_to_grey(2 * crop, 64).numpy(), atol=0.03
    )


def test_weights_of_another_network_are_refused(tmp_path, monkeypatch, fresh):
    state = {"weight": torch.zeros(1764, 8), "bias": torch.zeros(8)}
    monkeypatch.setenv("IDBENCH_WEIGHTS", str(tmp_path))
    embedded.save_entry(
        "expression", state, recipe="expression", seed=0, steps=1, measured={}, half=False,
        config={"cell": 16, "classes": list(EXPRESSIONS)},
    )
    with pytest.raises(UserError, match="idbench train expression"):
        embedded_reader()
