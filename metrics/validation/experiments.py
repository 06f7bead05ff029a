"""The measurements: one thing of an avatar moves, the metrics are read through the whole scorer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from idbench.metrics import arcsim, clipdist, cursim, viclip
from idbench.metrics.protocols import get_protocol
from idbench.metrics.scorer import Scorer
from idbench.metrics.validation.heads import View, between, render_head
from idbench.prompts.avatars.identity import sample_identity
from idbench.prompts.avatars.render import render_clip
from idbench.prompts.avatars.scene import (
    BACKGROUNDS,
    EXPRESSIONS,
    GARMENT_COLOURS,
    MOTIONS,
    VALIDATION_IDENTITIES,
    Garment,
    Scene,
)
from idbench.prompts.language import describe, tokens
from idbench.prompts.sampling import random_scene
from idbench.types import Reference, Sample, Video

FACE_METRICS = ("arcsim", "cursim", "clipdist")
AXES = ("identity", "shape", "yaw", "pitch", "expression")
"""What is moved: the whole identity; bones and flesh alone; the head; the expression."""
MAXIMUM_YAW, MAXIMUM_PITCH = 0.44, 0.26
MOVED_EXPRESSIONS = ("laugh", "surprise", "anger", "sadness")
VALUES = {"expression": EXPRESSIONS, "motion": MOTIONS, "garment": GARMENT_COLOURS,
          "background": BACKGROUNDS}
EDITED = tuple(VALUES)
WORDINGS = 12


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        people: identities; each has one other to move towards.
        steps: places on each axis, both ends included.
        clips: videos for ViCLIP; each has one edited prompt for each of `EDITED`.
        height: of the frames, pixels.
        seed: of every draw.
    """

    people: int = 12
    steps: int = 5
    clips: int = 48
    height: int = 96
    seed: int = 0


@dataclass(frozen=True)
class Reading:
    """One value: of `metric` for `person` at `share` (0..1) of the way along `axis`; None with a
    `reason`."""

    axis: str
    person: str
    share: float
    metric: str
    value: float | None
    reason: str | None = None


@dataclass(frozen=True)
class Preference:
    """ViCLIP of a clip with its true prompt, and with one in which `edited` was changed."""

    clip: int
    edited: str
    true: float
    other: float


Step = Callable[[str], None]


def read_faces(
    sizes: Sizes, folder: Path, protocol: str, step: Step = lambda note: None
) -> list[Reading]:
    """ArcSim, CurSim and CLIPDist along every axis, through the scorer, `folder` for references:
    the head at share 0, in other clothes and before another background than the frames."""
    scorer = Scorer(protocol, None, (arcsim.METRIC, cursim.METRIC, clipdist.METRIC))
    rng = np.random.default_rng([52361, sizes.seed])
    seeds = rng.choice(np.asarray(VALIDATION_IDENTITIES), 2 * sizes.people, replace=False)
    readings: list[Reading] = []
    for index, (mine, other) in enumerate(seeds.reshape(2, -1).T.tolist()):
        name = f"v{mine}"
        picture = folder / f"{name}.png"
        head = render_head(sample_identity(mine), View(), 2 * sizes.height, "studio", seed=mine)
        Image.fromarray(head).save(picture)
        reference = Reference("face", name, picture)
        expression = MOVED_EXPRESSIONS[index % len(MOVED_EXPRESSIONS)]
        background = BACKGROUNDS[1 + index % (len(BACKGROUNDS) - 1)]
        side = 1.0 if index % 2 else -1.0
        start: list[Reading] = []  # the same image on every axis
        for axis in AXES:
            for share in np.linspace(0.0, 1.0, sizes.steps).tolist():
                if share == 0.0 and start:
                    readings += [replace(r, axis=axis) for r in start]
                    continue
                frame = _frame(axis, share, mine, other, expression, side, background, sizes)
                rows = _scored(scorer, frame, reference, axis, share)
                readings += rows
                start = start or rows
        step(name)
    return readings


