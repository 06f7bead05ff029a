"""Face references prepared pixel by pixel as the released Concat-ID code does.

One search for faces, without a grey border; without a face the whole picture is used. The parser
runs either way. Crops are resized bicubically as floats, to sizes cut to whole pixels.

Source: `get_face_image` and `resize_pad_crop` of github.com/ML-GSAI/Concat-ID, sample_video.py; and
inference_wan.py, whose conversion to 8 bits lets what the filter overshoots wrap around, so that
0.2 % of a photograph's pixels, at strong edges, turn from white to black or the reverse.
"""

from __future__ import annotations

import numpy as np
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize

from idbench.models.concat_id.references import (
    ARCFACE_SIZE,
    NO_FACE,
    SMALL_HEAD,
    Foreground,
    Prepared,
    remove_background,
)


def prepare(
    image: np.ndarray, landmarks: np.ndarray | None, foreground: Foreground, height: int,
    width: int, wrapped: bool = False,
) -> Prepared:
    """A face reference for a video of (height, width), from a photograph as
    `pictures.read_converted` reads it, the landmarks, float32 (5, 2), of the largest face (None: no
    face), and the face parser. `wrapped`: as inference_wan.py, see `fit_and_pad`."""
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
    return Prepared(fit_and_pad(face, height, width, wrapped), "; ".join(problems) or None)


def fit_and_pad(
    image: np.ndarray, height: int, width: int, wrapped: bool = False
) -> np.ndarray:
    """Resize uint8 RGB (H, W, 3) to fit into (height, width), and pad with black. `wrapped`: values
    are cut to whole numbers, not rounded, and what lies beyond 0..255 wraps around."""
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
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    canvas = np.zeros((height, width, 3), np.uint8)
    canvas[top : top + size[0], left : left + size[1]] = whole.byte().permute(1, 2, 0).numpy()
    return canvas
