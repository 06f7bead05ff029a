"""What recognisers read of faces: the embedded ones, and dlib as one from outside.

Controls tell which part of a face a recogniser reads: each person is shown in a clip in which a
part is another person's, or the frames are degraded; the clip is assigned to the person whose
reference is nearest. On videos of finished runs, ArcSim and CurSim are compared with dlib: a metric
that only networks of its own world believe in would not agree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.stats import spearmanr

from idbench.errors import UserError
from idbench.metrics.faces.crops import align_crops, find_faces
from idbench.metrics.faces.detect import Detector, make_detector
from idbench.metrics.networks import dlib_resnet
from idbench.metrics.networks.recogniser import Recogniser
from idbench.metrics.protocols import get_protocol
from idbench.metrics.training.augment import COLOURS, STYLE, with_attributes_of, with_shape_of
from idbench.pictures import read_rgb
from idbench.progress import Step
from idbench.prompts.avatars.identity import Identity, sample_identity
from idbench.prompts.avatars.judge import dlib_embedding
from idbench.prompts.avatars.render import render_clip, render_portrait
from idbench.prompts.avatars.scene import VALIDATION_IDENTITIES
from idbench.prompts.sampling import random_scene
from idbench.runs import Run
from idbench.statistics import area_under_curve
from idbench.video import read_spread

DETECTION = get_protocol().detection
Embed = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""From an image (h, w, 3) with a face's box (4,) and landmarks (5, 2) to an embedding (d,)."""
OUTSIDE = "dlib"
CONTROL_FRAMES, RUN_FRAMES = 2, 3
PORTRAIT = 192
FEWEST = 3
"""Samples or systems that a rank correlation needs."""

EXCHANGED: Mapping[str, Callable[[Identity, Identity], Identity]] = {
    "nothing": lambda own, other: own,
    "colours": lambda own, other: with_attributes_of(own, other, COLOURS),
    "hair, beard, glasses": lambda own, other: with_attributes_of(own, other, STYLE),
    "shape": with_shape_of,
    "all but shape": lambda own, other: with_shape_of(other, own),
}
"""What of another person a control shows."""


def _grey(frame: np.ndarray) -> np.ndarray:
    grey = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
    return np.repeat(grey[..., None], 3, axis=2)


def _warm(frame: np.ndarray) -> np.ndarray:
    return np.clip(frame * np.array([1.15, 1.0, 0.8]) + 0.5, 0, 255).astype(np.uint8)


DEGRADED: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "grey": _grey,
    "colour balance": _warm,
    "blur 1.0": lambda frame: cv2.GaussianBlur(frame, (0, 0), 1.0),
    "blur 1.5": lambda frame: cv2.GaussianBlur(frame, (0, 0), 1.5),
}
"""What is done to the frames of clips in which nothing is exchanged."""
CONTROLS = (*EXCHANGED, *DEGRADED)


@dataclass(frozen=True)
class Control:
    """One control, read by one reader.

    Attributes:
        right: share of clips whose nearest reference is their own person's.
        auc: of a clip with its own reference against other people's.
        own, other: mean cosine with the own reference, and with other people's.
        clips: that a face was found in.
    """

    reader: str
    name: str
    right: float
    auc: float | None
    own: float
    other: float
    clips: int


@dataclass(frozen=True)
class Agreement:
    """Spearman's rho between a metric and dlib over `count` `samples` (of all systems) or `systems`
    (means); None with fewer than `FEWEST` values."""

    metric: str
    over: str
    rho: float | None
    count: int


def readers() -> dict[str, Embed]:
    """The embedded recognisers by the metric they serve; and dlib where it is installed."""
    found = {"arcsim": _embedded("arcface"), "cursim": _embedded("curricularface")}
    if dlib_resnet.installed():
        found[OUTSIDE] = lambda image, box, landmarks: dlib_embedding(image, box)
    return found


