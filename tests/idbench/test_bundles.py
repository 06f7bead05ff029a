"""Cached embeddings: the same values without videos and networks, or a refusal."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from toy import World

import idbench.prompts
from idbench.metrics.embedder import Embedder
from idbench.registry import METRICS
from idbench.types import Video
from idbench.video import write_video

REFERENCES = Path(idbench.prompts.__file__).parent / "suites/avatars/references"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two people's still pictures as videos, scored; reference and embeddings; no videos left."""
    folder = tmp_path_factory.mktemp("cached")
    rows = []
    for i in range(2):
        picture = np.asarray(Image.open(REFERENCES / f"a00{i}.png").convert("RGB"))
        height, width = (size // 2 * 2 for size in picture.shape[:2])
        frames = np.stack([picture[:height, :width]] * 3)
        write_video(folder / f"v{i}.mp4", Video(frames, 8.0))
        rows.append({"video": f"v{i}.mp4", "prompt": "a person smiles",
                     "reference": str(REFERENCES / f"a00{i}.png")})
    (folder / "videos.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    world = World(folder, folder)
    done = world.run("score", "--manifest", "videos.jsonl", "--out", "run")
    assert done.returncode == 0, done.stderr
    done = world.run("check", "run", "--update", "reference.json", "--embeddings")
    assert done.returncode == 0, done.stderr
    for video in folder.rglob("*.mp4"):
        video.unlink()
    return world


@pytest.fixture(autouse=True)
def no_network(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, no network may run."""
    def forbidden(*_: Any) -> None:
        raise AssertionError("a network was loaded")

    monkeypatch.setattr(Embedder, "network", forbidden)


CHECK = ("check", "reference.embeddings.zip", "--against", "reference.json")


def test_the_same_values_come_from_the_embeddings_alone(world: World) -> None:
    done = world.run(*CHECK, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    checks = {c["name"]: c for c in json.loads(done.stdout)["checks"]}
    for name in ("arcsim", "cursim", "viclip", "clipdist"):
        assert checks[name]["change"] == pytest.approx(0, abs=1e-5)
        assert checks[name]["samples"] == 2
    assert checks["arcsim"]["run"] > 0.9  # a still picture of the reference itself
    assert (world.folder / "reference.embeddings.zip").stat().st_size < 300_000


def test_a_changed_metric_is_caught(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    load = METRICS.load

    def changed(name: str) -> Any:
        metric = load(name)
        if name != "arcsim":
            return metric
        return replace(metric, scores=lambda embeddings: [
            row if row.value is None else replace(row, value=row.value - 0.05)
            for row in metric.scores(embeddings)])

    monkeypatch.setattr(METRICS, "load", changed)
    done = world.run(*CHECK)
    assert done.returncode == 1 and "ArcSim: worse by 0.050" in done.stdout


def test_embeddings_that_are_not_there_are_never_computed(world: World) -> None:
    source = world.folder / "reference.embeddings.zip"
    for left_out, words in (("embeddings/", "other scoring networks"),
                            ("references/", "reference image")):
        with zipfile.ZipFile(source) as whole, zipfile.ZipFile(
                world.folder / "part.zip", "w") as part:
            names = whole.namelist()
            gone = next(name for name in names if name.startswith(left_out))
            for name in names:
                if name != gone:
                    part.writestr(name, whole.read(name))
        done = world.run("check", "part.zip", "--against", "reference.json")
        assert done.returncode == 2 and words in done.stderr
    (world.folder / "cut.zip").write_bytes(source.read_bytes()[:500])
    done = world.run("check", "cut.zip", "--against", "reference.json")
    assert done.returncode == 2 and "contains no embeddings" in done.stderr
    done = world.run("check", "run", "--against", "reference.json", "--embeddings")
    assert done.returncode == 2 and "--update" in done.stderr
