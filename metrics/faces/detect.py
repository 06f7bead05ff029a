"""Face detectors behind one interface, and the faces that they find."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol as Interface

import numpy as np

from idbench.embedded import WeightError
from idbench.errors import UserError
from idbench.files import sha256_once
from idbench.metrics.networks.batches import Batches
from idbench.metrics.networks.pack import open_model, pack_file, pack_hash
from idbench.metrics.protocols import Detection

BATCH, BATCH_CPU = 32, 4
"""Frames that MTCNN searches at once: on a CPU it is no faster with more."""


@dataclass(frozen=True)
class Faces:
    """The faces of one frame, largest box first.

    Attributes:
        boxes: float32 (n, 4), x0 y0 x1 y1 in pixels of the frame; may reach over its border.
        landmarks: float32 (n, 5, 2), x y: eye left, eye right (as seen by the viewer), nose
            tip, mouth corner left, mouth corner right.
        scores: float32 (n,), the detector's confidence, 0..1.
        retried: whether they were found only in the padded frame.
    """

    boxes: np.ndarray
    landmarks: np.ndarray
    scores: np.ndarray
    retried: bool = False

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, which: slice | np.ndarray) -> Faces:
        return Faces(self.boxes[which], self.landmarks[which], self.scores[which], self.retried)

    def moved(self, move: Callable[[np.ndarray], np.ndarray]) -> Faces:
        """The faces with `move` of all their points (..., 2), x y."""
        corners = move(self.boxes.reshape(-1, 2, 2))
        return replace(self, boxes=corners.reshape(-1, 4), landmarks=move(self.landmarks))

    def largest(self, count: int) -> Faces:
        """The `count` largest of them (0: all)."""
        return self[: count or len(self)]

    @staticmethod
    def none() -> Faces:
        """No face."""
        return Faces(
            np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(0, np.float32)
        )


NO_PACK = (
    "This protocol finds faces with SCRFD, whose weights do not come with idbench; pass an "
    "insightface pack with --weights arcface=insightface:FOLDER (or detector=...), or choose "
    "another protocol."
)


class Detector(Interface):
    """Finds faces in frames of one size. It may have `batches`: how many it is given at once."""

    name: str

    def detect(self, frames: np.ndarray) -> list[Faces]:
        """Faces of uint8 RGB frames (t, h, w, 3), in their pixels; one entry a frame."""
        ...


class Mtcnn:
    """MTCNN of facenet-pytorch, with the weights in that package. Source: Zhang et al. (arXiv
    1604.02878)."""

    name = "mtcnn"

    def __init__(
        self, minimum_face: int = 48, thresholds: Sequence[float] = (0.6, 0.7, 0.7),
        device: str = "cpu",
    ) -> None:
        import torch
        from facenet_pytorch import MTCNN

        self.minimum_face = minimum_face
        self.batches = Batches(BATCH_CPU if torch.device(device).type == "cpu" else BATCH)
        self._network = MTCNN(
            keep_all=True, min_face_size=minimum_face, thresholds=list(thresholds),
            post_process=False, device=device,
        ).eval()
        # PyTorch pools this layout several times faster on a CPU: the search takes 0.6 of the time.
        for part in (self._network.pnet, self._network.rnet, self._network.onet):
            part.to(memory_format=torch.channels_last)

    def detect(self, frames: np.ndarray) -> list[Faces]:
        frames = np.asarray(frames)
        if not len(frames):
            return []
        if min(frames.shape[1:3]) < self.minimum_face:
            # The network's image pyramid would be empty, on which facenet-pytorch fails.
            return [Faces.none() for _ in frames]
        found = self._network.detect(frames, landmarks=True)
        return [sorted_faces(*of_frame) for of_frame in zip(*found, strict=True)]


class Scrfd:
    """SCRFD of an insightface pack folder, through insightface. Source: Guo et al. (arXiv
    2105.04714).

    A frame is resized, its shape kept, until it fits into `size` x `size` pixels. `providers`: the
    execution providers it runs with. Raises UserError: no folder, no such model, or no landmarks.
    """

    name = "scrfd"

    def __init__(
        self, folder: Path, size: int = 320, threshold: float = 0.5, device: str = "cpu"
    ) -> None:
        self.batches = Batches(BATCH)  # insightface takes one frame at a time
        self._network = open_model(folder, "detection", device)
        if not self._network.use_kps:
            raise WeightError(
                f"{pack_file(folder, 'detection')} finds no landmarks, which alignment needs; use "
                "a pack whose detector does, such as buffalo_l."
            )
        self._network.prepare(ctx_id=0, input_size=(size, size), det_thresh=threshold)
        self.providers = tuple(self._network.session.get_providers())

    def detect(self, frames: np.ndarray) -> list[Faces]:
        found = []
        for frame in frames:
            # insightface takes BGR images and swaps the channels itself.
            boxes, points = self._network.detect(np.ascontiguousarray(frame[..., ::-1]))
            found.append(sorted_faces(boxes[:, :4], boxes[:, 4], points))
        return found


def make_detector(settings: Detection, device: str = "cpu", pack: Path | None = None) -> Detector:
    """The detector a protocol names: `mtcnn`, `pack` (SCRFD of `pack`), or `scrfd:FOLDER`.
    Raises UserError: an unknown detector, no pack, or one without a detection model."""
    folder = _pack(settings, pack)
    if folder is None:
        return Mtcnn(settings.minimum_face, settings.thresholds, device)
    return Scrfd(folder, settings.size or 320, settings.thresholds[-1], device)


def detector_hashes(settings: Detection, pack: Path | None = None) -> dict[str, str]:
    """sha256 of every weight file of that detector, by file name; loads nothing. Raises UserError:
    as `make_detector`."""
    folder = _pack(settings, pack)
    if folder is not None:
        return {f"detector/{pack_file(folder, 'detection').name}": pack_hash(folder, "detection")}
    package = find_spec("facenet_pytorch")  # importing it would import torch
    if package is None or package.origin is None:
        raise UserError("facenet-pytorch is missing; install it, or choose another detector.")
    data = Path(package.origin).parent / "data"
    names = ("pnet.pt", "rnet.pt", "onet.pt")
    return {f"mtcnn/{name}": sha256_once(data / name) for name in names}


def _pack(settings: Detection, pack: Path | None) -> Path | None:
    """The pack folder of the detector that is asked for; None: it is MTCNN. Raises UserError: an
    unknown detector, or no pack."""
    kind, _, named = settings.detector.partition(":")
    if kind == "mtcnn":
        return None
    folder = pack if settings.detector == "pack" else Path(named) if named else None
    if settings.detector == "pack" and folder is None:
        raise WeightError(NO_PACK)
    if folder is not None and kind in ("pack", "scrfd"):
        return folder
    raise UserError(f"Unknown detector {settings.detector!r}; use mtcnn, pack or scrfd:FOLDER.")


def sorted_faces(
    boxes: np.ndarray | None, scores: np.ndarray | None, landmarks: np.ndarray | None
) -> Faces:
    """A `Faces` of what a detector returns (None or empty: no face), largest box first."""
    if boxes is None or scores is None or landmarks is None or not len(boxes):
        return Faces.none()
    found = Faces(
        np.asarray(boxes, np.float32).reshape(-1, 4),
        np.asarray(landmarks, np.float32).reshape(-1, 5, 2),
        np.asarray(scores, np.float32).reshape(-1),
    )
    found = found[np.isfinite(found.boxes).all(1) & np.isfinite(found.landmarks).all((1, 2))]
    width, height = (found.boxes[:, 2:] - found.boxes[:, :2]).T
    return found[np.argsort(-(width * height), kind="stable")]
