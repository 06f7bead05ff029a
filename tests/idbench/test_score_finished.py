"""`idbench score`: finished videos by reference, manifest, suite, and run folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from toy import World

from idbench.suite import load_suite
from idbench.types import Video
from idbench.video import write_video


@pytest.fixture
def clips(world: World) -> list[Path]:
    """Two videos and two pictures in the world's folder."""
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        frames = rng.integers(0, 255, (4, 32, 48, 3), dtype=np.uint8)
        write_video(world.folder / "videos" / f"{name}.mp4", Video(frames, 8.0))
        Image.fromarray(frames[0]).save(world.folder / f"{name}.png")
    return sorted((world.folder / "videos").iterdir())


def scores(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "scores.parquet")


def test_single_video_with_a_reference(world: World, clips: list[Path]) -> None:
    done = world.run("score", "videos/one.mp4", "--reference", "one.png", "--metric", "sampled")
    assert done.returncode == 0, done.stderr
    assert "| one" in done.stdout
    run = world.folder / "runs/score-one"
    assert len(scores(run)) == 1
    (record,) = [json.loads(p.read_text()) for p in run.glob("samples/*/sample.json")]
    assert record["source"] == "videos/one.mp4" and record["shape"] is None
    assert (run / record["references"][0]["image"]).is_file()


def test_unreadable_video_is_counted_unscored(world: World, clips: list[Path]) -> None:
    data = clips[0].read_bytes()
    clips[0].write_bytes(data[: len(data) // 2])
    done = world.run("score", "videos", "--reference", "one.png", "--metric", "sampled")
    assert done.returncode == 0, done.stderr
    found = scores(world.folder / "runs/score-videos")
    assert sorted(found["status"]) == ["scored", "unscored"]
    assert "cannot be read" in found["reason"].dropna().item()
    assert "(50 %)" in done.stdout and "Traceback" not in done.stderr


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_manifest(world: World, clips: list[Path], form: str) -> None:
    manifest = world.folder / f"list.{form}"
    if form == "csv":
        manifest.write_text(
            "video,prompt,reference\nvideos/one.mp4,two people,one.png;two.png\n"
            "videos/gone.mp4,a person,one.png\n"
        )
    else:
        rows = [
            {"video": "videos/one.mp4", "prompt": "two people",
             "references": ["one.png", "two.png"]},
            {"video": "videos/gone.mp4", "prompt": "a person", "reference": "one.png"},
        ]
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = world.run("score", "--manifest", manifest.name, "--metric", "sampled", "--name", "kling")
    assert done.returncode == 0, done.stderr
    assert "| kling" in done.stdout and "there is no video" in done.stdout
    found = scores(world.folder / "runs/score-kling")
    assert sorted(found["status"]) == ["scored", "unscored"]


def test_manifest_with_an_unknown_field_says_the_nearest(world: World) -> None:
    (world.folder / "list.csv").write_text("video,promt,reference\na.mp4,x,b.png\n")
    done = world.run("score", "--manifest", "list.csv")
    assert done.returncode == 2
    assert "list.csv line 2 has an unknown field 'promt': did you mean 'prompt'?" in done.stderr


def test_videos_of_a_suite_by_sample_id(world: World, clips: list[Path]) -> None:
    samples = load_suite(world.suite).samples("single")
    folder = world.folder / "theirs"
    folder.mkdir()
    for sample in samples[:3]:
        (folder / f"{sample.id}.mp4").write_bytes(clips[0].read_bytes())
    listed = world.run("list", "samples", "--suite", str(world.suite), "--split", "single",
                       "--json")
    assert [row["id"] for row in json.loads(listed.stdout)] == [s.id for s in samples]
    done = world.run("score", "theirs", "--suite", str(world.suite), "--split", "single",
                     "--metric", "sampled")
    assert done.returncode == 0, done.stderr
    assert "5 of 8 samples failed" in done.stdout
    found = scores(world.folder / "runs/score-theirs")
    assert found["status"].value_counts().to_dict() == {"unscored": 5, "scored": 3}
    # A later delivery of the rest is taken up, and what is scored is kept.
    for sample in samples[3:]:
        (folder / f"{sample.id}.mp4").write_bytes(clips[1].read_bytes())
    again = world.run("score", "theirs", "--suite", str(world.suite), "--split", "single",
                      "--metric", "sampled")
    assert again.returncode == 0, again.stderr
    found = scores(world.folder / "runs/score-theirs")
    assert found["status"].value_counts().to_dict() == {"scored": 8}


def test_other_videos_in_the_same_folder_do_not_mix(world: World, clips: list[Path]) -> None:
    arguments = ["--reference", "one.png", "--metric", "sampled", "--name", "x"]
    assert world.run("score", "videos", *arguments).returncode == 0
    assert len(scores(world.folder / "runs/score-x")) == 2
    assert world.run("score", "videos/two.mp4", *arguments).returncode == 0
    assert len(scores(world.folder / "runs/score-x")) == 1


def test_missing_things_are_named(world: World, clips: list[Path]) -> None:
    for arguments, words in (
        (("videos/x.mp4", "--reference", "one.png"), "The video videos/x.mp4 is missing"),
        (("videos/one.mp4", "--reference", "x.png"), "The reference image x.png is missing"),
        (("videos/one.mp4",), "Say who the videos should show"),
        (("videos", "--suite", str(world.suite), "--split", "single"), "No video in videos is"),
        (("videos", "--reference", "one.png", "--split", "single"), "Give one of"),
    ):
        done = world.run("score", *arguments)
        assert done.returncode == 2 and words in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr


def test_run_without_scores_is_scored_later(world: World) -> None:
    assert world.run(*world.toy("--no-score")).returncode == 0
    assert not (world.folder / "out/scores.parquet").exists()
    log = world.folder / "log"
    assert world.run("score", "out", "--metric", "sampled", TOY_LOG=str(log)).returncode == 0
    assert len(scores(world.folder / "out")) == 8 and not log.exists()
