"""Odd and damaged video files: each is read or says why not, and none costs the others."""

from __future__ import annotations

import csv
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from av.stream import Disposition
from PIL import Image
from toy import World

from idbench.types import Video
from idbench.video import UnreadableVideo, read_video, write_video

WIDTH, HEIGHT = 96, 64


def picture(index: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Smooth, coloured, and brighter from frame to frame."""
    y, x = np.mgrid[:height, :width]
    planes = [120 + 60 * np.sin(x / 9), 110 + 50 * np.cos(y / 7), np.full_like(x, 40 + 8 * index)]
    return np.stack(planes, -1).clip(0, 255).astype(np.uint8)


def encode(
    path: Path, frames: int = 9, codec: str = "libx264", pixels: str = "yuv420p",
    size: tuple[int, int] = (HEIGHT, WIDTH), times: list[int] | None = None,
    container_options: dict[str, str] | None = None, alpha: bool = False,
) -> Path:
    """A video of `picture`s by any codec; `times` in 1/100 s for a variable rate."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=8)
        stream.height, stream.width = size
        stream.pix_fmt = pixels
        if times:
            stream.codec_context.time_base = Fraction(1, 100)
        for index in range(frames):
            array, layout = picture(index, *size), "rgb24"
            if alpha:
                opaque = np.full((*size, 1), 255, np.uint8)
                opaque[:, : size[1] // 2] = 128
                array, layout = np.concatenate([array, opaque], -1), "rgba"
            frame = av.VideoFrame.from_ndarray(array, format=layout)
            if times:
                frame.pts, frame.time_base = times[index], Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def audio(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        for index in range(10):
            sound = np.zeros((1, 1024), np.float32)
            frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, index * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def audio_with_cover(path: Path) -> Path:
    """Music whose picture is stored as players want it."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000)
        cover = container.add_stream("png", rate=1)
        cover.height, cover.width, cover.pix_fmt = HEIGHT, WIDTH, "rgb24"
        cover.disposition = Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(picture(0), format="rgb24")
        frame.pts = 0
        container.mux(cover.encode(frame))
        container.mux(cover.encode())
        for index in range(10):
            sound = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
            )
            sound.sample_rate, sound.pts = 16000, index * 1024
            container.mux(stream.encode(sound))
        container.mux(stream.encode())
    return path


READABLE = {
    "one-frame.mp4": (lambda p: encode(p, 1), 1, (64, 96)),
    "portrait.mp4": (lambda p: encode(p, size=(96, 54)), 9, (96, 54)),
    "odd.mkv": (lambda p: encode(p, codec="ffv1", pixels="yuv444p", size=(63, 95)), 9, (63, 95)),
    "ten-bit.mp4": (lambda p: encode(p, pixels="yuv420p10le"), 9, (64, 96)),
    "ten-bit.mkv": (lambda p: encode(p, codec="ffv1", pixels="yuv422p10le"), 9, (64, 96)),
    "variable-rate.mp4": (
        lambda p: encode(p, times=[0, 5, 10, 40, 45, 90, 95, 180, 200]), 9, (64, 96)
    ),
    "alpha.mov": (lambda p: encode(p, codec="png", pixels="rgba", alpha=True), 9, (64, 96)),
    "alpha.mkv": (lambda p: encode(p, codec="ffv1", pixels="yuva420p", alpha=True), 9, (64, 96)),
    "grey.mkv": (lambda p: encode(p, codec="ffv1", pixels="gray"), 9, (64, 96)),
    "mpeg4.avi": (lambda p: encode(p, codec="mpeg4"), 9, (64, 96)),
    "animated.gif": (lambda p: encode(p, codec="gif", pixels="rgb8"), 9, (64, 96)),
    "still.png": (lambda p: Image.fromarray(picture(0)).save(p), 1, (64, 96)),
    "still.jpg": (lambda p: Image.fromarray(picture(0)).save(p), 1, (64, 96)),
}


@pytest.mark.parametrize("name", list(READABLE))
def test_unusual_files_are_read_as_they_look(tmp_path: Path, name: str) -> None:
    make, count, size = READABLE[name]
    make(tmp_path / name)
    video = read_video(tmp_path / name)
    assert video.frames.shape == (count, *size, 3) and video.frames.dtype == np.uint8
    assert np.isfinite(video.fps) and video.fps > 0
    if name.startswith(("grey", "animated", "still")):
        return
    for index in (0, count - 1):
        error = np.abs(video.frames[index].astype(int) - picture(index, *size)).mean()
        # 420 and lossy codecs blur colours; another order of channels would be 40 off.
        assert error < 12, f"frame {index}"


def cut(path: Path, share: float, source: Path) -> Path:
    data = source.read_bytes()
    source.unlink()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def corrupt(path: Path, source: Path) -> Path:
    """Noise over a third of the coded pictures; the container's tables stay.

    A few changed bytes inside one picture are decoded to a wrong picture without any error: no
    reader can tell.
    """
    data = bytearray(source.read_bytes())
    source.unlink()
    start = data.index(b"mdat") + 4
    middle = start + (len(data) - start) // 3
    noise = np.random.default_rng(0).bytes((len(data) - start) // 3)
    data[middle : middle + len(noise)] = noise
    path.write_bytes(data)
    return path


def busy(path: Path) -> Path:
    """A video whose frames do not follow from each other: large, so that damage hits pictures."""
    noise = np.random.default_rng(1).integers(0, 255, (12, 64, 96, 3), np.uint8)
    write_video(path, Video(noise, 8.0))
    return path


def no_frames(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        container.start_encoding()
    return path


BROKEN = {
    "zero-frames.mp4": (no_frames, "no frames|contains no video"),
    "audio-only.m4a": (audio, "contains no video"),
    "cover.m4a": (audio_with_cover, "contains no video"),
    "truncated.gif": (
        lambda p: cut(p, 0.6, encode(p.with_name("w.gif"), codec="gif", pixels="rgb8")),
        "is truncated"
    ),
    "truncated.mp4": (lambda p: cut(p, 0.5, busy(p.with_name("whole.mp4"))), "cannot be read"),
    "truncated.mkv": (
        lambda p: cut(p, 0.5, encode(p.with_name("w.mkv"), codec="ffv1", pixels="yuv444p")),
        "truncated"
    ),
    "truncated.avi": (
        lambda p: cut(p, 0.5, encode(p.with_name("w.avi"), codec="mjpeg", pixels="yuvj420p")),
        "cannot be read after frame",
    ),
    "truncated-header-first.mp4": (
        lambda p: cut(p, 0.6, encode(p.with_name("v.mp4"), 40, codec="mpeg4",
                                     container_options={"movflags": "faststart"})),
        "truncated|cannot be read",
    ),
    "corrupt.mp4": (lambda p: corrupt(p, busy(p.with_name("good.mp4"))),
                    "cannot be read after frame"),
    "text.mp4": (lambda p: p.write_text("no video " * 40), "cannot be read"),
    "empty.mp4": (lambda p: p.write_bytes(b""), "cannot be read"),
    "picture.mp4": (lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n"), "cannot be read"),
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_broken_files_say_why_in_one_sentence(tmp_path: Path, name: str) -> None:
    make, words = BROKEN[name]
    make(tmp_path / name)
    with pytest.raises(UnreadableVideo, match=words) as caught:
        read_video(tmp_path / name)
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_one_bad_file_never_costs_the_others(world: World) -> None:
    Image.fromarray(picture(0)).save(world.folder / "face.png")
    folder = world.folder / "videos"
    folder.mkdir()
    made = {**{n: m for n, (m, *_) in READABLE.items()}, **{n: m for n, (m, _) in BROKEN.items()}}
    for name, make in made.items():
        make(folder / name)
    with open(world.folder / "all.csv", "w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["video", "prompt", "reference", "id"])
        rows.writerows([f"videos/{n}", "a person", "face.png", n] for n in [*made, "gone.mp4"])
    done = world.run("score", "--manifest", "all.csv", "--metric", "sampled", "--out", "out")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    scores = pd.read_parquet(world.folder / "out/scores.parquet")
    assert len(scores) == len(made) + 1
    assert (scores["status"] == "scored").sum() == len(READABLE)
    unscored = scores[scores["status"] == "unscored"]
    assert len(unscored) == len(BROKEN) + 1 and unscored["reason"].str.len().gt(10).all()
    # Also where the first frames can be read: what is broken counts as failed.
    assert f"{len(BROKEN) + 1} of {len(made) + 1} samples failed" in done.stdout, done.stdout
    again = world.run("score", "--manifest", "all.csv", "--metric", "sampled", "--out", "out")
    assert f"{len(BROKEN) + 1} of {len(made) + 1} samples failed" in again.stdout, again.stdout
    alone = world.run(
        "score", "videos/truncated.avi", "--reference", "face.png", "--metric", "sampled")
    assert alone.returncode == 2, alone.stderr
    assert "The only sample failed because the" in alone.stderr, alone.stderr
    assert f"{100 * len(READABLE) / (len(made) + 1):.0f}%" in done.stdout, done.stdout


@pytest.mark.parametrize("name, words", [
    ("v" * 300 + ".mp4", "too long"), ("caf\udce9.mp4", "not UTF-8"),
])
def test_names_that_cannot_be_are_one_sentence(world: World, name: str, words: str) -> None:
    Image.fromarray(picture(0)).save(world.folder / "face.png")
    (world.folder / "videos").mkdir()
    encode(world.folder / "videos/good.mp4")
    if words == "not UTF-8":
        encode(world.folder / "bad.mp4").rename(world.folder / "videos" / name)
        done = world.run("score", "videos", "--reference", "face.png", "--metric", "sampled")
        assert done.returncode == 2 and words in done.stderr, done.stderr
    done = world.run("score", f"videos/{name}", "--reference", "face.png", "--metric", "sampled")
    assert done.returncode == 2 and words in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("\n") == 1


def test_names_with_a_colon_are_scored(world: World) -> None:
    Image.fromarray(picture(0)).save(world.folder / "face.png")
    (world.folder / "videos").mkdir()
    for name in ("concat:a.mp4|b.mp4", "a:b.mp4"):
        encode(world.folder / "right.mp4").rename(world.folder / "videos" / name)
    done = world.run("score", "videos", "--reference", "face.png", "--metric", "sampled",
                     "--out", "out")
    assert done.returncode == 0, done.stderr
    assert pd.read_parquet(world.folder / "out/scores.parquet")["value"].notna().sum() == 2
