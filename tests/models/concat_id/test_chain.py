"""From videos of people to a video of a person: every command of the chain, one after the other.

Avatar videos -> `idbench pairs build` -> `idbench train pairs_cache` -> the shipped recipes of
CogVideoX on a tiny random base -> their exports -> `idbench run`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from tiny_base import cogvideox_base

from idbench.cli import main
from idbench.prompts.avatars.render import render_clip
from idbench.prompts.avatars.scene import TRAINING_IDENTITIES
from idbench.prompts.language import describe
from idbench.prompts.sampling import random_scene
from idbench.types import Video
from idbench.video import read_video, write_video

Run = Callable[..., None]
SIZE = ["--set", "frames=5", "--set", "height=32", "--set", "width=48"]
# Random networks have no scale of cosines; any other video of people may be a partner.
WIDE = [f"--set={name}=[-0.99, 0.9999]" for name in ("cross", "tradeoff", "multi")]
SHOWN = [(0,), (0,), (1,), (1,), (2,), (2,), (0, 1), (0, 1), (0, 2)]
"""Who is in each video."""
STAGES = {
    # recipe: (parquet file, references, where it starts)
    "cogvideox_stage1": ("pretraining", 1, None),
    "cogvideox_stage2": ("cross", 1, "cogvideox_stage1"),
    "cogvideox_stage3": ("tradeoff", 1, "cogvideox_stage2"),
    "cogvideox_multi_stage1": ("multi2_pretraining", 2, "cogvideox_stage1"),
    "cogvideox_multi_stage2": ("multi2_cross", 2, "cogvideox_multi_stage1"),
    "cogvideox_tryon": ("tryon", 2, "cogvideox_stage1"),
    "cogvideox_background": ("background", 2, "cogvideox_stage1"),
}


@pytest.fixture(scope="module")
def run() -> Run:
    def command(*arguments: object) -> None:
        AcceleratorState._reset_state(True)
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stopped:
            assert not stopped.code, arguments

    return command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """Three people in two videos each, pairs of them in three more; and what pairs build makes."""
    made = tmp_path_factory.mktemp("chain")
    with open(made / "captions.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["video", "caption"])
        for number, people in enumerate(SHOWN):
            rng = np.random.default_rng([17, number])
            scene = random_scene(rng, len(people), [TRAINING_IDENTITIES[p] for p in people])
            clip = render_clip(scene, 9, 64, 96)
            write_video(made / "videos" / f"{number}.mp4", Video(clip.frames, 8.0))
            writer.writerow([f"{number}.mp4", describe(scene, rng)])
    cogvideox_base(made / "base")
    run("pairs", "build", made / "videos", "--captions", made / "captions.csv", "--out",
        made / "pairs", "--subjects", "parser", "--workers", 1, *WIDE)
    return made


@pytest.fixture(scope="module")
def trained(folder: Path, run: Run) -> Path:
    """The folder with every stage's cache, state and export."""
    for name, (pairs, references, start) in STAGES.items():
        cache = folder / "caches" / name
        run("train", "pairs_cache", "--state", cache, *SIZE, "--set", f"references={references}",
            "--set", f"pairs={folder}/pairs/{pairs}.parquet", "--set", f"videos={folder}/videos",
            "--set", f"components={folder}/base", "--set", "held_out=1", "--set", "device=cpu")
        init = folder / "states" / start / "export" if start else folder / "base"
        run("train", name, "--state", folder / "states" / name, *SIZE, "--set", "network=init",
            "--set", f"init={init}", "--set", f"components={folder}/base",
            "--set", f"cache={cache}", "--set", "steps=2", "--set", "global_batch=2",
            "--set", "learning_rate=1.0e-3", "--set", "workers=0", "--set", "device=cpu",
            "--set", "validate_every=0", "--set", "log_every=1")
    return folder


def test_the_pairs_of_every_stage_are_there(folder: Path) -> None:
    for name, (pairs, references, _) in STAGES.items():
        rows = pd.read_parquet(folder / "pairs" / f"{pairs}.parquet")
        assert len(rows) >= 2, name
        kinds = {"tryon": ["face", "garment"], "background": ["face", "background"]}
        for row in rows.itertuples():
            found = [r["kind"] for r in row.references]
            assert found == kinds.get(pairs, ["face"] * references), name


def test_every_stage_trains_on_from_the_one_before(trained: Path) -> None:
    for name, (_, references, start) in STAGES.items():
        state = trained / "states" / name
        rows = [json.loads(line) for line in (state / "log.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == [1, 2]
        assert all(np.isfinite(row["loss"]) for row in rows)
        said = json.loads((state / "export" / "training.json").read_text())
        assert said["lacks"] is None and said["recipe"]["references"] == references
        weights = [
            load_file(where / "transformer" / "diffusion_pytorch_model.safetensors")
            for where in (state / "export",
                          trained / "states" / start / "export" if start else trained / "base")
        ]
        moved = [float((weights[0][n] - weights[1][n]).abs().max()) for n in weights[0]]
        assert 0 < max(moved) < 0.05  # two steps of at most 1e-3 each, not another beginning


@pytest.mark.parametrize(("split", "stage"), [
    ("single", "cogvideox_stage3"), ("multi", "cogvideox_multi_stage2"),
    ("tryon", "cogvideox_tryon"), ("background", "cogvideox_background"),
])
def test_an_export_makes_videos(
    trained: Path, run: Run, tmp_path: Path, split: str, stage: str
) -> None:
    export = trained / "states" / stage / "export"
    run("run", "--model", "concat_id", "--split", split, "--limit", 1, "--no-score",
        "--out", tmp_path / "run", *SIZE, "--set", "steps=2", "--set", "device=cpu",
        "--set", f"weights={export}")
    (video,) = (tmp_path / "run").rglob("video.mp4")
    assert read_video(video, range(5)).frames.shape == (5, 32, 48, 3)
    noted = json.loads((tmp_path / "run" / "run.json").read_text())
    settings = noted["identity"]["model"]["settings"]
    # Pairs -> cache -> export -> run: references are prepared as the training saw them.
    assert (settings["alignment"], settings["parser"]) == ("upright", "none")
    assert any("transformer/diffusion_pytorch_model" in str(name) for name in _leaves(noted))


def _leaves(value: object) -> list[object]:
    if isinstance(value, dict):
        return [*value, *(leaf for item in value.values() for leaf in _leaves(item))]
    if isinstance(value, list):
        return [leaf for item in value for leaf in _leaves(item)]
    return [value]


pytestmark = pytest.mark.usefixtures("one_thread")
