"""Reference images prepared as in the paper: face crop, background removed, fitted and padded.

The steps: the largest face, an upright crop around it, everything but the head set to black
(only where the head fills at least 40 % of the crop), resized to fit the video's size, padded
with black on all sides. Without a face the whole image is fitted and padded instead.
Source: the released Concat-ID inference code; see `Prepared.problem` for what was not done.

`prepare_released` makes the released pixels themselves: one search for faces, without a grey
border; without a face the whole picture is used. The parser runs either way. Crops are resized
bicubically as floats, to sizes cut to whole pixels.

Source: `get_face_image` and `resize_pad_crop` of github.com/ML-GSAI/Concat-ID, sample_video.py; and
inference_wan.py, whose conversion to 8 bits lets what the filter overshoots wrap around, so that
0.2 % of a photograph's pixels, at strong edges, turn from white to black or the reverse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from idbench.metrics.faces.crops import align_crops

CROP_SCALE = 3.3
"""Side of the crop, in sizes of the face: the root mean square of the distance between the
eyes and the distance from the eyes to the mouth."""
MINIMUM_FOREGROUND = 0.4
ARCFACE_SIZE = 448
"""Side of the crop whose five points lie on ArcFace's template. Source: as above."""

NO_FACE = "no face found: whole image used"
SMALL_HEAD = "head fills less than 40% of the crop: background kept"

Foreground = Callable[[np.ndarray], np.ndarray]
"""From an RGB crop, uint8 (H, W, 3), to the share of head in each pixel, float (H, W) in 0..1."""


@dataclass(frozen=True)
class Prepared:
    """A reference ready for the VAE: uint8 RGB (height, width, 3) of the video's size, and the
    `problem`: what of the paper's preparation could not be done, or that there were several
    faces."""

    image: np.ndarray
    problem: str | None = None


