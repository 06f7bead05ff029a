"""Every recipe end to end, made tiny: data, two steps, weights, manifest, evaluation."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from idbench import embedded
from idbench.metrics.networks.clip import ClipEmbedder, ViclipEmbedder
from idbench.metrics.networks.parser import FaceParser
from idbench.metrics.networks.recogniser import Recogniser
from idbench.recipes import load_recipe, load_trainer

DATA = {"split": "training", "seed": 1, "identities": 3, "scenes": 3, "frames": 1}
CHANGES = {
    "arcface": {"batch": 8, "start": None, "data": DATA},
    "curricularface": {"batch": 8, "start": None, "data": DATA},
    "face_parser": {"batch": 4, "data": DATA},
    "clip": {"batch": 4, "data": DATA},
    "viclip": {"batch": 2, "data": DATA, "clips": {**DATA, "frames": 3, "scenes": 2}},
}
VALIDATION = {
    "recogniser": {"split": "validation", "seed": 2, "identities": 3, "scenes": 4, "frames": 1},
    "retrieval": {"split": "validation", "seed": 5, "identities": 8, "scenes": 32, "frames": 1,
                  "height": 32, "width": 48},
}
LOADED = {"arcface": Recogniser, "curricularface": Recogniser, "face_parser": FaceParser,
          "clip": ClipEmbedder, "viclip": ViclipEmbedder}


MEGABYTES = {"arcface": 6, "curricularface": 6, "clip": 6, "viclip": 6, "face_parser": 2}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of state and weights."""
    return tmp_path_factory.mktemp("training"), tmp_path_factory.mktemp("weights")


def _tiny(name):
    _, recipe = load_recipe(name)
    kind = "retrieval" if name in ("clip", "viclip") else "recogniser"
    return {**recipe, **CHANGES[name], "steps": 2, "validation": VALIDATION[kind]}


@pytest.mark.parametrize("name", list(CHANGES))
def test_a_recipe_trains_writes_and_measures(name, folders, monkeypatch):
    state, weights = folders
    monkeypatch.setenv("IDBENCH_WEIGHTS", str(weights))
    recipe = _tiny(name)
    trainer = load_trainer(name, recipe)
    if name == "viclip" and "clip" not in embedded.entries():
        load_trainer("clip", _tiny("clip"))(_tiny("clip"), Path(state) / "clip", False, False)
    measured = trainer(recipe, Path(state) / name, False, False)
    assert measured and all(math.isfinite(v) for v in measured.values())
    entry = embedded.entry(name)
    assert entry["measured"] == measured and entry["steps"] == 2 and entry["recipe"] == name
    assert embedded.weight_path(name).stat().st_size <= MEGABYTES[name] * 1e6
    LOADED[name](name)  # the manifest's config rebuilds the network that the file fits
    again = trainer(recipe, Path(state) / name, False, True)
    assert again.keys() == measured.keys()
    assert embedded.entry(name)["steps"] == 2
