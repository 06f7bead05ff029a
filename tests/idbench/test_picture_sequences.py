"""Folders of frames and animated pictures are videos."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from toy import World

from idbench import pictures as picture_files
from idbench.video import UnreadableVideo, count_frames, read_video


def pictures(count: int = 12, height: int = 33, width: int = 47) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (count, height, width, 3), np.uint8)


def frame_folder(folder: Path, frames: np.ndarray, name: str = "frame_{}.png") -> Path:
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / name.format(number))
    return folder


def test_a_folder_of_frames_is_read_by_its_numbers(tmp_path: Path) -> None:
    folder = frame_folder(tmp_path / "v", pictures())  # frame_10 comes after frame_2
    (folder / ".DS_Store").write_bytes(b"x")
    video = read_video(folder)
    np.testing.assert_array_equal(video.frames, pictures())
    assert video.fps == 8 and count_frames(folder) == 12


@pytest.mark.parametrize("name, other", [
    ("person.png", b"x"), ("notes.txt", b"x"), ("other_3.png", b"x"), ("frame_3.jpg", b"x"),
])
def test_other_folders_are_not_videos(tmp_path: Path, name: str, other: bytes) -> None:
    folder = frame_folder(tmp_path / "v", pictures(3))
    (folder / name).write_bytes(other)
    with pytest.raises(UnreadableVideo, match="numbered pictures"):
        read_video(folder)


def test_bad_frames_are_one_sentence(tmp_path: Path) -> None:
    folder = frame_folder(tmp_path / "v", pictures(3))
    (folder / "frame_1.png").write_bytes(b"no picture")
    with pytest.raises(UnreadableVideo, match="frame_1.png cannot be read"):
        read_video(folder)
    Image.new("RGB", (20, 20)).save(folder / "frame_1.png")
    with pytest.raises(UnreadableVideo, match="changes its picture size"):
        read_video(folder)


def test_a_huge_frame_after_a_small_one_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = frame_folder(tmp_path / "v", pictures(2))
    Image.new("1", (9000, 9000)).save(folder / "frame_1.png")
    decoded: list[Path] = []
    read = picture_files.read_rgb
    monkeypatch.setattr(picture_files, "read_rgb", lambda f: decoded.append(f) or read(f))
    with pytest.raises(UnreadableVideo, match="changes its picture size at frame_1.png"):
        read_video(folder)
    assert decoded == [folder / "frame_0.png"]


@pytest.mark.parametrize("suffix", [".webp", ".avif", ".png", ".gif"])
def test_animated_pictures_are_videos(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    levels = [20 * k for k in range(6)]
    first, *others = [Image.new("RGB", (48, 32), (level, level, level)) for level in levels]
    first.save(path, save_all=True, append_images=others, duration=200)
    video = read_video(path)
    assert video.frames.shape == (6, 32, 48, 3) and video.fps == pytest.approx(5)
    assert np.abs(video.frames[:, 5, 5, 0].astype(int) - levels).max() <= 8
    path.write_bytes(path.read_bytes()[:-200])
    if suffix in (".webp", ".avif"):
        with pytest.raises(UnreadableVideo, match="cannot be read|has no frames"):
            read_video(path)


def test_transparent_frames_lie_on_white(tmp_path: Path) -> None:
    clear = [Image.new("RGBA", (48, 32), (200, 30, 30, a)) for a in (0, 255, 128)]
    clear[0].save(tmp_path / "a.webp", save_all=True, append_images=clear[1:], lossless=True)
    frames = read_video(tmp_path / "a.webp").frames
    assert frames[0].min() == 255 and tuple(frames[1, 0, 0]) == (200, 30, 30)


def test_frames_are_scored_as_they_are(world: World) -> None:
    folder = frame_folder(world.folder / "videos/one", pictures())
    frame_folder(world.folder / "videos/two", pictures(3))
    Image.fromarray(pictures()[0]).save(world.folder / "face.png")
    score = ("score", "--reference", "face.png", "--metric", "sampled")
    done = world.run(*score, "videos/one", "--out", "one")
    assert done.returncode == 0, done.stderr
    assert "1 folder of frames read at 8 frames a second" in done.stderr
    (path,) = (world.folder / "one").glob("samples/*/sample.json")
    record = json.loads(path.read_text())
    assert record["shape"] == [12, 33, 47, 3] and record["fps"] == 8
    assert "8 frames a second" in record["notes"][0] and str(folder.name) in record["notes"][0]
    np.testing.assert_array_equal(read_video(path.parent / record["video"]).frames, pictures())
    # Another rate is another video; both folders of one folder are scored.
    done = world.run(*score, "videos", "--fps", "24", "--out", "both")
    assert done.returncode == 0 and "frames read at" not in done.stderr, done.stderr
    records = [json.loads(p.read_text()) for p in world.folder.glob("both/samples/*/sample.json")]
    assert [r["fps"] for r in records] == [24, 24]
    (world.folder / "list.csv").write_text("video,reference\nvideos/two,face.png\n")
    done = world.run("score", "--manifest", "list.csv", "--metric", "sampled", "--out", "rows")
    assert done.returncode == 0, done.stderr
    assert pd.read_parquet(world.folder / "rows/scores.parquet")["value"].notna().all()


def test_folders_of_frames_are_videos_of_a_suite(world: World) -> None:
    done = world.run("list", "samples", "--suite", str(world.suite), "--split", "single", "--json")
    first, second, *_ = [row["id"] for row in json.loads(done.stdout)]
    frame_folder(world.folder / "videos" / first, pictures(3))
    frame_folder(world.folder / "videos" / second, pictures(3))
    done = world.run("score", "videos", "--suite", str(world.suite), "--split", "single",
                     "--limit", "2", "--metric", "sampled", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert pd.read_parquet(world.folder / "out/scores.parquet")["value"].notna().all()


def test_a_folder_of_frames_beside_videos_is_named_as_skipped(world: World) -> None:
    first, *others = [Image.new("RGB", (48, 32), (20 * k, 0, 0)) for k in range(4)]
    folder = world.folder / "videos"
    folder.mkdir()
    first.save(folder / "moving.webp", save_all=True, append_images=others, duration=100)
    first.save(folder / "still.webp")
    frame_folder(folder / "frames", pictures(3))
    first.save(world.folder / "face.png")
    done = world.run("score", "videos", "--reference", "face.png", "--metric", "sampled",
                     "--out", "out")
    assert done.returncode == 0, done.stderr
    assert "2 files were skipped" in done.stderr and "frames, still.webp" in done.stderr
    assert len(pd.read_parquet(world.folder / "out/scores.parquet")) == 1
