"""Videos as pictures: folders of numbered frames, and animated WebP and AVIF files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from idbench.errors import UserError
from idbench.pictures import open_picture, over_white, read_rgb

FPS = 8.0
"""Rate of frames that come without one."""

PICTURE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".ppm", ".tif", ".tiff", ".avif", ".heic",
    ".heif",
)
ANIMATED_SUFFIXES = (".webp", ".png", ".apng", ".avif", ".avifs")
"""Endings of pictures that may be animated."""


@dataclass(frozen=True)
class Sequence:
    """Frames that are pictures: `size` is (width, height) of the first, `frames` gives uint8 RGB
    (height, width, 3) each."""

    count: int
    fps: float
    size: tuple[int, int]
    frames: Callable[[], Iterator[np.ndarray]]


def frame_files(folder: Path) -> list[Path]:
    """The frames of a folder, ordered by the number at the end of their names, which are otherwise
    equal; empty if the folder holds anything else. Hidden files are ignored."""
    numbered: list[tuple[int, Path]] = []
    names = set()
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        found = re.fullmatch(r"(.*?)([0-9]{1,18})", path.stem)
        if path.suffix.lower() not in PICTURE_SUFFIXES or not found or not path.is_file():
            return []
        numbered.append((int(found[2]), path))
        names.add((found[1], path.suffix))
    return [path for _, path in sorted(numbered)] if len(names) == 1 else []


def of_folder(folder: Path) -> Sequence:
    """The frames of a folder. Raises UserError: there are none, or the first is not a picture."""
    files = frame_files(folder)
    if not files:
        raise UserError(
            f"The folder {folder} is not a video; a folder of frames holds numbered pictures, "
            "such as frame_0001.png, and nothing else."
        )
    with open_picture(files[0]) as first:
        size = first.size
    return Sequence(len(files), FPS, size, lambda: _of_one_size(files, size))


def _of_one_size(files: list[Path], size: tuple[int, int]) -> Iterator[np.ndarray]:
    """The pictures; one with another number of pixels (cameras may turn them) is not decoded."""
    for file in files:
        with open_picture(file) as opened:
            if opened.width * opened.height != size[0] * size[1]:
                raise UserError(
                    f"The video {file.parent} changes its picture size at {file.name}; convert it "
                    "to one size."
                )
        yield read_rgb(file)


def is_animation(path: Path) -> bool:
    """Whether a file is an animated WebP or AVIF; FFmpeg reads all others."""
    with open(path, "rb") as stream:
        head = stream.read(12)
    if head[4:12] != b"ftypavis" and (head[:4], head[8:]) != (b"RIFF", b"WEBP"):
        return False
    return is_animated(path)


def is_animated(path: Path) -> bool:
    """Whether a picture file holds several frames; looks at the header alone."""
    try:
        with Image.open(path) as opened:
            return bool(getattr(opened, "is_animated", False))
    except Exception:  # what a damaged file does to PIL's readers is not documented
        return False


def of_animation(path: Path) -> Sequence:
    """The frames of an animated picture; transparent parts lie over white."""
    with Image.open(path) as opened:
        size, count = opened.size, int(getattr(opened, "n_frames", 1))
    return Sequence(count, _rate(path) or FPS, size, lambda: _frames(path))


def _frames(path: Path) -> Iterator[np.ndarray]:
    with Image.open(path) as opened:
        for frame in ImageSequence.Iterator(opened):
            yield np.array(over_white(frame).convert("RGB"))


def _rate(path: Path) -> float:
    """Frames a second on average; 0 if no frame says how long it is shown."""
    with Image.open(path) as opened:
        shown = []
        for frame in ImageSequence.Iterator(opened):
            frame.load()  # only then it is known
            shown.append(frame.info.get("duration") or 0)
    return 1000 * len(shown) / sum(shown) if sum(shown) else 0.0
