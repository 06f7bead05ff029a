"""Reads one video: sampled frames, faces, embeddings, crops, movement."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from idbench.devices import check_device
from idbench.errors import UserError
from idbench.files import write_bytes
from idbench.metrics.faces.align import align_crops, crops_of_frames, similarity_transforms
from idbench.metrics.faces.detect import Faces, detector_hashes, make_detector
from idbench.metrics.faces.search import find_faces
from idbench.metrics.networks import weight_sources
from idbench.metrics.protocols import Detection
from idbench.models.concat_id.about import alignment_of
from idbench.models.concat_id.pairs import copies, subjects, tracking
from idbench.models.concat_id.pairs.frames import SampledFrame, sample
from idbench.models.concat_id.pairs.settings import PairSettings
from idbench.models.concat_id.references import ARCFACE_SIZE, CROP_SCALE, crop_face
from idbench.video import UnreadableVideo

BATCH = 16
"""Frames detected and embedded together; numbers are only repeatable at a fixed batch size."""
JPEG_QUALITY = 95
EMBEDDED = Detection(thresholds=(0.6, 0.7, 0.9))
"""MTCNN. Its last stage is stricter than the metrics': a false face breaks the count."""
PACK = Detection(detector="pack", size=320, height=0, thresholds=(0.5, 0.5, 0.5))
"""SCRFD of the insightface pack that `weights` names, as its authors run it."""


@dataclass(frozen=True)
class ReaderSettings:
    """Plain values from which each worker process makes its own reader.

    Attributes:
        weights: as of `--weights`, such as `arcface=insightface:FOLDER`, whose detector is then
            used as well; empty: the embedded MTCNN and ArcFace.
        subjects: where garments and backgrounds come from, `files`, `parser` or `none`; see
            `subjects.prepare`.
        aesthetic: `module:function`, see `load_scorer`; None: no scorer.
        alignment: of the face crops, `upright` or `arcface` (see `face_tools`); None: what
            Concat-ID's references get with these networks.
    """

    pairs: PairSettings
    weights: tuple[str, ...] = ()
    subjects: str = "files"
    aesthetic: str | None = None
    device: str = "cpu"
    alignment: str | None = None


class Reader(Protocol):
    """Reads videos. `identity` names everything that changes what is read."""

    def identity(self) -> Mapping[str, Any]: ...

    def read(self, path: Path, name: str, out: Path) -> tuple[tracking.VideoRecord, np.ndarray]: ...


