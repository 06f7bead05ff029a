"""Frames of a video at a fixed rate, decoded once, with the movement after each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from idbench import video

_FLOW_HEIGHT = 128
"""Rows of the grey pictures that optical flow and motion are measured on."""


@dataclass(frozen=True)
class SampledFrame:
    """One sampled frame.

    Attributes:
        index: in the video, from 0.
        image: upright uint8 RGB (h, w, 3).
        fps: the video's frames per second.
        flow: mean length of the optical flow to the next frame, in diagonals of the picture a
            second; None for the last frame.
        motion: mean absolute difference of the blurred grey values to the next frame, 0..255, as
            VMAF's motion feature; None for the last frame.
    """

    index: int
    image: np.ndarray
    fps: float
    flow: float | None = None
    motion: float | None = None


def sample(path: Path, rate: float) -> Iterator[SampledFrame | int]:
    """`rate` frames a second, from the first on, and at the end the number of all frames; holds one
    frame at a time. A video with a lower rate gives all its frames. Raises UnreadableVideo."""
    waiting: SampledFrame | None = None
    before: np.ndarray | None = None
    taken = count = 0
    for frame, about in video.decoded_frames(path):
        fps = about.fps
        if waiting is not None and before is not None:
            flow, motion = movement(before, _grey(frame), fps)
            yield SampledFrame(waiting.index, waiting.image, fps, flow, motion)
            waiting = None
        if count >= round(taken * fps / rate):
            waiting = SampledFrame(count, video.to_rgb(frame, about), fps)
            before = _grey(frame)
            taken += 1
        count += 1
    if waiting is not None:
        yield waiting
    yield count


def movement(first: np.ndarray, second: np.ndarray, fps: float) -> tuple[float, float]:
    """`flow` and `motion` (see `SampledFrame`) between two grey pictures, uint8 (h, w). Flow is
    Farneback's (OpenCV), blur is Gaussian with a standard deviation of 1 pixel."""
    if first.shape != second.shape:
        return 0.0, 0.0
    field = cv2.calcOpticalFlowFarneback(  # type: ignore[call-overload]
        first, second, None, 0.5, 3, 15, 3, 5, 1.2, 0
    )
    diagonal = float(np.hypot(*first.shape))
    flow = float(np.hypot(field[..., 0], field[..., 1]).mean()) / diagonal * fps
    blurred = [cv2.GaussianBlur(x.astype(np.float32), (5, 5), 1.0) for x in (first, second)]
    return flow, float(np.abs(blurred[0] - blurred[1]).mean())


def _grey(frame: video.av.VideoFrame) -> np.ndarray:
    """A small grey picture of the frame, uint8; never enlarged."""
    height = min(frame.height, _FLOW_HEIGHT)
    width = max(1, round(frame.width * height / frame.height))
    return frame.reformat(width=width, height=height, format="gray").to_ndarray()
