"""How real networks, trained on photographs, see the avatars.

    python -m idbench.prompts.avatars.judge --identities 100

MTCNN (weights inside facenet-pytorch) says how many faces are found and how far its landmarks
lie from the truth; dlib's ResNet (packages `dlib-bin` and `face-recognition-models`, extra
`test`) says how well the people can be told apart. Both see frames enlarged to 256 or 384 rows.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.stats import rankdata

from idbench.prompts.sampling import random_scene

from .render import render_clip
from .scene import VALIDATION_IDENTITIES


@dataclass(frozen=True)
class Detection:
    """Faces found by MTCNN in frames of avatars.

    Attributes:
        faces: number of faces that are there.
        found: share of them inside a detected box.
        landmarks_within: share of landmarks of found faces that lie within 8 % of the distance
            between the person's eyes (in three dimensions, so that a turn does not shrink it).
        landmark_error: median error in the same unit.
    """

    faces: int
    found: float
    landmarks_within: float
    landmark_error: float


@cache
def _mtcnn() -> Any:
    from facenet_pytorch import MTCNN

    return MTCNN(keep_all=True, min_face_size=40, device="cpu")


def measure_detection(
    people: int, scenes: int, height: int = 64, seed: int = 5, enlarged: int = 256
) -> Detection:
    """Detect the first, middle and last frame of random scenes of validation identities."""
    rng = np.random.default_rng(seed)
    faces, hits, errors = 0, 0, []
    for _ in range(scenes):
        scene = random_scene(rng, people=people, identities=VALIDATION_IDENTITIES)
        clip = render_clip(scene, frames=3, height=height, width=height * 3 // 2)
        factor = enlarged / height
        images = [
            cv2.resize(f, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
            for f in clip.frames
        ]
        boxes, _, marks = _mtcnn().detect(images, landmarks=True)
        for t in range(3):
            for i in range(people):
                truth = clip.landmarks[t, i] * factor
                x, y = truth.mean(0)
                faces += 1
                eyes = np.linalg.norm(truth[0] - truth[1]) / np.cos(clip.yaw[t, i])
                for box, mark in zip(
                    boxes[t] if boxes[t] is not None else [],
                    marks[t] if boxes[t] is not None else [],
                    strict=True,
                ):
                    if box[0] < x < box[2] and box[1] < y < box[3]:
                        hits += 1
                        errors.append(
                            np.linalg.norm(np.asarray(mark, float) - truth, axis=1) / eyes
                        )
                        break
    error = np.array(errors)
    return Detection(faces, hits / faces, float((error < 0.08).mean()), float(np.median(error)))


@cache
def _dlib() -> tuple[Any, Any]:
    import dlib

    spec = find_spec("face_recognition_models")  # importing it needs the vanished pkg_resources
    if spec is None or spec.origin is None:
        raise ImportError("the package face-recognition-models is not installed")
    folder = Path(spec.origin).parent / "models"
    return (
        dlib.shape_predictor(str(folder / "shape_predictor_5_face_landmarks.dat")),
        dlib.face_recognition_model_v1(str(folder / "dlib_face_recognition_resnet_model_v1.dat")),
    )


def measure_separation(
    identities: list[int], scenes: int = 6, height: int = 64, enlarged: int = 384
) -> tuple[float, int]:
    """How well dlib's ResNet tells identities apart over pose, expression, garment and place.

    Returns:
        AUC of same against different pairs by embedding distance, and the number of faces.
    """
    import dlib

    predictor, network = _dlib()
    embeddings, labels = [], []
    for identity in identities:
        rng = np.random.default_rng(identity)
        for _ in range(scenes):
            scene = random_scene(rng, people=1, identities=[identity])
            clip = render_clip(scene, frames=2, height=height, width=height * 3 // 2)
            factor = enlarged / height
            image = cv2.resize(
                clip.frames[1], None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC
            )
            boxes, scores = _mtcnn().detect(image)
            if boxes is None:
                continue
            x0, y0, x1, y1 = boxes[int(np.argmax(scores))]
            # dlib's boxes begin at the brows.
            box = dlib.rectangle(int(x0), int(y0 + 0.1 * (y1 - y0)), int(x1), int(y1))
            embeddings.append(
                np.array(network.compute_face_descriptor(image, predictor(image, box)))
            )
            labels.append(identity)
    return separation_auc(np.array(embeddings), np.array(labels)), len(labels)


def separation_auc(embeddings: np.ndarray, labels: np.ndarray) -> float:
    """AUC in [0, 1] of same-label against different-label pairs by Euclidean distance."""
    rows, columns = np.triu_indices(len(labels), 1)
    near = -np.linalg.norm(embeddings[rows] - embeddings[columns], axis=1)
    same = labels[rows] == labels[columns]
    ranks = rankdata(near)
    positives, negatives = same.sum(), (~same).sum()
    return float((ranks[same].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--identities", type=int, default=100)
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--height", type=int, default=64)
    arguments = parser.parse_args()
    for people in (1, 2):
        print(people, measure_detection(people, arguments.scenes, arguments.height))
    auc, faces = measure_separation(list(range(arguments.identities)), height=arguments.height)
    print(f"dlib AUC {auc:.4f} on {faces} faces of {arguments.identities} evaluation identities")


if __name__ == "__main__":
    main()
