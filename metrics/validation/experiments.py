"""The measurements: one thing of an avatar moves, the metrics are read through the whole scorer."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from difflib import SequenceMatcher
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

from idbench.metrics import clipdist, viclip
from idbench.metrics.identity_similarity import ARCSIM, CURSIM
from idbench.metrics.protocols import get_protocol
from idbench.metrics.scorer import Scorer
from idbench.progress import Step
from idbench.prompts.avatars.backgrounds import background_image
from idbench.prompts.avatars.identity import Identity, sample_identity
from idbench.prompts.avatars.movement import expression_values, face_record
from idbench.prompts.avatars.render import (
    CAMERA_DISTANCE,
    PIVOT,
    render_clip,
    render_frame,
    rotation,
    to_pixels,
)
from idbench.prompts.avatars.scene import (
    BACKGROUNDS,
    GARMENT_COLOURS,
    VALIDATION_IDENTITIES,
    Garment,
    Scene,
)
from idbench.prompts.language import describe, tokens
from idbench.prompts.sampling import EDITS, edited, random_scene
from idbench.types import Reference, Sample, Video

FACE_METRICS = ("arcsim", "cursim", "clipdist")
AXES = ("identity", "shape", "yaw", "pitch", "expression")
"""What is moved: the whole identity; bones and flesh alone; the head; the expression."""
MAXIMUM_YAW, MAXIMUM_PITCH = 0.44, 0.26
MOVED_EXPRESSIONS = ("laugh", "surprise", "anger", "sadness")
WORDINGS = 12
_LIGHT = np.array((-0.30, 0.55, 0.80))
_KEY, _AMBIENT = np.array((0.72, 0.71, 0.70)), np.array((0.42, 0.42, 0.44))


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        people: identities; each has one other to move towards.
        steps: places on each axis, both ends included.
        clips: videos for ViCLIP; each has one edited prompt for each of `EDITS`.
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


def read_faces(sizes: Sizes, folder: Path, protocol: str, step: Step) -> list[Reading]:
    """ArcSim, CurSim and CLIPDist along every axis, through the scorer, `folder` for references:
    the head at share 0, in other clothes and before another background than the frames."""
    scorer = Scorer(protocol, None, (ARCSIM, CURSIM, clipdist.METRIC))
    rng = np.random.default_rng([52361, sizes.seed])
    seeds = rng.choice(np.asarray(VALIDATION_IDENTITIES), 2 * sizes.people, replace=False)
    readings: list[Reading] = []
    for index, (mine, other) in enumerate(seeds.reshape(2, -1).T.tolist()):
        name = f"v{mine}"
        picture = folder / f"{name}.png"
        head = render_head(sample_identity(mine), 2 * sizes.height, seed=mine)
        Image.fromarray(head).save(picture)
        reference = Reference("face", name, picture)
        start: list[Reading] = []  # the same image on every axis
        for axis in AXES:
            for share in np.linspace(0.0, 1.0, sizes.steps).tolist():
                if share == 0.0 and start:
                    readings += [replace(r, axis=axis) for r in start]
                    continue
                frame = _frame(axis, share, mine, other, index, sizes)
                rows = [
                    Reading(axis, name, round(share, 4), r.metric, r.value, r.reason)
                    for r in scorer.score(*described(frame[None], references=(reference,)))
                    if r.identity is None and r.frame is None
                ]
                readings += rows
                start = start or rows
        step(name)
    return readings


def _frame(
    axis: str, share: float, mine: int, other: int, index: int, sizes: Sizes
) -> np.ndarray:
    """Of the person number `index`, whose side, expression and background depend on it."""
    identity, side = sample_identity(mine), 1.0 if index % 2 else -1.0
    views: dict[str, dict[str, Any]] = {
        "yaw": {"yaw": side * share * MAXIMUM_YAW},
        "pitch": {"pitch": side * share * MAXIMUM_PITCH},
        "expression": {"expression": MOVED_EXPRESSIONS[index % len(MOVED_EXPRESSIONS)],
                       "strength": share},
    }
    if axis not in views:
        identity = between(identity, sample_identity(other), share, shape_only=axis == "shape")
    background = BACKGROUNDS[1 + index % (len(BACKGROUNDS) - 1)]
    garment = Garment(GARMENT_COLOURS[mine % len(GARMENT_COLOURS)], "striped")
    return render_head(
        identity, sizes.height, background, garment, seed=mine, **views.get(axis, {})
    )


def between(first: Identity, second: Identity, share: float, shape_only: bool = False) -> Identity:
    """The identity at `share` (0..1) of the way from `first` to `second`.

    Numbers (bones, flesh, colours, age, ...) are interpolated linearly; hair style, beard and
    glasses are those of the nearer end. With `shape_only` only bones and flesh change.
    """
    shape = MappingProxyType({
        name: (1 - share) * first.shape[name] + share * second.shape[name] for name in first.shape
    })
    if shape_only:
        return replace(first, shape=shape)
    changes: dict[str, Any] = {"shape": shape}
    for name in (field.name for field in fields(Identity) if field.name not in ("seed", "shape")):
        start, end = getattr(first, name), getattr(second, name)
        if isinstance(start, str):
            changes[name] = start if share < 0.5 else end
        else:
            value = (1 - share) * np.asarray(start, float) + share * np.asarray(end, float)
            changes[name] = tuple(value.tolist()) if value.ndim else float(value)
    return replace(first, **changes)


def render_head(
    identity: Identity, height: int = 96, background: str = "studio",
    garment: Garment | None = None, seed: int = 0, *, yaw: float = 0.0, pitch: float = 0.0,
    expression: str = "neutral", strength: float = 1.0,
) -> np.ndarray:
    """One frame of one person: uint8 RGB (height, 1.5 height, 3).

    The framing is that of `render_clip` for one person, without its small differences.

    Args:
        yaw, pitch: radians, as of `movement.head_pose`.
        expression: of `scene.EXPRESSIONS`.
        strength: of the expression, 0 (none of it) to 1.
    """
    width = height * 3 // 2
    controls = expression_values(expression if strength else "neutral", 1.0, 0.0, strength)
    record = face_record(identity, garment or Garment("grey"), controls)
    turn = rotation(yaw, pitch, 0.0)[None]
    camera = np.array([20.0 * height / 64 * CAMERA_DISTANCE, width / 2, 0.40 * height,
                       CAMERA_DISTANCE])
    backdrop = background_image(background, seed, 2 * height, 2 * width)
    colour, _, _ = render_frame(
        record, turn, np.zeros((1, 2)), PIVOT, camera, _LIGHT / np.linalg.norm(_LIGHT), _KEY,
        _AMBIENT, backdrop, height, width,
    )
    return to_pixels(colour)


def described(
    frames: np.ndarray, prompt: str = "a person", references: tuple[Reference, ...] = ()
) -> tuple[Sample, Video]:
    """Frames uint8 (n, h, w, 3) for a scorer: a sample and its video."""
    return Sample("s", "single", "p", prompt, "c", references, 0), Video(frames, 8.0)


def wordings(
    scene: Scene, other: Scene, rng: np.random.Generator, draws: int = WORDINGS
) -> tuple[str, str]:
    """A prompt of each of two scenes, of `draws` wordings the one in which they differ least. Both
    name all of `EDITS`. A draw may change the rest of a sentence too, and then measures more than
    the edit."""
    best: tuple[float, str, str] = (-1.0, "", "")
    for wording in rng.integers(2**31, size=draws).tolist():
        one, two = (describe(s, np.random.default_rng(wording), EDITS) for s in (scene, other))
        alike = SequenceMatcher(None, tokens(one), tokens(two)).ratio()
        best = max(best, (alike, one, two))
    return best[1], best[2]


def read_prompts(sizes: Sizes, cache: Path, protocol: str, step: Step) -> list[Preference]:
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
        for attribute in EDITS:
            true, other = (
                _viclip(scorer, video.frames, text)
                for text in wordings(scene, edited(scene, attribute, rng), rng)
            )
            found.append(Preference(index, attribute, true, other))
        step(f"clip {index}")
    return found


def _viclip(scorer: Scorer, frames: np.ndarray, prompt: str) -> float:
    (row,) = scorer.score(*described(frames, prompt))
    return float("nan") if row.value is None else row.value
