"""How real networks, trained on photographs, see the avatars.

    python -m idbench.prompts.avatars.judge --identities 100

MTCNN (from facenet-pytorch) measures how many faces are found and how far its landmarks are from
the truth. dlib's ResNet (packages `dlib-bin` and `face-recognition-models`, extra `photographs`)
measures how well people can be told apart. Both see frames enlarged to 256 or 384 rows.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np

from idbench.metrics.networks import dlib_resnet
from idbench.prompts.sampling import random_scene
from idbench.statistics import area_under_curve

from .render import render_clip
from .scene import VALIDATION_IDENTITIES

DETECTED_ROWS, EMBEDDED_ROWS = 256, 384
"""Height of the frames that the two networks see."""


@cache
def mtcnn(min_face_size: int = 20) -> Any:
    """facenet-pytorch's MTCNN on the CPU, whose weights come with the package."""
    from facenet_pytorch import MTCNN

    return MTCNN(keep_all=True, min_face_size=min_face_size, device="cpu")


def detect_faces(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Faces that MTCNN with its default thresholds finds in one RGB image (H, W, 3): boxes (faces,
    4) as x0, y0, x1, y1 in pixels, and probabilities (faces,)."""
    boxes, probabilities = mtcnn().detect(np.ascontiguousarray(pixels))
    if boxes is None:
        return np.zeros((0, 4)), np.zeros(0)
    return np.asarray(boxes), np.asarray(probabilities)


@dataclass(frozen=True)
class Detection:
    """What MTCNN finds in frames of avatars.

    Attributes:
        faces: number of faces in the frames.
        found: share of them inside a detected box.
        landmarks_within: share of the landmarks of found faces with an error of less than 8% of
            the distance between the eyes (measured in 3D, so that a turn does not shrink it).
        landmark_error: median error in the same unit.
    """

    faces: int
    found: float
    landmarks_within: float
    landmark_error: float


def measure_detection(people: int, scenes: int, height: int = 64) -> Detection:
    """Detect the first, middle and last frame of random scenes of validation identities."""
    rng = np.random.default_rng(5)
    errors = []
    for _ in range(scenes):
        scene = random_scene(rng, people=people, identities=VALIDATION_IDENTITIES)
        clip = render_clip(scene, frames=3, height=height, width=height * 3 // 2)
        factor = DETECTED_ROWS / height
        images = [_enlarged(frame, factor) for frame in clip.frames]
        boxes, _, marks = mtcnn(40).detect(images, landmarks=True)
        for t in range(3):
            for i in range(people if boxes[t] is not None else 0):
                truth = clip.landmarks[t, i] * factor
                x, y = truth.mean(0)
                eyes = np.linalg.norm(truth[0] - truth[1]) / np.cos(clip.yaw[t, i])
                for box, mark in zip(boxes[t], marks[t], strict=True):
                    if box[0] < x < box[2] and box[1] < y < box[3]:
                        error = np.linalg.norm(np.asarray(mark, float) - truth, axis=1)
                        errors.append(error / eyes)
                        break
    faces, within = 3 * scenes * people, np.array(errors) < 0.08
    return Detection(faces, len(errors) / faces, float(within.mean()), float(np.median(errors)))


def _enlarged(frame: np.ndarray, factor: float) -> np.ndarray:
    return cv2.resize(frame, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)


def dlib_embedding(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """dlib's embedding (128,) of one face in `box` (x0, y0, x1, y1, from forehead to chin) of uint8
    RGB (H, W, 3), enlarged to 384 rows; same people are less than about 0.6 apart."""
    network = dlib_resnet.load(dlib_resnet.recogniser_file())
    factor = EMBEDDED_ROWS / image.shape[0]
    return network.embed(_enlarged(image, factor), np.asarray(box)[None] * factor)[0]


def measure_separation(
    identities: list[int], scenes: int = 6, height: int = 64
) -> tuple[float | None, int]:
    """How well dlib's ResNet tells identities apart over pose, expression, garment and place: AUC
    of same against different pairs by embedding distance, and the number of faces."""
    embeddings, labels = [], []
    for identity in identities:
        rng = np.random.default_rng(identity)
        for _ in range(scenes):
            scene = random_scene(rng, people=1, identities=[identity])
            clip = render_clip(scene, frames=2, height=height, width=height * 3 // 2)
            factor = EMBEDDED_ROWS / height
            boxes, scores = mtcnn(40).detect(_enlarged(clip.frames[1], factor))
            if boxes is None:
                continue
            box = boxes[int(np.argmax(scores))] / factor
            embeddings.append(dlib_embedding(clip.frames[1], box))
            labels.append(identity)
    vectors, people = np.array(embeddings), np.array(labels)
    rows, columns = np.triu_indices(len(people), 1)
    near = -np.linalg.norm(vectors[rows] - vectors[columns], axis=1)
    same = people[rows] == people[columns]
    return area_under_curve(near[same], near[~same]), len(people)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--identities", type=int, default=100)
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--height", type=int, default=64)
    arguments = parser.parse_args()
    for people in (1, 2):
        print(people, measure_detection(people, arguments.scenes, arguments.height))
    auc, faces = measure_separation(list(range(arguments.identities)), height=arguments.height)
    print(f"dlib AUC {auc} on {faces} faces of {arguments.identities} evaluation identities")


if __name__ == "__main__":
    main()
