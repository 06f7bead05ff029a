"""What a recogniser trained on photographs (dlib's) sees in generated videos.

Recognisers that were trained on avatars may see the right person in a face of the wrong shape, so
`idbench train STAGE --evaluate` asks this one too, if it is installed. It reads the videos of
finished runs as well:

    python -m idbench.models.concat_id.training.outside RUN...
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from idbench.metrics.faces.crops import FaceEmbedder
from idbench.metrics.faces.detect import Faces
from idbench.pictures import read_rgb
from idbench.prompts.avatars.judge import dlib_embedding
from idbench.runs import Run
from idbench.statistics import Estimate, area_under_curve, estimate, identity_clusters
from idbench.types import Sample
from idbench.video import read_video

FRAME_STRIDE = 2
"""Neighbouring frames hardly differ."""


def embed_references(samples: Sequence[Sample]) -> dict[str, np.ndarray]:
    """dlib's embedding (128,) of the largest face of each person's reference, by name."""
    images = {r.name: r.image for s in samples for r in s.people}
    finder = FaceEmbedder()
    known = {}
    for name, path in images.items():
        image = read_rgb(path)
        faces = finder.find(image[None])[0]
        if len(faces):
            known[name] = dlib_embedding(image, faces.boxes[0])
    return known


def similarities(
    frames: np.ndarray, faces: Sequence[Faces], people: int, known: np.ndarray
) -> np.ndarray:
    """Similarity, 1 - distance, of each person of a video to known people, (people, n).

    People are told apart by their place from left to right, in the frames that show all of them;
    the mean over these, NaN without one.

    Args:
        frames: uint8 (T, H, W, 3). faces: of each frame, largest first.
        known: embeddings (n, 128).
    """
    rows = []
    for frame, found in list(zip(frames, faces, strict=True))[::FRAME_STRIDE]:
        if len(found) < people:
            continue
        boxes = sorted(found.boxes[:people], key=lambda box: box[0] + box[2])
        own = np.stack([dlib_embedding(frame, box) for box in boxes])
        rows.append(1 - np.linalg.norm(own[:, None] - known[None], axis=-1))
    return np.mean(rows, 0) if rows else np.full((people, len(known)), np.nan)


def summarise(
    read: Sequence[np.ndarray], people: Sequence[Sequence[str]], names: Sequence[str]
) -> tuple[dict[str, float], np.ndarray]:
    """Numbers of one condition, and each video's margin.

    Args:
        read: of each video, from `similarities`. people: its people, left to right.
        names: of the known people, the columns of `read`.

    Returns:
        `right`: share of people whose nearest reference of all is the right one (people who are
        not found count as wrong); `auc`: chance that a person is nearer to the own reference than
        to another; and the margins (videos,): similarity to the own reference minus that to the
        others, of the video where it has some, else of all.
    """
    right: list[bool] = []
    own: list[float] = []
    other: list[float] = []
    margins: list[float] = []
    for rows, shown in zip(read, people, strict=True):
        columns = [names.index(name) for name in shown]
        margin: list[float] = []
        for row, column in zip(rows, columns, strict=True):
            rest = np.delete(row, column)
            right.append(bool(np.isfinite(row[column])) and int(row.argmax()) == column)
            if np.isfinite(row[column]):
                own.append(row[column])
                other.extend(rest)
            near = [row[c] for c in columns if c != column]
            margin.append(float(row[column] - np.mean(near or rest)))
        margins.append(float(np.mean(margin)))
    values = {"right": float(np.mean(right))}
    area = area_under_curve(own, other)
    if area is not None:
        values["auc"] = area
    return values, np.array(margins)


def read_run(folder: Path) -> tuple[dict[str, float], Estimate]:
    """`right` and `auc` of the videos of a run, as `summarise` gives them, and the mean of its
    margins with a 95 % interval clustered by identity."""
    records = Run.open(folder).records()
    shown = [(r.identities, r.video) for r in records if r.video is not None]
    people = [names for names, _ in shown]
    known = embed_references([record.sample for record in records])
    finder, matrix, read = FaceEmbedder(), np.stack(list(known.values())), []
    for names, video in shown:
        frames = read_video(video).frames
        read.append(similarities(frames, finder.find(frames), len(names), matrix))
    values, margins = summarise(read, people, list(known))
    return values, estimate(margins.tolist(), identity_clusters(people))


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path)
    for folder in parser.parse_args(given).runs:
        seen, margin = read_run(folder)
        low, mean, high = np.array([margin.low, margin.mean, margin.high], float)  # None: NaN
        print(f"{folder}: right reference of {seen['right']:.1%} of people, AUC "
              f"{seen.get('auc', np.nan):.3f}, margin {mean:.3f} [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()
