"""Pictures of the suite: references as the renderer makes them, contact sheets."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image

from idbench.prompts import build
from idbench.prompts.contact_sheet import sheet

REFERENCES = build.SUITE / "references"


def _stored(name: str) -> np.ndarray:
    return np.asarray(Image.open(REFERENCES / name).convert("RGB"), np.int16)


def test_references_are_small_and_all_of_them_are_used() -> None:
    files = {p.name for p in REFERENCES.iterdir()}
    assert sum(p.stat().st_size for p in REFERENCES.iterdir()) < 3_000_000
    named = set()
    for split in build.SPLITS:
        text = (build.SUITE / "splits" / f"{split}.jsonl").read_text(encoding="utf-8")
        for line in text.splitlines():
            named |= {r["file"].removeprefix("references/")
                      for r in json.loads(line)["references"]}
    assert named == files


def test_every_portrait_holds_one_face_that_mtcnn_found() -> None:
    known = json.loads((build.SUITE / "identities.json").read_text(encoding="utf-8"))
    source = yaml.safe_load((build.SUITE / "source.yaml").read_text(encoding="utf-8"))
    assert [row["seed"] for row in known.values()] == source["identities"]
    for name, row in known.items():
        assert row["probability"] >= 0.95, name
        x0, y0, x1, y1 = row["box"]
        assert 0 <= x0 < x1 <= build.PORTRAIT_SIZE and 0 <= y0 < y1 <= build.PORTRAIT_SIZE


def test_references_are_what_the_renderer_makes() -> None:
    """A change of the renderer needs a new version of the suite."""
    from idbench.prompts.avatars.render import render_background, render_garment, render_portrait
    from idbench.prompts.avatars.scene import Garment

    made = {
        "a000.png": render_portrait(0, size=build.PORTRAIT_SIZE).frames[0],
        "a017.png": render_portrait(17, size=build.PORTRAIT_SIZE).frames[0],
        "garment_blue_star.png": render_garment(Garment("blue", "plain", "star"),
                                                size=build.PORTRAIT_SIZE),
        "background_beach.png": render_background("beach", 101, *build.BACKGROUND_SIZE),
    }
    for name, pixels in made.items():
        # Other processors may round a few pixels of an edge the other way.
        assert np.abs(_stored(name) - pixels).mean() < 0.5, name


def test_mtcnn_still_finds_what_the_suite_recorded() -> None:
    from idbench.prompts.avatars.judge import detect_faces

    known = json.loads((build.SUITE / "identities.json").read_text(encoding="utf-8"))
    for name in ("a003", "a012"):
        boxes, _ = detect_faces(_stored(f"{name}.png").astype(np.uint8))
        assert boxes.shape == (1, 4)
        assert boxes[0] == pytest.approx(known[name]["box"], abs=2.0)


def test_a_portrait_without_a_face_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grey = SimpleNamespace(frames=np.full((1, 96, 96, 3), 128, np.uint8))
    monkeypatch.setattr(build, "render_portrait", lambda *_, **__: grey)
    with pytest.raises(ValueError, match="finds 0 faces on the portrait of a000"):
        build.write_references({"identities": [0]}, tmp_path)


def test_a_contact_sheet_places_every_tile_over_its_label() -> None:
    tiles = [np.full((20, 60, 3), value, np.uint8) for value in (10, 90, 170)]
    page = sheet(tiles, ["one", "two words that need lines", "three"], columns=2)
    for value, (row, column) in zip((10, 90, 170), ((0, 0), (0, 1), (1, 0)), strict=True):
        ys, xs = np.nonzero((page == value).all(-1))
        assert len(ys) == 20 * 60
        assert (xs.min() > 60, ys.min() > 40) == (bool(column), bool(row))
