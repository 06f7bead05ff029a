"""From a video file, or a folder of frames, to upright frames with square pixels."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.stream import Disposition

from idbench import pictures
from idbench.errors import UserError

MAXIMUM_PIXELS = 8192 * 4320
"""Pixels of a frame at most (8K): scoring a larger one fills the memory of most machines."""

_LIMIT = f"{MAXIMUM_PIXELS / 1e6:.0f} million (8K)"

SIZE_KEY = "idbench size "
"""Prefix of the mp4 comment that holds the true size of a video with an odd side."""

SQUARE = 0.01
"""Sample aspect ratios this near to 1 only come from rounding sizes to whole pixels."""


class UnreadableVideo(UserError):
    """A video file that is missing, empty, damaged, too large, or not a video."""


@dataclass(frozen=True)
class About:
    """What a file states about its video.

    Attributes:
        frames: 0 if not stated.
        width, height: in square pixels, before rotation.
        crop: height and width of the true picture in the top left corner, if it is smaller.
        stretched: whether `width` differs from the stored one.
    """

    fps: float
    frames: int
    width: int
    height: int
    crop: tuple[int, int] | None = None
    stretched: bool = False


def decoded_frames(path: Path) -> Generator[tuple[av.VideoFrame, About], None, None]:
    """Each decoded frame, with what the file states about the video. `path` may be a folder of
    numbered pictures. Raises UnreadableVideo: missing, empty, damaged, too large, or not a
    video."""
    path = Path(path)
    if path.is_dir():
        yield from _from_pictures(path, pictures.of_folder)
    elif not path.is_file():
        raise UnreadableVideo(f"The video {path} is missing; check the path.")
    elif pictures.is_animation(path):
        yield from _from_pictures(path, pictures.of_animation)
    else:
        yield from _from_container(path)


def to_rgb(frame: av.VideoFrame, about: About) -> np.ndarray:
    """A decoded frame as uint8 RGB (h, w, 3): cropped, with square pixels (the height is kept, as
    in players), and upright."""
    if about.stretched:
        array: np.ndarray = frame.to_ndarray(
            format="rgb24", width=about.width, height=about.height, interpolation="BICUBIC")
    else:
        array = frame.to_ndarray(format="rgb24")
    if about.crop:
        array = array[: about.crop[0], : about.crop[1]]
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    return array if matrix is None else upright(array, np.frombuffer(bytes(matrix), np.int32))


def upright(array: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """`array` (h, w, 3) turned and mirrored by a display matrix (a, b, u, c, d, v, x, y, w), to the
    nearest quarter turn: x' = a x + c y, y' = b x + d y, y downwards (ISO/IEC 14496-12)."""
    a, b, c, d = (int(matrix[i]) for i in (0, 1, 3, 4))
    if abs(b) + abs(c) > abs(a) + abs(d):
        array, flip_x, flip_y = array.transpose(1, 0, 2), c < 0, b < 0
    else:
        flip_x, flip_y = a < 0, d < 0
    return array[:: -1 if flip_y else 1, :: -1 if flip_x else 1]


def _from_pictures(
    path: Path, read: Callable[[Path], pictures.PictureSequence]
) -> Generator[tuple[av.VideoFrame, About], None, None]:
    try:
        sequence = read(path)
        about = About(sequence.fps, sequence.count, *sequence.size)
        check_size(path, about)
        for array in sequence.frames():
            yield av.VideoFrame.from_ndarray(array, format="rgb24"), about
    except UserError as error:
        raise UnreadableVideo(str(error)) from error
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise UnreadableVideo(
            f"The video {path} cannot be read ({_short(error)}); create or copy it again."
        ) from error


def _from_container(path: Path) -> Generator[tuple[av.VideoFrame, About], None, None]:
    count, stated_size = 0, None
    try:
        with _open(path) as container:
            stream = _shown(path, container)
            stated = _stated_seconds(container, stream)
            about = _about(container, stream, stated)
            check_size(path, about)
            stated_size = about.width * about.height
            # An mp4 without a time scale: FFmpeg takes 1 s, in which no two frames fit.
            if stream.time_base == 1 and stream.frames > max(stream.duration or 0, 1):
                raise UnreadableVideo(
                    f"The video {path} has no valid time scale, so most of its frames would be "
                    "left out; encode it again."
                )
            end = 0.0
            # The limit of the container ends with probing; a stream may hide its size till then.
            stream.codec_context.options = {"max_pixels": str(MAXIMUM_PIXELS)}
            for frame in container.decode(stream):
                yield frame, about
                count += 1
                start = frame.time or 0.0
                end = max(end, start + float((frame.duration or 0) * (frame.time_base or 0)))
    except (av.error.FFmpegError, ValueError, EOFError) as error:
        where = f"after frame {count - 1}" if count else "at its start"
        if not count and stated_size == 0:
            where += f": its frames are damaged, or of more than {_LIMIT} pixels"
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
            f"The video {path} is truncated: it ends after {end:.1f} of {stated:.1f} s; create or "
            "copy it again."
        )


def _open(path: Path) -> Any:
    """The container, read from an open file, so that a name with `:` is no address. Without a
    protocol, playlists inside a file reach no other file and no network."""
    file = open(os.open(path, os.O_RDONLY), "rb")  # noqa: SIM115 (closed with the container)
    limits = {"protocol_whitelist": "none", "max_pixels": str(MAXIMUM_PIXELS)}
    return av.open(file, options=limits)


def _shown(path: Path, container: Any) -> Any:
    """The first video stream that is not the cover picture of an audio file."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    raise UnreadableVideo(f"{path} contains no video; give a video file.")


def _about(container: Any, stream: Any, stated: float | None) -> About:
    fps = float(stream.average_rate or stream.guessed_rate or 0) or 8.0
    ratio = float(stream.sample_aspect_ratio or 1)
    stretched = abs(ratio - 1) > SQUARE
    return About(
        fps, stream.frames or round((stated or 0.0) * fps),
        max(1, round(stream.width * ratio)) if stretched else stream.width, stream.height,
        _true_size(container.metadata.get("comment", ""), stream), stretched,
    )


def check_size(path: Path, about: About) -> None:
    """Raise UnreadableVideo for frames of more than `MAXIMUM_PIXELS`."""
    if about.width * about.height > MAXIMUM_PIXELS:
        raise UnreadableVideo(
            f"The video {path} has frames of {about.width} x {about.height} pixels, more than the "
            f"limit of {_LIMIT}; make it smaller."
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


def _true_size(comment: str, stream: Any) -> tuple[int, int] | None:
    """Height and width in a comment that `write_video` leaves, at most a pixel below the stored
    ones; any other comment is somebody else's."""
    found = re.fullmatch(rf"{SIZE_KEY}([0-9]{{1,5}})x([0-9]{{1,5}})", comment)
    if not found:
        return None
    height, width = int(found[1]), int(found[2])
    fits = stream.height - height in (0, 1) and stream.width - width in (0, 1)
    return (height, width) if fits else None


def _short(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