def crop_face(
    image: np.ndarray, landmarks: np.ndarray, size: int, scale: float = CROP_SCALE,
    shift: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """An upright square crop around a face, uint8 RGB (size, size, 3), black where it leaves the
    image.

    Args:
        image: uint8 RGB (H, W, 3).
        landmarks: (5, 2) pixels: left eye, right eye (the viewer's), nose, mouth corners.
        scale: see `CROP_SCALE`.
        shift: of the centre, in sides of the crop (training draws it at random).
    """
    eyes, mouth = landmarks[:2].mean(0), landmarks[3:5].mean(0)
    across = landmarks[1] - landmarks[0]
    angle = float(np.arctan2(across[1], across[0]))
    squares = float(across @ across + (mouth - eyes) @ (mouth - eyes))
    side = scale * max(np.sqrt(squares / 2), 1.0)
    # The head reaches higher above the eyes than below the mouth.
    centre = eyes + 0.30 * (mouth - eyes) + side * np.asarray(shift)
    # Shrink first with antialiasing, then rotate and cut at the final resolution.
    zoom = size / side
    height, width = image.shape[:2]
    scaled = (max(1, round(width * zoom)), max(1, round(height * zoom)))
    small = Image.fromarray(image).resize(scaled, Image.Resampling.BICUBIC)
    x, y = centre[0] * scaled[0] / width, centre[1] * scaled[1] / height
    cos, sin = np.cos(angle), np.sin(angle)
    half = size / 2
    matrix = (cos, -sin, x - cos * half + sin * half, sin, cos, y - sin * half - cos * half)
    upright = small.transform(
        (size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=0
    )
    return np.asarray(upright)


def crop_mask(
    mask: np.ndarray, landmarks: np.ndarray, size: int, scale: float = CROP_SCALE,
    shift: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """`crop_face` of a mask, bool or 0..1 (H, W) -> float32 (size, size) in 0..1."""
    image = np.repeat((mask * 255).astype(np.uint8)[..., None], 3, axis=2)
    return crop_face(image, landmarks, size, scale, shift)[..., 0].astype(np.float32) / 255


def remove_background(crop: np.ndarray, foreground: np.ndarray) -> tuple[np.ndarray, bool]:
    """Set everything outside the head to black, if the head fills at least 40% of the crop; also
    returns whether that was done."""
    if float((foreground >= 0.5).mean()) < MINIMUM_FOREGROUND:
        return crop, False
    return (crop * foreground[..., None]).round().astype(np.uint8), True


def fit_and_pad(image: np.ndarray, height: int, width: int, fill: float = 1.0) -> np.ndarray:
    """Resize to fit into `fill` times (height, width), keeping the aspect ratio, and pad with
    black to (height, width)."""
    zoom = fill * min(height / image.shape[0], width / image.shape[1])
    new = (max(1, round(image.shape[0] * zoom)), max(1, round(image.shape[1] * zoom)))
    if new != image.shape[:2]:
        image = np.asarray(Image.fromarray(image).resize(new[::-1], Image.Resampling.LANCZOS))
    return pad(image, height, width)


def pad(image: np.ndarray, height: int, width: int, grey: int = 0) -> np.ndarray:
    """The image in the middle of a black one of (height, width), or one of another `grey`."""
    rows, columns = image.shape[:2]
    top, left = (height - rows) // 2, (width - columns) // 2
    canvas = np.full((height, width, 3), grey, np.uint8)
    canvas[top : top + rows, left : left + columns] = image
    return canvas


def prepare(
    image: np.ndarray, landmarks: np.ndarray | None, foreground: Foreground | None, height: int,
    width: int, alignment: str = "upright", fill: float = 1.0,
) -> Prepared:
    """A face reference for a video of (height, width).

    Args:
        image: uint8 RGB photograph.
        landmarks: (5, 2) of the largest face, or None if no face was found.
        foreground: the face parser; None leaves the background.
        alignment: `upright` (see `crop_face`), or `arcface`: the face alone, its five points on
            ArcFace's template, as the released code crops it.
        fill: share of the height and width that the crop fills, see `fit_and_pad`.
    """
    if landmarks is None:
        return Prepared(fit_and_pad(image, height, width), NO_FACE)
    if alignment == "arcface":
        crop = align_crops(image, np.asarray(landmarks)[None], ARCFACE_SIZE)[0]
    else:
        crop = crop_face(image, np.asarray(landmarks, np.float64), min(height, width))
    problem = None
    if foreground is None:
        problem = "no face parser: background kept"
    else:
        crop, removed = remove_background(crop, foreground(crop))
        if not removed:
            problem = SMALL_HEAD
    return Prepared(fit_and_pad(crop, height, width, fill), problem)


def prepare_released(
    image: np.ndarray, landmarks: np.ndarray | None, foreground: Foreground, height: int,
    width: int, wrapped: bool = False,
) -> Prepared:
    """A face reference for a video of (height, width), from a photograph as
    `pictures.read_converted` reads it, the landmarks, float32 (5, 2), of the largest face (None: no
    face), and the face parser. `wrapped`: as inference_wan.py, see `_fit_and_pad_released`."""
    from insightface.utils.face_align import norm_crop  # imports all of insightface

    problems = []
    if landmarks is None:
        problems.append(NO_FACE)
        face = image
    else:
        face = norm_crop(image, landmarks, image_size=ARCFACE_SIZE)
    face, removed = remove_background(face, foreground(face))
    if not removed:
        problems.append(SMALL_HEAD)
    fitted = _fit_and_pad_released(face, height, width, wrapped)
    return Prepared(fitted, "; ".join(problems) or None)


def _fit_and_pad_released(
    image: np.ndarray, height: int, width: int, wrapped: bool
) -> np.ndarray:
    """Resize uint8 RGB (H, W, 3) to fit into (height, width), and pad with black. `wrapped`: values
    are cut to whole numbers, not rounded, and what lies beyond 0..255 wraps around."""
    import torch
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import resize

    rows, columns = image.shape[:2]
    if rows / columns >= height / width:
        size = [height, max(1, int(columns * height / rows))]
    else:
        size = [max(1, int(rows * width / columns)), width]
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1) / 255
    fitted = resize(pixels, size, InterpolationMode.BICUBIC, antialias=True)
    if wrapped:
        whole = (fitted * 255).int() & 255
    else:
        whole = (fitted.clamp(0, 1) * 255).round()
    return pad(whole.byte().permute(1, 2, 0).numpy(), height, width)
