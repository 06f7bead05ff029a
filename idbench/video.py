"""Video files: repeatable H.264 encoding, and decoding to RGB frames."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.stream import Disposition

from idbench.errors import UserError
from idbench.files import write_bytes
from idbench.types import Video

CRF = 8
"""x264's constant rate factor. At 8, visually lossless, small faces stay readable."""

MAXIMUM_BYTES = 4_000_000_000
"""Decoded frames that `read_video` keeps at most."""

_REPEATABLE = {"bf": "0", "mbtree": "0"}
"""At small sizes x264's look-ahead for B-frames reads unset memory, so bytes would vary."""

_SIZE_KEY = "idbench size "
"""Prefix of the mp4 comment that holds the true size of a video with an odd side."""


class UnreadableVideo(UserError):
    """A video file that is missing, empty, damaged, or no video."""


def write_video(path: Path, video: Video) -> None:
    """Encode `video` as H.264 (yuv420p, mp4), atomically; equal frames give equal bytes.

    Frames are uint8 RGB (frames, height, width, 3). yuv420p needs even sides: an odd side is
    padded by its last row or column, and `read_video` crops it again.

    Raises:
        ValueError: frames of another type or shape, or no frames.
        DiskFull: the disk is full.
    """
    frames = np.asarray(video.frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        raise ValueError(
            f"frames must be uint8 of shape (T, H, W, 3), not {frames.dtype} {frames.shape}"
        )
    height, width = frames.shape[1:3]
    odd = height % 2, width % 2
    if any(odd):
        frames = np.pad(frames, ((0, 0), (0, odd[0]), (0, odd[1]), (0, 0)), mode="edge")
    rate = Fraction(video.fps).limit_denominator(1001)
    # Encode in memory and write at once: a muxer may hide a full disk, a write does not.
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        if any(odd):
            container.metadata["comment"] = f"{_SIZE_KEY}{height}x{width}"
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(CRF), "preset": "medium", **_REPEATABLE}
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
        count: number of frames that the whole video has.
        fps: frames a second.
        frames: by index, uint8 RGB (h, w, 3) each; an array (count, h, w, 3) has all of them.
        sha256: of the video file.
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
    """Decode all frames, or those of `indices` (in that order, repeats allowed), to RGB.

    Rotation stored by phones is applied. Only the frames asked for are converted and kept.

    Raises:
        UnreadableVideo: missing, empty, damaged, no video, or too long to hold.
        IndexError: an index outside 0..frames - 1.
    """
    path = Path(path)
    wanted = None if indices is None else {int(i) for i in indices}
    if wanted is not None and (not wanted or min(wanted) < 0):
        raise IndexError(f"frame indices must be 0 or more, and at least one: {indices}")
    kept = _Kept(path)
    count = 0
    for frame, about in _decode(path):
        if wanted is None or count in wanted:
            kept.add(count, frame, about.crop)
        count += 1
        if wanted is not None and len(kept.frames) == len(wanted):
            break
    if wanted is not None and len(kept.frames) < len(wanted):
        raise IndexError(f"{path} has {count} frames, not {max(wanted)}")
    kept.check()
    order = range(count) if indices is None else [int(i) for i in indices]
    return Video(np.stack([kept.frames[i] for i in order]), about.fps)


def read_spread(path: Path, frames: int) -> np.ndarray:
    """`frames` frames, evenly spaced from the first to the last: uint8 RGB (frames, h, w, 3).

    Raises:
        UnreadableVideo: as `read_video`.
    """
    def choose(count: int) -> list[int]:
        return np.linspace(0, count - 1, frames).round().astype(int).tolist()

    clip = read_chosen(path, choose)
    return clip.take(choose(clip.count))


def read_chosen(path: Path, choose: Callable[[int], Collection[int]]) -> Clip:
    """Decode a video once, from its start to its end, and keep the frames of `choose(count)`.

    The number of frames is only certain at the end, so the header's number decides which frames
    are kept. Where it is wrong or missing, the video is decoded a second time.

    Raises:
        UnreadableVideo: missing, empty, damaged, no video, or too long to hold.
    """
    path = Path(path)
    kept = _Kept(path)
    wanted: Collection[int] = ()
    count = 0
    for frame, about in _decode(path):
        if not count and about.frames:
            wanted = choose(about.frames)
        kept.see(frame)
        if count in wanted:
            kept.add(count, frame, about.crop)
        count += 1
    wanted = choose(count)
    if not kept.frames.keys() >= set(wanted):
        kept = _Kept(path)
        for index, (frame, about) in enumerate(_decode(path)):
            kept.see(frame)
            if index in wanted:
                kept.add(index, frame, about.crop)
    kept.check()
    return Clip(count, about.fps, {i: kept.frames[i] for i in sorted(set(wanted))})


