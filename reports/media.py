"""Images and videos of a report as data URIs: small, decoded once."""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from idbench.files import real
from idbench.pages import data_uri
from idbench.pictures import UnreadablePicture, encoded, open_rgb

REFERENCE_SIZE = 144
CROP_SIZE = 48
MAXIMUM_CROPS = 16
MISSING = (214, 211, 204)
"""Colour of the tile of a frame in which the person was not found."""


def picture_uri(pixels: np.ndarray, quality: int = 82) -> str:
    """An RGB image (H, W, 3) uint8 as a WebP data URI."""
    data = encoded(Image.fromarray(pixels), "WEBP", quality=quality, method=2)
    return data_uri("image/webp", data)


@lru_cache(maxsize=4096)
def reference_uri(path: Path) -> str | None:
    """A reference image, at most `REFERENCE_SIZE` high and wide; None when unreadable."""
    try:
        image = open_rgb(path)
    except UnreadablePicture:
        return None
    image.thumbnail((REFERENCE_SIZE, REFERENCE_SIZE), Image.Resampling.LANCZOS)
    return picture_uri(np.asarray(image), quality=86)


def video_uri(path: Path, page: Path, embed: bool) -> str:
    """A video as a data URI, or as an address relative to the page that shows it."""
    if embed:
        kind = mimetypes.guess_type(path.name)[0] or "video/mp4"
        return data_uri(kind, path.read_bytes())
    try:
        relative = os.path.relpath(real(path), real(page).parent)
    except ValueError:  # another drive
        return real(path).as_uri()
    return quote(Path(relative).as_posix())


def small(pixels: np.ndarray, width: int = 576) -> np.ndarray:
    """An image no wider than `width`."""
    if pixels.shape[1] <= width:
        return pixels
    height = max(1, round(pixels.shape[0] * width / pixels.shape[1]))
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))


def crop_strip(
    frames: Mapping[int, np.ndarray], faces: Sequence[Mapping[str, Any]], identity: str | None
) -> tuple[str | None, tuple[int, ...], tuple[int, ...]]:
    """The face matched to an identity in each sampled frame, side by side.

    Args:
        frames: index -> uint8 RGB frame (H, W, 3), at least those of `shown`.
        faces: as `faces.json`: a mapping with frame, boxes and assignment for each frame.
        identity: name of the reference; None: the first face that was matched to nobody.

    Returns a data URI (None without sampled frames), the frame of each tile, and the places of the
    tiles without the person, which have the colour `MISSING`.
    """
    looked = [f for f in shown(faces) if f["frame"] in frames]
    if not looked:
        return None, (), ()
    found = [f["assignment"].get(identity) if identity else unmatched(f) for f in looked]
    tiles = [
        np.full((CROP_SIZE, CROP_SIZE, 3), MISSING, np.uint8) if index is None
        else _crop(frames[entry["frame"]], entry["boxes"][index])
        for entry, index in zip(looked, found, strict=True)
    ]
    missing = tuple(place for place, index in enumerate(found) if index is None)
    uri = picture_uri(np.concatenate(tiles, axis=1), quality=80)
    return uri, tuple(f["frame"] for f in looked), missing


def unmatched(entry: Mapping[str, Any]) -> int | None:
    """Index of the first face of a frame that was matched to no reference."""
    matched = set(entry["assignment"].values())
    return next((i for i in range(len(entry["boxes"])) if i not in matched), None)


def shown(faces: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The sampled frames that a strip shows: at most `MAXIMUM_CROPS`, evenly spread."""
    if len(faces) <= MAXIMUM_CROPS:
        return list(faces)
    return [faces[i] for i in np.linspace(0, len(faces) - 1, MAXIMUM_CROPS).astype(int)]


def _crop(frame: np.ndarray, box: Sequence[float]) -> np.ndarray:
    """A square around a box x0, y0, x1, y1, with a margin, at `CROP_SIZE`."""
    x0, y0, x1, y1 = (float(v) for v in box)
    half = 0.62 * max(x1 - x0, y1 - y0, 2.0)
    height, width = frame.shape[:2]
    # A face may extend beyond the edge of the frame, and a detector's box may lie outside.
    x = float(np.clip((x0 + x1) / 2, 0, width))
    y = float(np.clip((y0 + y1) / 2, 0, height))
    # Copy only the square and the margin that the resampling filter reads.
    around = half + 4 * half / CROP_SIZE + 4
    left, right, top, bottom = (int(v) for v in np.floor(
        [x - around, x + around, y - around, y + around]))
    part = frame[max(top, 0):bottom, max(left, 0):right]
    beyond = ((max(-top, 0), max(bottom - height, 0)), (max(-left, 0), max(right - width, 0)))
    if any(map(any, beyond)):
        part = np.pad(part, (*beyond, (0, 0)), mode="edge")
    square = (x - half - left, y - half - top, x + half - left, y + half - top)
    image = Image.fromarray(np.ascontiguousarray(part))
    return np.asarray(image.resize((CROP_SIZE, CROP_SIZE), Image.Resampling.BICUBIC, box=square))