def _embedded(name: str) -> Embed:
    network = Recogniser(name)

    def embed(image: np.ndarray, box: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        crops = align_crops(image, landmarks[None], DETECTION.crop, DETECTION.crop_beyond)
        return network.embed(crops)[0]
    return embed


def mean_vectors(
    frames: np.ndarray, detector: Detector, by: Mapping[str, Embed]
) -> dict[str, np.ndarray | None]:
    """Of each reader, the mean of the embeddings, each at length 1, of the frames' largest faces.

    None without faces.
    """
    found = find_faces(detector, frames, DETECTION)
    seen = [(frame, faces.boxes[0], faces.landmarks[0])
            for frame, faces in zip(frames, found, strict=True) if len(faces)]
    if not seen:
        return dict.fromkeys(by)
    vectors = {name: np.stack([embed(*face) for face in seen]) for name, embed in by.items()}
    return {
        name: (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(0)
        for name, rows in vectors.items()
    }


def read_controls(
    people: int, seed: int, by: Mapping[str, Embed], step: Step
) -> list[Control]:
    """Every control of validation people, by every reader. The other person, whose part is shown,
    is among the references too."""
    rng = np.random.default_rng([60013, seed])
    seeds = rng.choice(np.asarray(VALIDATION_IDENTITIES), people, replace=False).tolist()
    detector = make_detector(DETECTION)
    references: list[dict[str, np.ndarray | None]] = []
    clips: dict[str, list[dict[str, np.ndarray | None]]] = {control: [] for control in CONTROLS}
    for index, mine in enumerate(seeds):
        portrait = render_portrait(mine, size=PORTRAIT).frames
        references.append(mean_vectors(portrait, detector, by))
        for control, frames in _frames(mine, seeds[(index + 1) % people], rng).items():
            clips[control].append(mean_vectors(frames, detector, by))
        step(f"v{mine}")
    return [
        control_of(name, control, [v[name] for v in vectors], [v[name] for v in references])
        for name in by for control, vectors in clips.items()
    ]


def _frames(mine: int, other: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The frames (t, h, w, 3) of each control: one scene, exchanged and degraded."""
    scene = random_scene(rng, 1, [mine])
    own, another = sample_identity(mine), sample_identity(other)
    frames = {
        name: render_clip(scene, CONTROL_FRAMES, looks=[exchange(own, another)]).frames
        for name, exchange in EXCHANGED.items()
    }
    for name, degrade in DEGRADED.items():
        frames[name] = np.stack([degrade(frame) for frame in frames["nothing"]])
    return frames


def control_of(
    reader: str, name: str, clips: list[np.ndarray | None], references: list[np.ndarray | None]
) -> Control:
    """What a reader makes of clips in the order of their own references; None: no face."""
    known = {i: vector for i, vector in enumerate(references) if vector is not None}
    seen = {i: vector for i, vector in enumerate(clips) if vector is not None and i in known}
    if not seen:
        return Control(reader, name, float("nan"), None, float("nan"), float("nan"), 0)
    cosines = np.stack([*seen.values()]) @ np.stack([*known.values()]).T
    rows = np.array([*seen])
    mine = rows[:, None] == np.array([*known])[None]
    own, others = cosines[mine], cosines[~mine]
    right = np.array([*known])[cosines.argmax(1)] == rows
    return Control(
        reader, name, float(right.mean()), area_under_curve(own, others),
        float(own.mean()), float(others.mean()), len(rows),
    )


def read_runs(
    runs: Sequence[Run], by: Mapping[str, Embed], step: Step
) -> dict[str, list[dict[str, float]]]:
    """The cosines of a video's faces to its reference, by reader, of each video of one person; by
    the folder of the run, as runs of one model may differ in their settings. Videos without a face
    are left out. Raises UserError: dlib is not installed."""
    if OUTSIDE not in by:
        raise UserError(
            f"Comparing with dlib needs its packages; install them with `{dlib_resnet.INSTALL}`."
        )
    detector = make_detector(DETECTION)
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for run in runs:
        for record in run.records():
            faces = [r for r in record.sample.references if r.kind == "face"]
            if len(faces) != 1 or record.video_name is None:
                continue
            video = run.path(record.id, record.video_name)
            shown = mean_vectors(read_spread(video, RUN_FRAMES), detector, by)
            wanted = mean_vectors(read_rgb(faces[0].image)[None], detector, by)
            cosines = {
                name: float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for name in by
                if (a := shown[name]) is not None and (b := wanted[name]) is not None
            }
            if cosines:
                found[str(run.folder)].append(cosines)
            step(record.id)
    return found


def agreements(
    cosines: Mapping[str, Sequence[Mapping[str, float]]], metrics: Sequence[str]
) -> list[Agreement]:
    """Rank correlations of each metric with dlib, over samples and over systems, of the cosines
    that `read_runs` gives of each system."""
    found = []
    for metric in metrics:
        systems = [[(row[metric], row[OUTSIDE]) for row in rows] for rows in cosines.values()]
        samples = [pair for pairs in systems for pair in pairs]
        means = [tuple(float(np.mean(side)) for side in zip(*pairs, strict=True))
                 for pairs in systems]
        found.append(Agreement(metric, "samples", _rho(samples), len(samples)))
        found.append(Agreement(metric, "systems", _rho(means), len(means)))
    return found


def _rho(pairs: Sequence[Sequence[float]]) -> float | None:
    if len(pairs) < FEWEST:
        return None
    rho = float(spearmanr(*np.transpose(pairs)).statistic)
    return rho if np.isfinite(rho) else None
