"""Human Identity as VBench-2.0 computes it: the share of frames that show the first frame's person.

Rule: of all frames with exactly one face, after a first frame with exactly one face, the share
whose face has a cosine of at least 0.4 to the first frame's. A video with fewer than 20 such frames
is left out. Faces are plain boxes, grey, 128 x 128, each with its mirror image.

With `human_identity="script"`, a protocol asks for two things more that the script does: it draws
the face's box into the frame, two pixels wide, before it cuts the face out; and a later frame
without any face counts as alike (its detector returns one empty box).

The network is read from a file: `--weights human_identity=resnet_face18:FILE`. Faces are found by
the detector of the protocol, where VBench-2.0 uses RetinaFace.

Source: Zheng et al., VBench-2.0 (arXiv 2503.21755); vbench2/human_identity.py of Vchitect/VBench.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from idbench.checkpoints import fit, read_state
from idbench.metrics.base import Embeddings, Metric, cosine, make_score
from idbench.metrics.networks.weight_sources import Network
from idbench.types import Score

if TYPE_CHECKING:
    from idbench.metrics.networks.weight_sources import Source

NAME = "human_identity"
THRESHOLD = 0.4
FEWEST = 20


def share_consistent(vectors: np.ndarray, more: int = 0) -> float | None:
    """The share of later vectors (n, d) alike to the first; None where there are too few. `more`:
    later frames that count as alike without a vector."""
    later = len(vectors) - 1 + more
    if later < FEWEST:
        return None
    alike = int((cosine(vectors[1:], vectors[0]) >= THRESHOLD).sum())
    return (alike + more) / later


def face_box(box: np.ndarray, frame: np.ndarray, drawn: bool = False) -> np.ndarray:
    """The pixels of a face box (4,) of a uint8 RGB frame (h, w, 3), cut to the frame. `drawn`: with
    the box drawn in green, two pixels wide."""
    x0, y0 = (max(0, int(value)) for value in box[:2])
    x1, y1 = min(frame.shape[1], int(box[2])), min(frame.shape[0], int(box[3]))
    if drawn:
        frame = cv2.rectangle(frame.copy(), (x0, y0), (x1, y1), (0, 255, 0), 2)
    return frame[y0:y1, x0:x1]


def scores(embeddings: Embeddings) -> list[Score]:
    """One row, of the video."""
    sample, script = embeddings.sample, embeddings.protocol.human_identity == "script"
    crops, empty = [], 0
    for number, (frame, faces) in enumerate(zip(embeddings.frames, embeddings.faces, strict=True)):
        one = len(faces) == 1
        crop = face_box(faces.boxes[0], embeddings.pixels[frame], script) if one else None
        if crop is not None and crop.size:
            crops.append(crop)
        elif number == 0:
            return METRIC.unscored(sample, "the first frame does not show exactly one face")
        elif script and not len(faces):
            empty += 1
    value: float | str | None = share_consistent(embeddings.network(NAME)(crops), empty)
    if value is None:
        value = f"fewer than {FEWEST} later frames show exactly one face" + " or none" * script
    return [make_score(sample, NAME, None, None, value)]


def _load(source: Source, device: str) -> Any:
    from idbench.metrics.networks.resnet_face import ResNetFace18, embed

    path = source.file()
    state = {name.removeprefix("module."): tensor for name, tensor in read_state(path).items()}
    network = fit(ResNetFace18(), state, path, "VBench-2.0's resnet_face18").eval().to(device)
    return lambda crops: embed(network, crops, device)


METRIC = Metric(
    name=NAME, title="Human Identity", higher_is_better=True, range=(0.0, 1.0),
    formula="share of frames with one face whose cosine to the first frame's is at least 0.4",
    source="Zheng et al., VBench-2.0 (arXiv 2503.21755), vbench2/human_identity.py", scores=scores,
    runs=(Network(NAME, _load, "resnet_face18:FILE"),), needs_pixels=True, computed="listed",
)
