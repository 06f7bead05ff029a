"""`run --model folder`: finished videos of another system, treated like any model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toy import World, install_plugin, make_suite

from idbench.suite import load_suite
from idbench.types import Video
from idbench.video import write_video


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_plugin(tmp_path_factory.mktemp("plugin"))


@pytest.fixture
def world(tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.syspath_prepend(str(site))
    return World(tmp_path, make_suite(tmp_path / "suite"))


@pytest.fixture
def named(world: World) -> list[str]:
    """`theirs/` holds a video for all samples but the last; returns the samples' ids."""
    ids = [sample.id for sample in load_suite(world.suite).samples("single")]
    for number, name in enumerate(ids[:-1]):
        frames = np.random.default_rng(number).integers(0, 255, (4, 32, 48, 3), dtype=np.uint8)
        write_video(world.folder / "theirs" / f"{name}.mp4", Video(frames, 8.0))
    return ids


def run(world: World, *more: str) -> tuple[int, str, str]:
    done = world.run(
        "run", "--model", "folder", "--suite", str(world.suite), "--split", "single",
        "--metric", "sampled", *more,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_videos_named_after_samples_stand_beside_a_model(world: World, named: list[str]) -> None:
    code, out, error = run(world, "--set", "videos=theirs", "--set", "name=kling", "--out", "kling")
    assert code == 0, error
    assert "1 of 8 samples failed" in out and "there is no video" in out
    assert world.run(*world.toy()).returncode == 0
    shown = world.run("table", "out", "kling", "--compare", "kling")
    assert shown.returncode == 0, shown.stderr
    assert "| toy" in shown.stdout and "toy - kling" in shown.stdout
    # Nothing changed, so nothing is copied again; a late video is taken up.
    before = {p: p.stat().st_mtime_ns for p in (world.folder / "kling").rglob("video.mp4")}
    first = next((world.folder / "theirs").iterdir())
    (world.folder / "theirs" / f"{named[-1]}.mp4").write_bytes(first.read_bytes())
    code, out, error = run(world, "--set", "videos=theirs", "--set", "name=kling", "--out", "kling")
    assert code == 0 and "failed" not in out, out
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    assert len(pd.read_parquet(world.folder / "kling/scores.parquet")) == 8


@pytest.mark.parametrize("form", ["csv", "jsonl", "json"])
def test_a_manifest_names_the_videos(world: World, named: list[str], form: str) -> None:
    files = sorted((world.folder / "theirs").iterdir())
    pairs = []
    for number, (name, file) in enumerate(zip(named, files, strict=False)):
        file.rename(file.with_name(f"clip {number}.mp4"))
        pairs.append((name, f"clip {number}.mp4"))
    target = world.folder / "theirs" / f"list.{form}"
    target.write_text({
        "csv": "sample,video\n" + "".join(f"{a},{b}\n" for a, b in pairs),
        "jsonl": "".join(json.dumps({"sample": a, "video": b}) + "\n" for a, b in pairs),
        "json": json.dumps(dict(pairs)),
    }[form])
    code, out, error = run(world, "--set", f"manifest=theirs/list.{form}")
    assert code == 0, error
    assert "| list" in out and "1 of 8 samples failed" in out


@pytest.mark.parametrize("settings, words", [
    ((), "folder needs the videos of a system: --set videos=FOLDER"),
    (("videos=gone",), "gone is not a folder"),
    (("videos=suite/references",), "No video of suite/references belongs to a sample"),
    (("manifest=gone.csv",), "The manifest gone.csv is missing"),
    (("manifest=twice.csv",), "twice.csv line 3 names the sample a a second time"),
    (("manifest=lost.csv",), "lost.csv line 2 names the video lost.mp4, which is missing"),
    (("manifest=other.csv",), "other.csv line 2"),
    (("videos=theirs", "fps=fast"), "fps must be a number"),
    (("vidoes=theirs",), "did you mean 'videos'"),
])
def test_what_is_missing_is_named(
    world: World, named: list[str], settings: tuple[str, ...], words: str
) -> None:
    for name, text in (
        ("twice.csv", "sample,video\na,theirs/{}.mp4\na,theirs/{}.mp4\n".format(*named)),
        ("lost.csv", "sample,video\na,lost.mp4\n"),
        ("other.csv", "video,prompt\ntheirs/a.mp4,hello\n"),
    ):
        (world.folder / name).write_text(text)
    code, out, error = run(world, *(part for text in settings for part in ("--set", text)))
    assert code == 2 and words in error, error
