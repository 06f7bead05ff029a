"""Which part of a face a recogniser reads: avatars with one part of another person's.

Each person is shown in a clip in which a part is exchanged, or the frames are degraded. A reader
embeds its faces; the clip is assigned to the person whose reference is nearest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from idbench.metrics.faces.detect import make_detector
from idbench.metrics.training.looks import COLOURS, STYLE, with_attributes_of, with_shape_of
from idbench.metrics.validation.readers import DETECTION, Embed, mean_vectors
from idbench.progress import Step
from idbench.prompts.avatars.identity import Identity, sample_identity
from idbench.prompts.avatars.render import render_clip, render_portrait
from idbench.prompts.avatars.scene import VALIDATION_IDENTITIES
from idbench.prompts.sampling import random_scene
from idbench.statistics import area_under_curve

FRAMES = 2
PORTRAIT = 192

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


def read_controls(
    people: int, seed: int, by: Mapping[str, Embed], step: Step = lambda note="": None
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
        name: render_clip(scene, FRAMES, looks=[exchange(own, another)]).frames
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
