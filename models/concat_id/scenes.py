"""Rendered scenes, the training data of the embedded networks, kept as shards with their truth.

Shard `k` of a set depends on the seed, the set's name and `k` alone. A shard is a folder that is
complete or absent (written under another name, then renamed), so rendering can be interrupted and
resumed, and training can begin with the first shards.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from idbench import recipes
from idbench.errors import UserError
from idbench.models.concat_id.references import fit_and_pad
from idbench.prompts.avatars.scene import TRAINING_IDENTITIES, VALIDATION_IDENTITIES, Garment, Scene

CLIP_FRAMES = 9
"""Sets with this many frames or more hold clips; the others hold single images."""
PEOPLE = 3
"""Places for people in the arrays."""
PORTRAIT_SIZE = 96
GARMENT_SIZE = 96
BACKGROUND_SIZE = (128, 192)
SUBJECTS = ("garment", "background")
"""References that show no face."""


@dataclass(frozen=True)
class RenderSet:
    """One set of rendered scenes.

    Attributes:
        name: names the folder and enters the seed.
        scenes: number of scenes.
        people: people in each scene; 0 renders portraits (one person, a square picture).
        frames: frames of each clip. Sets of 2 frames hold the first and last moment of a motion.
        identities: number of identity seeds, from the start of the split's range.
        split: `training` or `validation`.
        references: references of each person of a scene.
        by_frame: whether reference r of each person shows frame r, as `exact` of a `SceneRecipe`
            needs; otherwise each shows a random frame.
        fill: share of the canvas that a reference's crop fills, see `references.fit_and_pad`.
        aligned: whether every resting face has the size and row that it has in its reference.
        shard: scenes in each shard.
        mentions: how likely a caption mentions an attribute, where it is not as
            `prompts.language` has it.
    """

    name: str
    scenes: int
    people: int = 1
    frames: int = 9
    identities: int = 1000
    split: str = "training"
    references: int = 2
    by_frame: bool = False
    fill: float = 1.0
    aligned: bool = False
    height: int = 64
    width: int = 96
    shard: int = 200
    mentions: Mapping[str, float] = field(default_factory=dict)

    @property
    def seeds(self) -> range:
        whole = {"training": TRAINING_IDENTITIES, "validation": VALIDATION_IDENTITIES}
        if self.split not in whole:
            raise UserError(
                f"The set {self.name!r} has the split {self.split!r}; use training or validation."
            )
        return whole[self.split][: self.identities]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames."""
        return (self.width, self.height) if self.people else (PORTRAIT_SIZE, PORTRAIT_SIZE)

    @property
    def shards(self) -> int:
        return -(-self.scenes // self.shard)

    def path(self, folder: Path, number: int) -> Path:
        """Where a shard lies under `folder`."""
        return folder / self.name / f"{number:05d}"

    def finished(self, folder: Path) -> list[Path]:
        """The finished shards under `folder`, in order."""
        paths = (self.path(folder, number) for number in range(self.shards))
        return [path for path in paths if path.exists()]


@dataclass(frozen=True)
class Shard:
    """One shard, memory-mapped. S scenes, T frames, P = 3 places, R references a person.

    Attributes:
        frames: uint8 (S, T, H, W, 3) RGB.
        faces: uint8 (S, T, H, W), 1 + person where a head is visible.
        boxes: float32 (S, T, P, 4) of the heads, pixels; NaN for empty places.
        references: uint8 (S, P, R, H, W, 3), prepared; black for empty places.
        scenes: the truth. captions: one prompt per scene.
    """

    frames: np.ndarray
    faces: np.ndarray
    boxes: np.ndarray
    references: np.ndarray
    scenes: tuple[Scene, ...]
    captions: tuple[str, ...]

    @cached_property
    def people(self) -> tuple[np.ndarray, ...]:
        """Scene and place of each of the n people: the index of their rows in (S, P, ...)."""
        counts = np.array([len(scene.people) for scene in self.scenes])
        return np.nonzero(np.arange(self.references.shape[1]) < counts[:, None])

    @property
    def pictures(self) -> np.ndarray:
        """The references of all people, uint8 (n R, H, W, 3)."""
        return np.asarray(self.references[self.people]).reshape(-1, *self.references.shape[3:])

    def at_places(self, rows: np.ndarray, empty: float) -> np.ndarray:
        """float16 (S, P, R, ...): rows (n R, ...) of `pictures` at their places, else `empty`."""
        out = np.full((*self.references.shape[:3], *rows.shape[1:]), empty, np.float16)
        out[self.people] = rows.reshape(-1, *out.shape[2:])
        return out


def read_shard(folder: Path) -> Shard:
    """A finished shard; arrays are memory-mapped."""
    arrays = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r")
        for name in ("frames", "faces", "boxes", "references")
    }
    truth = json.loads((folder / "truth.json").read_text())
    scenes = tuple(Scene.from_dict(row["scene"]) for row in truth)
    return Shard(**arrays, scenes=scenes, captions=tuple(row["caption"] for row in truth))


def load_recipe(name: str) -> dict[str, Any]:
    """The content of a recipe that renders scenes."""
    return recipes.load_recipe(name)[1]


def sets_of(recipe: Mapping[str, Any]) -> list[RenderSet]:
    """The sets of a data recipe: `sets: {name: {scenes: ..., ...}}`; `mentions`, `fill` and
    `aligned` of the recipe are those of all sets."""
    shared = {name: recipe[name] for name in ("mentions", "fill", "aligned") if name in recipe}
    try:
        return [
            RenderSet(name=name, **{**shared, **values}) for name, values in recipe["sets"].items()
        ]
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f"The recipe {recipe.get('name')!r} has no usable sets of scenes ({error}); name one "
            "such as concat_id_data, or correct its `sets`."
        ) from error


@cache
def _garment(garment: Garment) -> np.ndarray:
    """Rendered once: there are few different garments."""
    from idbench.prompts.avatars.render import render_garment

    return render_garment(garment, GARMENT_SIZE)


def subject_reference(subject: str, scene: Scene) -> np.ndarray:
    """The first person's `garment` alone, or the scene's `background` without people: uint8 RGB (H,
    W, 3)."""
    from idbench.prompts.avatars.render import render_background

    if subject == "garment":
        return _garment(scene.people[0].garment)
    if subject == "background":
        return render_background(scene.background, scene.seed, *BACKGROUND_SIZE)
    raise UserError(f"There is no subject {subject!r}; use one of {', '.join(SUBJECTS)}.")


def prepared_subject(subject: str, scene: Scene, height: int, width: int) -> np.ndarray:
    """`subject_reference` fitted and padded: uint8 RGB (height, width, 3)."""
    return fit_and_pad(subject_reference(subject, scene), height, width)