class _Kept:
    """Frames of one video converted to RGB, while they fit in memory.

    Raises:
        UnreadableVideo: too long to hold, or (in `check`) of several sizes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.frames: dict[int, np.ndarray] = {}
        self.sizes: set[tuple[int, int]] = set()
        self._bytes = 0

    def see(self, frame: av.VideoFrame) -> None:
        """Record a frame's size, whether or not it is kept."""
        self.sizes.add((frame.height, frame.width))

    def add(self, index: int, frame: av.VideoFrame, crop: tuple[int, int] | None) -> None:
        """Convert and keep a frame."""
        self.frames[index] = to_rgb(frame, crop)
        self._bytes += self.frames[index].nbytes
        if self._bytes > MAXIMUM_BYTES:
            raise UnreadableVideo(
                f"{self.path} is too long to hold in memory ({index + 1} frames fill "
                f"{self._bytes / 1e9:.0f} GB); cut it or make it smaller."
            )

    def check(self) -> None:
        """Refuse a video of several sizes."""
        if len({a.shape for a in self.frames.values()}) > 1 or len(self.sizes) > 1:
            raise UnreadableVideo(
                f"{self.path} changes its picture size; convert it to one size."
            )


def check_readable(path: Path) -> None:
    """Decode the first frame.

    Raises:
        UnreadableVideo: missing, empty, damaged, or not a video.
    """
    with closing(_decode(Path(path))) as frames:
        next(frames)


def count_frames(path: Path) -> int:
    """The number of frames that can be decoded (the number in the header may be wrong).

    Raises:
        UnreadableVideo: missing, empty, damaged, or no video.
    """
    return sum(1 for _ in decoded_frames(Path(path)))


def decoded_frames(path: Path) -> Iterator[tuple[av.VideoFrame, float, tuple[int, int] | None]]:
    """Each decoded frame with the video's rate and the size to crop it to, if any."""
    for frame, about in _decode(path):
        yield frame, about.fps, about.crop


def to_rgb(frame: av.VideoFrame, crop: tuple[int, int] | None) -> np.ndarray:
    """A decoded frame as uint8 RGB (h, w, 3), cropped and turned as its camera was held."""
    array: np.ndarray = frame.to_ndarray(format="rgb24")
    if crop:
        array = array[: crop[0], : crop[1]]
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.rot90(array, turns) if turns else array


@dataclass(frozen=True)
class _About:
    """What a file states: the video's rate, true size and number of frames (0: not stated)."""

    fps: float
    crop: tuple[int, int] | None
    frames: int


def _decode(path: Path) -> Generator[tuple[av.VideoFrame, _About], None, None]:
    """Each decoded frame, with what the file states about the video."""
    if not path.is_file():
        raise UnreadableVideo(f"The video {path} is missing; check the path.")
    count = 0
    try:
        with av.open(str(path)) as container:
            # The cover picture of an audio file is a video stream too.
            shown = [s for s in container.streams.video
                     if not s.disposition & Disposition.attached_pic]
            if not shown:
                raise UnreadableVideo(f"{path} contains no video; give a video file.")
            stream = shown[0]
            fps = float(stream.average_rate or stream.guessed_rate or 0) or 8.0
            crop = _true_size(container.metadata.get("comment", ""))
            stated = _stated_seconds(container, stream)
            about = _About(fps, crop, stream.frames or round((stated or 0.0) * fps))
            end = 0.0
            for frame in container.decode(stream):
                yield frame, about
                count += 1
                start = frame.time or 0.0
                end = max(end, start + float((frame.duration or 0) * (frame.time_base or 0)))
    except (av.error.FFmpegError, ValueError, EOFError) as error:
        where = f"after frame {count - 1}" if count else "at its start"
        raise UnreadableVideo(
            f"The video {path} cannot be read {where} ({_short(error)}); create or copy it again."
        ) from error
    if not count:
        raise UnreadableVideo(f"The video {path} has no frames; create or copy it again.")
    if _cut_gif(path):
        raise UnreadableVideo(
            f"The video {path} is truncated: it ends in the middle of frame {count - 1} or after "
            "it; create or copy it again."
        )
    # Some containers end early without an error; a short remainder is not counted.
    if stated is not None and end < 0.9 * stated - 0.25:
        raise UnreadableVideo(
            f"The video {path} is truncated: it ends after {end:.1f} of {stated:.1f} s; make or "
            "copy it again."
        )


def _stated_seconds(container: Any, stream: Any) -> float | None:
    """The length of the video that the file states, from its first frame on, or None."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is not None and len(container.streams) == 1:
        return float(container.duration) / av.time_base
    return None


def _cut_gif(path: Path) -> bool:
    """Whether a GIF lacks its last byte, 0x3b; zeros may follow it."""
    with open(path, "rb") as stream:
        if stream.read(4) != b"GIF8":
            return False
        stream.seek(-min(path.stat().st_size, 1024), 2)
        return not stream.read().rstrip(b"\0").endswith(b"\x3b")


def _true_size(comment: str) -> tuple[int, int] | None:
    if not comment.startswith(_SIZE_KEY):
        return None
    height, _, width = comment[len(_SIZE_KEY):].partition("x")
    return int(height), int(width)


def _short(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
