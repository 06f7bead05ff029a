"""The reader of expressions: its recipe, its weights in the manifest, and what it says of crops."""

from __future__ import annotations

import numpy as np
import pytest

from idbench import embedded
from idbench.errors import UserError
from idbench.metrics import expression
from idbench.metrics.training.expression import fit, measure, rendered
from idbench.prompts.avatars.scene import EXPRESSIONS, VALIDATION_IDENTITIES
from idbench.recipes import load_recipe, load_trainer


@pytest.fixture
def fresh():
    """Fitted weights are read anew before and after the test."""
    expression._fitted.cache_clear()
    yield
    expression._fitted.cache_clear()


def test_the_embedded_reader_reads_new_people_as_often_as_the_manifest_says():
    crops, labels = rendered(20, VALIDATION_IDENTITIES, 1, 0.04)
    measured = measure(expression.logits(expression.features(crops)), labels)
    known = embedded.entry("expression")["measured"]
    assert known["accuracy"] >= 0.5 and known["crops"] == 600
    # 40 crops of the 600: three standard deviations of a share of so many.
    assert measured["accuracy"] == pytest.approx(known["accuracy"], abs=0.24)
    assert embedded.weight_path("expression").stat().st_size < 1e5


def test_the_recipe_fits_writes_and_measures(tmp_path, monkeypatch, fresh):
    _, recipe = load_recipe("expression")
    assert recipe["entry"] == recipe["name"] == "expression"
    tiny = {**recipe, "data": {"clips": 12}, "validation": {"clips": 4, "seed": 1}}
    monkeypatch.setenv("IDBENCH_WEIGHTS", str(tmp_path))
    train = load_trainer("expression", recipe)
    # Twelve clips need not show every expression.
    monkeypatch.setattr("idbench.metrics.training.expression.rendered", _every_expression)
    measured = train(tiny, tmp_path / "state", False, False)
    entry = embedded.entry("expression")
    assert entry["measured"] == measured and entry["recipe"] == "expression"
    assert entry["config"]["classes"] == list(EXPRESSIONS)
    before = entry["sha256"]
    assert train(tiny, tmp_path / "state", False, True) == measured, "the file says the same"
    assert embedded.entry("expression")["sha256"] == before


def _every_expression(clips, identities, seed, noise):
    rng = np.random.default_rng([clips, identities.start, seed])
    labels = np.arange(2 * clips) % len(EXPRESSIONS)
    crops = np.full((len(labels), 112, 112, 3), 90, np.uint8)
    for crop, label in zip(crops, labels, strict=True):  # a bar whose height is the class
        crop[12 * label : 12 * label + 10, 20:90] = 200 + rng.integers(0, 40)
    return crops, labels


def test_discriminants_find_the_classes_of_gaussian_clouds():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 6)) * 3
    labels = np.arange(400) % 4
    vectors = centres[labels] + rng.normal(size=(400, 6))
    weight, bias = fit(vectors, labels, 0.1, 4)
    assert weight.shape == (6, 4)
    assert ((vectors @ weight + bias).argmax(1) == labels).mean() > 0.95
    # With all of the covariance shrunk, the nearest mean is what counts.
    weight, bias = fit(vectors, labels, 1.0, 4)
    means = np.stack([vectors[labels == k].mean(0) for k in range(4)])
    nearest = np.linalg.norm(vectors[:, None] - means, axis=2).argmin(1)
    assert np.array_equal((vectors @ weight + bias).argmax(1), nearest)


def test_weights_of_other_features_are_refused(tmp_path, monkeypatch, fresh):
    import torch

    state = {"weight": torch.zeros(1764, 8), "bias": torch.zeros(8)}
    monkeypatch.setenv("IDBENCH_WEIGHTS", str(tmp_path))
    embedded.save_entry(
        "expression", state, recipe="expression", seed=0, steps=1, measured={}, half=False,
        config={**expression.config(), "cell": 16},
    )
    with pytest.raises(UserError, match="idbench train expression"):
        expression.logits(np.zeros((1, 1764), np.float32))