def _frame(
    axis: str, share: float, mine: int, other: int, expression: str, side: float,
    background: str, sizes: Sizes,
) -> np.ndarray:
    identity, view = sample_identity(mine), View()
    if axis in ("identity", "shape"):
        identity = between(identity, sample_identity(other), share, shape_only=axis == "shape")
    elif axis == "yaw":
        view = View(yaw=side * share * MAXIMUM_YAW)
    elif axis == "pitch":
        view = View(pitch=side * share * MAXIMUM_PITCH)
    else:
        view = View(expression=expression, strength=share)
    garment = Garment(GARMENT_COLOURS[mine % len(GARMENT_COLOURS)], "striped")
    return render_head(identity, view, sizes.height, background, garment, seed=mine)


def _scored(
    scorer: Scorer, frame: np.ndarray, reference: Reference, axis: str, share: float
) -> list[Reading]:
    digest = hashlib.sha256(frame.tobytes()).hexdigest()
    sample = Sample(digest[:16], "single", "p", "a person", "c", (reference,), 0)
    rows = scorer.score(sample, Video(frame[None], 8.0), digest)
    return [
        Reading(axis, reference.name, round(share, 4), r.metric, r.value, r.reason)
        for r in rows if r.identity is None and r.frame is None
    ]


def value_of(scene: Scene, attribute: str) -> str:
    """The value of one of `EDITED` (of the one person, or of the scene)."""
    if attribute == "background":
        return scene.background
    (person,) = scene.people
    return person.garment.colour if attribute == "garment" else getattr(person, attribute)


def with_value(scene: Scene, attribute: str, value: str) -> Scene:
    """`scene` with another value of one of `EDITED`."""
    if attribute == "background":
        return replace(scene, background=value)
    (person,) = scene.people
    if attribute == "garment":
        garment = replace(person.garment, colour=value)
        return replace(scene, people=(replace(person, garment=garment),))
    changed: dict[str, Any] = {attribute: value}
    return replace(scene, people=(replace(person, **changed),))


def edited(scene: Scene, attribute: str, rng: np.random.Generator) -> Scene:
    """`scene` with another value of one of `EDITED`, drawn by `rng`."""
    now = value_of(scene, attribute)
    others = [value for value in VALUES[attribute] if value != now]
    return with_value(scene, attribute, str(rng.choice(others)))


def wordings(
    scene: Scene, other: Scene, rng: np.random.Generator, draws: int = WORDINGS
) -> tuple[str, str]:
    """A prompt of each of two scenes, of `draws` wordings the one in which they differ least. Both
    name all of `EDITED`. A draw may change the rest of a sentence too, and then measures more than
    the edit."""
    best: tuple[float, str, str] = (-1.0, "", "")
    for wording in rng.integers(2**31, size=draws).tolist():
        one, two = (describe(s, np.random.default_rng(wording), EDITED) for s in (scene, other))
        alike = SequenceMatcher(None, tokens(one), tokens(two)).ratio()
        best = max(best, (alike, one, two))
    return best[1], best[2]


def read_prompts(
    sizes: Sizes, cache: Path, protocol: str, step: Step = lambda note: None
) -> list[Preference]:
    """ViCLIP of clips with their true prompt and with prompts in which one thing was changed;
    nothing under a protocol without ViCLIP."""
    if not get_protocol(protocol).defines(viclip.METRIC):
        return []
    scorer = Scorer(protocol, cache, (viclip.METRIC,))
    rng = np.random.default_rng([81929, sizes.seed])
    found = []
    for index in range(sizes.clips):
        scene = random_scene(rng, 1, VALIDATION_IDENTITIES)
        video = render_clip(scene, frames=9, height=sizes.height, width=sizes.height * 3 // 2)
        digest = hashlib.sha256(video.frames.tobytes()).hexdigest()

        def score(text: str, frames: np.ndarray = video.frames, digest: str = digest) -> float:
            sample = Sample(digest[:16], "single", "p", text, "c", (), 0)
            (row,) = scorer.score(sample, Video(frames, 8.0), digest)
            return float("nan") if row.value is None else row.value

        for attribute in EDITED:
            true, other = wordings(scene, edited(scene, attribute, rng), rng)
            found.append(Preference(index, attribute, score(true), score(other)))
        step(f"clip {index}")
    return found