class FaceReader:
    """The reader with real networks. Raises UserError: wrong `weights`, missing or damaged weight
    files, no such scorer or device."""

    def __init__(self, settings: ReaderSettings) -> None:
        self.settings = settings
        check_device(settings.device)
        named = weight_sources.parse(settings.weights)
        pack = weight_sources.pack_folder(named)
        self.detection = EMBEDDED if pack is None else PACK
        faces = "embedded" if pack is None else "insightface"
        self.alignment = alignment_of(faces, settings.alignment)
        self._detector = make_detector(self.detection, settings.device, pack)
        self._hashes = detector_hashes(self.detection, pack)
        self._recogniser = named["arcface"].load(settings.device)
        self._arcface = named["arcface"].identity()
        self._scorer = load_scorer(settings.aesthetic) if settings.aesthetic else None

    def identity(self) -> dict[str, Any]:
        """All that changes what is read: settings, detection and the weights' hashes."""
        return {
            **self.settings.pairs.reading(), "detection": asdict(self.detection),
            "weights": {**self._hashes, "arcface": self._arcface},
            "subjects": self.settings.subjects, "aesthetic": self.settings.aesthetic,
            "alignment": self.alignment, "version": 2,
        }

    def read(self, path: Path, name: str, out: Path) -> tuple[tracking.VideoRecord, np.ndarray]:
        """Read the video `path`, called `name`; crops go to `out`/faces. Returns the record and the
        embeddings (people, d). Raises UnreadableVideo."""
        limits = self.settings.pairs
        found: list[tracking.FrameFaces] = []
        moves: list[SampledFrame] = []
        scores: list[float] = []
        prints: list[str] = []
        single: tuple[np.ndarray, np.ndarray] | None = None
        count, size, fps = 0, (0, 0), 0.0
        sampled = sample(path, limits.frames_per_second)
        while items := list(islice(sampled, BATCH)):
            if isinstance(items[-1], int):  # the video ends
                count = items[-1]
            batch = [item for item in items if isinstance(item, SampledFrame)]
            for frame in batch:
                if moves and frame.image.shape[:2] != size:
                    raise UnreadableVideo(f"{path} changes its frame size; convert it to one size.")
                size, fps = frame.image.shape[:2], frame.fps
                # Pictures are freed with their batch; the numbers are kept.
                moves.append(replace(frame, image=np.zeros((0, 0, 3), np.uint8)))
                prints.append(copies.frame_print(frame.image))
                if self._scorer is not None:
                    scores.append(self._scorer(frame.image))
            for frame, of_frame in zip(batch, self._faces(batch), strict=True):
                found.append(of_frame)
                if single is None and len(of_frame) == 1:
                    single = frame.image, of_frame.found.boxes[0]
        people, vectors, conflicts, crops = tracking.people_of(
            found, size, limits.people, limits.faces_kept
        )
        stem = key(name)
        made = subjects.prepare(self.settings.subjects, path, single, stem, out)
        for crop, data in crops.items():
            write_bytes(out / crop_file(stem, crop), data)
        people = tuple(
            replace(p, faces=tuple(replace(f, image=crop_file(stem, f.image)) for f in p.faces))
            for p in people
        )
        record = tracking.VideoRecord(
            frames=count, fps=fps, height=size[0], width=size[1],
            counts=tuple(len(f) for f in found),
            cosines=tracking.consecutive_cosines(found), people=people, conflicts=conflicts,
            flow=mean_of(m.flow for m in moves),
            motion=mean_of(m.motion for m in moves),
            aesthetic=mean_of(scores),
            prints=tuple(prints[i] for i in tracking.spread(len(prints), copies.PRINTS)), **made,
        )
        return record, vectors

    def _faces(self, batch: list[SampledFrame]) -> list[tracking.FrameFaces]:
        """Faces of frames of one size; embedded together."""
        if not batch:
            return []
        limits, side = self.settings.pairs, self.detection.crop
        frames = np.stack([f.image for f in batch])
        faces = [f[f.scores >= limits.minimum_confidence]
                 for f in find_faces(self._detector, frames, self.detection)]
        few = [f if len(f) <= limits.people else Faces.none() for f in faces]
        vectors = self._recogniser.embed(crops_of_frames(frames, few, side, side))
        of_frames = np.split(vectors, np.cumsum([len(f) for f in few])[:-1])
        return [
            tracking.FrameFaces(
                frame.index, every, own if len(own) == len(every) else None,
                tuple(encode(face_crop(frame.image, marks, limits.crop_size, self.alignment))
                      for marks in read.landmarks),
            )
            for frame, every, read, own in zip(batch, faces, few, of_frames, strict=True)
        ]


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are not None, or None where there is none."""
    known = [float(value) for value in values if value is not None]
    return round(sum(known) / len(known), 6) if known else None


def load_scorer(address: str) -> Callable[[np.ndarray], float]:
    """The function at `module:function`, from a frame, uint8 RGB (h, w, 3), to its aesthetic score:
    higher is better, and the mean over the sampled frames is used. Raises UserError: it cannot be
    imported, or is no function."""
    module, _, attribute = address.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"The aesthetic scorer {address!r} cannot be loaded ({error}); use module:function "
            "or a CSV or JSON lines file with video and score."
        ) from error
    if not callable(found):
        raise UserError(f"The aesthetic scorer {address!r} is not a function; pass one.")
    return found


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
