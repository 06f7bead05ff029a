"""Garment and background references of a video, for the multi-subject outputs.

Mode `files` looks next to the video `clip.mp4`:

    clip.garment.png       the garment, used as it is
    clip.garment-mask.png  white where the garment is; cut from the frame, white elsewhere
    clip.background.png    the background, used as it is
    clip.person-mask.png   white where people are; painted over from their surroundings

Masks have the video's shape and belong to the first sampled frame that shows one face. Mode
`parser` finds both masks in that frame with the embedded face parser, which knows avatars; for
photographs give files. Mode `none` makes no subject references.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from idbench.errors import UserError
from idbench.files import atomic_path
from idbench.pictures import UnreadablePicture, open_rgb

BESIDE = {"garment": "garment-mask", "background": "person-mask"}
"""Of the images next to a video: what is used as it is, and what it is made with otherwise."""
MINIMUM_SHARE = 0.01
"""A garment that fills less of the frame is no reference."""
WINDOW = 2.6
"""Side of the parser's window, in heights of the face's box (what it was trained on)."""


def beside(video: Path, kind: str) -> Path:
    """Path of an image for a video: `clip.KIND.png` next to `clip.mp4`."""
    return video.with_name(f"{video.stem}.{kind}.png")


def prepare(
    mode: str, video: Path, frame: tuple[np.ndarray, np.ndarray] | None, stem: str, out: Path
) -> dict[str, str | None]:
    """Write the subject references of one video under `out`/subjects, in files that begin with
    `stem`: `garment` and `background`, relative to `out`, or None. `frame` is the image, uint8 RGB,
    and box of the first sampled frame with one face, or None. Raises UserError: a file next to the
    video is no image, or a mask has another shape."""
    made: dict[str, np.ndarray | None] = {"garment": None, "background": None}
    if mode == "files":
        made = {kind: _from_files(video, frame, kind, mask) for kind, mask in BESIDE.items()}
    elif mode == "parser" and frame is not None:
        garment, person = parse(*frame)
        made = {
            "garment": cut_garment(frame[0], garment), "background": remove_people(frame[0], person)
        }
    files: dict[str, str | None] = {}
    for kind, image in made.items():
        files[kind] = None if image is None else f"subjects/{stem[:2]}/{stem}_{kind}.png"
        if image is not None:
            with atomic_path(out / str(files[kind])) as temporary:
                Image.fromarray(image).save(temporary)
    return files


def cut_garment(image: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """The garment alone on white, cut to its box; None when it fills under 1% of the frame."""
    if mask.mean() < MINIMUM_SHARE:
        return None
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    alone = np.where(mask[..., None], image, 255).astype(np.uint8)
    return alone[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def remove_people(image: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """The image with people painted over (Telea's inpainting); None when nothing is left."""
    grown = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8))
    if grown.mean() > 0.9:
        return None
    return cv2.inpaint(np.ascontiguousarray(image), grown, 3, cv2.INPAINT_TELEA)


def parse(image: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Masks (h, w) of the garment and of the whole person, by the embedded face parser, which sees
    a window around the head. If it ends above the image's lower border, its last row is continued
    down."""
    from idbench.metrics.networks import parser

    height, width = image.shape[:2]
    side = WINDOW * float(box[3] - box[1])
    x, y = float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2
    left, top = int(np.floor(x - side / 2)), int(np.floor(y - side / 2))
    size = max(16, int(round(side)))
    padded = cv2.copyMakeBorder(
        np.ascontiguousarray(image), size, size, size, size, cv2.BORDER_REPLICATE
    )
    window = padded[top + size : top + 2 * size, left + size : left + 2 * size]
    labels = parser.embedded_parser().probabilities(np.ascontiguousarray(window)[None])[0].argmax(0)
    found = np.zeros((height, width), np.int64)
    y0, y1, x0, x1 = max(top, 0), min(top + size, height), max(left, 0), min(left + size, width)
    found[y0:y1, x0:x1] = labels[y0 - top : y1 - top, x0 - left : x1 - left]
    found[y1:] = found[y1 - 1]
    return found == parser.CLASSES.index("garment"), found != parser.CLASSES.index("background")


def _from_files(
    video: Path, frame: tuple[np.ndarray, np.ndarray] | None, plain: str, mask: str
) -> np.ndarray | None:
    path = beside(video, plain)
    if path.is_file():
        return _image(path, "RGB")
    path = beside(video, mask)
    if not path.is_file() or frame is None:
        return None
    found = _image(path, "L") > 127
    if found.shape != frame[0].shape[:2]:
        raise UserError(
            f"The mask {path} is {found.shape[1]}x{found.shape[0]}, its video "
            f"{frame[0].shape[1]}x{frame[0].shape[0]}; resize it to the video's size."
        )
    return cut_garment(frame[0], found) if plain == "garment" else remove_people(frame[0], found)


def _image(path: Path, mode: str) -> np.ndarray:
    try:
        return np.array(open_rgb(path).convert(mode))
    except UnreadablePicture as error:
        raise UserError(f"{path} is not a readable image; make or copy it again.") from error
