"""Pictures of a video: frames at a fixed rate with the movement after each, crops of faces, and
garment and background references for the multi-subject outputs.

Of these references, mode `files` looks next to the video `clip.mp4`:

    clip.garment.png       the garment, used as it is
    clip.garment-mask.png  white where the garment is; cut from the frame, white elsewhere
    clip.background.png    the background, used as it is
    clip.person-mask.png   white where people are; painted over from their surroundings

Masks have the video's shape and belong to the first sampled frame that shows one face. Mode
`parser` finds both masks in that frame with the embedded face parser, which knows avatars; for
photographs give files. Mode `none` makes no subject references.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from idbench import video
from idbench.errors import UserError
from idbench.files import atomic_path
from idbench.metrics.faces.crops import align_crops, similarity_transforms
from idbench.models.concat_id.references import ARCFACE_SIZE, CROP_SCALE, crop_face
from idbench.pictures import UnreadablePicture, open_rgb

JPEG_QUALITY = 95
_FLOW_HEIGHT = 128
"""Rows of the grey pictures that optical flow and motion are measured on."""
BESIDE = {"garment": "garment-mask", "background": "person-mask"}
"""Of the images next to a video: what is used as it is, and what it is made with otherwise."""
MINIMUM_SHARE = 0.01
"""A garment that fills less of the frame is no reference."""
WINDOW = 2.6
"""Side of the parser's window, in heights of the face's box (what it was trained on)."""


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


def beside(video: Path, kind: str) -> Path:
    """Path of an image for a video: `clip.KIND.png` next to `clip.mp4`."""
    return video.with_name(f"{video.stem}.{kind}.png")


def prepare_subjects(
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
        garment, person = subject_masks(*frame)
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


def subject_masks(image: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
