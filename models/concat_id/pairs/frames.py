"""Pictures of a video: frames at a fixed rate with the movement after each, and crops of faces."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from idbench import video
from idbench.metrics.faces.align import align_crops, similarity_transforms
from idbench.models.concat_id.references import ARCFACE_SIZE, CROP_SCALE, crop_face

JPEG_QUALITY = 95
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


def key(name: str) -> str:
    """A file name for a video's crops, from its name, which may hold any characters."""
    return hashlib.blake2b(name.encode("utf-8"), digest_size=8).hexdigest()


def crop_file(stem: str, crop: str) -> str:
    """The crop's file, relative to the output folder; 256 folders keep each one small."""
    return f"faces/{stem[:2]}/{stem}_{crop}.jpg"


def face_crop(
    image: np.ndarray, landmarks: np.ndarray, largest: int, alignment: str = "upright"
) -> np.ndarray:
    """A face as `references.prepare` crops it, with its background, at its own resolution, at most
    `largest` pixels a side: uint8 RGB (side, side, 3)."""
    marks = np.asarray(landmarks, np.float64)
    if alignment == "arcface":
        # At the face's own resolution the similarity onto the template neither grows nor shrinks.
        zoom = float(np.hypot(*similarity_transforms(marks, ARCFACE_SIZE)[:, 0]))
        size = int(np.clip(round(ARCFACE_SIZE / max(zoom, 1e-6)), 16, largest))
        return align_crops(image, marks[None], size)[0]
    eyes, mouth, across = marks[:2].mean(0), marks[3:5].mean(0), marks[1] - marks[0]
    squares = float(across @ across + (mouth - eyes) @ (mouth - eyes))
    side = CROP_SCALE * max(np.sqrt(squares / 2), 1.0)
    # Resize only the neighbourhood: for each face, a whole 4K frame would be slow.
    low = np.clip(np.floor(eyes - side), 0, None).astype(int)
    high = np.ceil(eyes + side).astype(int) + 1
    window = image[low[1] : high[1], low[0] : high[0]]
    if not window.size:
        window, low = image, np.zeros(2, int)
    return crop_face(window, marks - low, int(np.clip(round(side), 16, largest)))


def encode(image: np.ndarray) -> bytes:
    """A JPEG of an RGB picture."""
    done, data = cv2.imencode(
        ".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    if not done:
        raise ValueError(f"cannot encode a picture of shape {image.shape}")
    return data.tobytes()
