"""Video files: repeatable encoding, and reading the frames that are asked for as RGB."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from idbench.decoding import SIZE_KEY, About, UnreadableVideo, decoded_frames, to_rgb
from idbench.files import write_bytes
from idbench.types import Video

CRF = 8
"""x264's constant rate factor. At 8, visually lossless, small faces stay readable."""

__all__ = [
    "Clip", "UnreadableVideo", "check_readable", "count_frames", "decoded_frames", "read_chosen",
    "read_spread", "read_video", "to_rgb", "write_video",
]

MAXIMUM_BYTES = 4_000_000_000
"""Decoded frames that `read_video` keeps at most."""

# At small sizes x264's look-ahead for B-frames reads unset memory, so bytes would vary.
_USUAL = ("libx264", "yuv420p", {"crf": str(CRF), "preset": "medium", "bf": "0", "mbtree": "0"})
_LOSSLESS = ("libvpx-vp9", "gbrp", {"lossless": "1", "deadline": "realtime", "cpu-used": "8"})


def write_video(path: Path, video: Video) -> None:
    """Encode `video` atomically; equal frames give equal bytes.

    Frames are uint8 RGB (frames, height, width, 3). A .webm keeps every pixel (lossless VP9);
    anything else is H.264 (yuv420p, mp4), for which an odd side is padded and cropped again by
    `read_video`. Raises ValueError: frames of another type or shape; DiskFull."""
    frames = np.asarray(video.frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        raise ValueError(
            f"frames must be uint8 of shape (T, H, W, 3), not {frames.dtype} {frames.shape}"
        )
    lossless = Path(path).suffix == ".webm"
    height, width = frames.shape[1:3]
    odd = (0, 0) if lossless else (height % 2, width % 2)
    if any(odd):
        frames = np.pad(frames, ((0, 0), (0, odd[0]), (0, odd[1]), (0, 0)), mode="edge")
    rate = Fraction(video.fps).limit_denominator(1001)
    codec, pixels, options = _LOSSLESS if lossless else _USUAL
    # Encode in memory and write at once: a muxer may hide a full disk, a write does not.
    buffer, kind = io.BytesIO(), "webm" if lossless else "mp4"
    with av.open(buffer, "w", format=kind, options={"fflags": "+bitexact"}) as container:
        if any(odd):
            container.metadata["comment"] = f"{SIZE_KEY}{height}x{width}"
        stream: Any = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        stream.options = options
        stream.thread_count = 1
        for index, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")
            # Without this the encoder reads the frame's time from unset memory.
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    write_bytes(Path(path), buffer.getvalue())


@dataclass(frozen=True)
class Clip:
    """A video of which some frames are in memory, or none.

    Attributes:
        count: frames of the whole video.
        frames: uint8 RGB (h, w, 3) by index, or an array (count, h, w, 3) of all.
        sha256: of the file.
    """

    count: int
    fps: float
    frames: Mapping[int, np.ndarray] | np.ndarray
    sha256: str = ""

    def take(self, indices: Sequence[int]) -> np.ndarray:
        """uint8 RGB (len(indices), h, w, 3) of frames that are in memory, at least one."""
        if isinstance(self.frames, np.ndarray):
            return self.frames[list(indices)]
        return np.stack([self.frames[i] for i in indices])

    @property
    def bytes(self) -> int:
        """Size of the frames in memory."""
        if isinstance(self.frames, np.ndarray):
            return self.frames.nbytes
        return sum(frame.nbytes for frame in self.frames.values())


def read_video(path: Path, indices: Sequence[int] | None = None) -> Video:
    """Decode all frames, or those of `indices` (in that order, repeats allowed), to upright RGB.
    Raises UnreadableVideo: missing, empty, damaged, no video, or too long to hold; IndexError."""
    path = Path(path)
    wanted = None if indices is None else {int(i) for i in indices}
    if wanted is not None and (not wanted or min(wanted) < 0):
        raise IndexError(f"frame indices must be 0 or more, and at least one: {indices}")
    kept = _Kept(path)
    count = 0
    for frame, about in decoded_frames(path):
        if not count:
            kept.expect(about.frames if wanted is None else len(wanted), about)
        if wanted is None or count in wanted:
            kept.add(count, frame, about)
        count += 1
        if wanted is not None and len(kept.frames) == len(wanted):
            break
    if wanted is not None and len(kept.frames) < len(wanted):
        raise IndexError(f"{path} has {count} frames, not {max(wanted)}")
    kept.check()
    order = range(count) if indices is None else [int(i) for i in indices]
    return Video(np.stack([kept.frames[i] for i in order]), about.fps)


def read_spread(path: Path, frames: int) -> np.ndarray:
    """`frames` evenly spaced frames, the first and the last included: uint8 RGB (frames, h, w, 3).
    Raises UnreadableVideo."""
    def choose(count: int) -> list[int]:
        return np.linspace(0, count - 1, frames).round().astype(int).tolist()

    clip = read_chosen(path, choose)
    return clip.take(choose(clip.count))


def read_chosen(path: Path, choose: Callable[[int], Collection[int]]) -> Clip:
    """Decode a video once, from start to end, and keep the frames of `choose(count)`.

    The true number of frames is only known at the end; if the header's is wrong or missing, the
    video is decoded a second time. Raises UnreadableVideo: missing, empty, damaged, or too long to
    hold."""
    path = Path(path)
    kept = _Kept(path)
    wanted: Collection[int] = ()
    count = 0
    for frame, about in decoded_frames(path):
        if not count and about.frames:
            wanted = choose(about.frames)
            kept.expect(len(set(wanted)), about)
        kept.see(frame)
        if count in wanted:
            kept.add(count, frame, about)
        count += 1
    wanted = choose(count)
    if not kept.frames.keys() >= set(wanted):
        kept = _Kept(path)
        for index, (frame, about) in enumerate(decoded_frames(path)):
            kept.see(frame)
            if index in wanted:
                kept.add(index, frame, about)
    kept.check()
    return Clip(count, about.fps, {i: kept.frames[i] for i in sorted(set(wanted))})


class _Kept:
    """Frames of one video converted to RGB, while they fit in memory. Raises UnreadableVideo: too
    long to hold, or (in `check`) of several sizes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.frames: dict[int, np.ndarray] = {}
        self.sizes: set[tuple[int, int]] = set()
        self._bytes = 0

    def expect(self, count: int, about: About) -> None:
        """Refuse at the start what will not fit, by the size that the file states."""
        self._hold(3 * count * about.width * about.height, count)

    def see(self, frame: av.VideoFrame) -> None:
        """Record a frame's size, whether or not it is kept."""
        self.sizes.add((frame.height, frame.width))

    def add(self, index: int, frame: av.VideoFrame, about: About) -> None:
        """Convert and keep a frame."""
        self.frames[index] = to_rgb(frame, about)
        self._bytes += self.frames[index].nbytes
        self._hold(self._bytes, index + 1)

    def _hold(self, size: int, count: int) -> None:
        if size > MAXIMUM_BYTES:
            raise UnreadableVideo(
                f"{self.path} is too long to hold in memory ({count} frames fill "
                f"{size / 1e9:.0f} GB, the limit is {MAXIMUM_BYTES / 1e9:.0f} GB); cut it or make "
                "it smaller."
            )

    def check(self) -> None:
        """Refuse a video of several sizes."""
        if len({a.shape for a in self.frames.values()}) > 1 or len(self.sizes) > 1:
            raise UnreadableVideo(f"{self.path} changes its picture size; convert it to one size.")


def check_readable(path: Path) -> None:
    """Decode the first frame. Raises UnreadableVideo."""
    with closing(decoded_frames(path)) as frames:
        next(frames)


def count_frames(path: Path) -> int:
    """The number of frames that can be decoded; the header may be wrong. Raises UnreadableVideo."""
    return sum(1 for _ in decoded_frames(path))
