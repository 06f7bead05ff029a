"""Rendered training data of the metric networks: shards of frames with ground truth.

Shards depend on seeds alone and are kept in a folder: a resumed training, or another recipe with
the same settings, renders nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from idbench.files import atomic_path, sha256_json
from idbench.metrics.training.augment import looks_of
from idbench.output import note
from idbench.pools import pool
from idbench.prompts.avatars.march import DATA_VERSION as LOOK
from idbench.prompts.avatars.render import Clip, render_clip, render_portrait
from idbench.prompts.avatars.scene import (
    EXPRESSIONS,
    MOTIONS,
    TRAINING_IDENTITIES,
    VALIDATION_IDENTITIES,
    Scene,
)
from idbench.prompts.sampling import random_scene

DATA_VERSION = f"avatars-{LOOK}"
"""Version of the avatars' look, in cached data and beside weights."""
SHARD = 100
"""Scenes a file."""
PEOPLE = 2
"""Places for people in the arrays; unused ones hold identity -1 and NaN."""


@dataclass(frozen=True)
class Settings:
    """What to render. Equal settings give equal data.

    Attributes:
        split: `training` or `validation`: the range of identity seeds (never `evaluation`).
        seed: of everything random.
        first, identities: offset and number of the identity seeds that appear.
        scenes: number of scenes; each identity appears equally often, give or take one.
        frames: frames a clip; motions last its whole length.
        pairs: share of scenes with two people.
        height, width: of a frame, pixels.
        group: scenes in a row that differ in expressions and motions alone; see `variant`.
        looks: whether people change their look from scene to scene, see `augment.looks_of`.
        version: of the avatars; data of another version is never reused.
    """

    split: str
    seed: int
    identities: int
    scenes: int
    first: int = 0
    frames: int = 3
    pairs: float = 0.6
    height: int = 64
    width: int = 96
    looks: bool = False
    group: int = 1
    version: str = DATA_VERSION

    @property
    def seeds(self) -> range:
        """The identity seeds, checked to lie in their range."""
        known = {"training": TRAINING_IDENTITIES, "validation": VALIDATION_IDENTITIES}[self.split]
        start = known.start + self.first
        if start + self.identities > known.stop:
            raise ValueError(f"{self.split} identities end at {known.stop}")
        return range(start, start + self.identities)


@dataclass(frozen=True)
class Frames:
    """Scenes with truth. S scenes, T frames, P = 2 places for people.

    Attributes:
        frames: uint8 (S, T, H, W, 3) RGB.
        parts: uint8 (S, T, H, W), indices into the renderer's PARTS.
        landmarks: float32 (S, T, P, 5, 2), boxes: float32 (S, T, P, 4), NaN where nobody is.
        identities: int64 (S, P), -1 where nobody is.
        scenes: the S scenes.
    """

    frames: np.ndarray
    parts: np.ndarray
    landmarks: np.ndarray
    boxes: np.ndarray
    identities: np.ndarray
    scenes: tuple[Scene, ...]


Face = tuple[Frames, np.ndarray]
"""A data set, and the row of one face in it, see `faces_of`."""


def plan(settings: Settings) -> list[Scene]:
    """The scenes of `settings`, in order."""
    rng = np.random.default_rng([settings.seed, 7])
    seeds = np.array(settings.seeds)
    queue: list[int] = []
    scenes: list[Scene] = []
    for index in range(settings.scenes):
        own = np.random.default_rng([settings.seed, 11, index])
        if index % settings.group:
            scenes.append(variant(scenes[-(index % settings.group):], own))
            continue
        count = 2 if rng.random() < settings.pairs else 1
        if len(queue) < count:
            queue = [*queue, *rng.permutation(seeds).tolist()]
        people, queue = queue[:count], queue[count:]
        if len(set(people)) < count:  # the end of one permutation met the start of the next
            people = [people[0]]
        scenes.append(random_scene(own, len(people), people, together=0.1))
    return scenes


def variant(group: Sequence[Scene], rng: np.random.Generator) -> Scene:
    """The first scene with other expressions and motions: those that no scene of `group` has.

    Person, garment, place, light and camera stay, so nothing else tells the scenes apart.
    """
    people = []
    for place, person in enumerate(group[0].people):
        seen = [scene.people[place] for scene in group]
        expressions = [e for e in EXPRESSIONS if e not in {p.expression for p in seen}]
        motions = [m for m in MOTIONS if m not in {p.motion for p in seen}]
        people.append(replace(
            person, expression=str(rng.choice(expressions)), motion=str(rng.choice(motions))
        ))
    return replace(group[0], people=tuple(people))


def dataset(settings: Settings, folder: Path) -> Frames:
    """The data of `settings`, read from `folder` after rendering what is missing there by
    $IDBENCH_WORKERS processes (default: one)."""
    scenes = plan(settings)
    # More scenes of the same settings begin with the same scenes: their shards are shared.
    described = {k: v for k, v in asdict(settings).items() if k != "scenes"}
    if settings.group == 1:
        del described["group"]  # the name that such data has always had
    home = Path(folder) / f"frames-{sha256_json(described)[:12]}"
    shards = [(scenes[s : s + SHARD], settings, home / f"{s:06d}-{len(scenes[s : s + SHARD])}.npz")
              for s in range(0, len(scenes), SHARD)]
    missing = [shard for shard in shards if not shard[2].is_file()]
    workers = int(os.environ.get("IDBENCH_WORKERS", "1"))
    if missing:
        note(f"rendering {len(missing) * SHARD} scenes of {settings.frames} frames")
        with pool(workers) if workers > 1 else nullcontext() as processes:
            render = processes.map if processes else map
            list(render(_render_shard, *zip(*missing, strict=True)))
    parts = [_read(path) for _, _, path in shards]
    names = ("frames", "parts", "landmarks", "boxes", "identities")
    arrays = {name: np.concatenate([p[name] for p in parts]) for name in names}
    return Frames(**arrays, scenes=tuple(scenes))


def portraits(seeds: Sequence[int], folder: Path, size: int = 96) -> Frames:
    """One reference photograph (T = 1) of each identity; see `render_portrait`."""
    described = {"seeds": [*map(int, seeds)], "size": size, "seed": 0, "version": DATA_VERSION}

    def render() -> dict[str, np.ndarray]:
        note(f"rendering {len(seeds)} portraits")
        return _arrays([render_portrait(int(s), size=size) for s in seeds])

    stored = kept_arrays(Path(folder) / f"portraits-{sha256_json(described)[:12]}.npz", render)
    scenes = tuple(Scene.from_dict(json.loads(text)) for text in stored.pop("scenes"))
    return Frames(**stored, scenes=scenes)


def training_faces(settings: Settings, folder: Path) -> tuple[list[Face], list[Face]]:
    """All faces in the scenes of `settings`, and in a portrait of each of its people."""
    sources = dataset(settings, folder), portraits(settings.seeds, folder)
    scenes, photos = ([(source, row) for row in faces_of(source)] for source in sources)
    return scenes, photos


def faces_of(data: Frames) -> np.ndarray:
    """All faces of a data set: int64 (n, 4) rows of scene, frame, place, identity."""
    s, p = np.nonzero(data.identities >= 0)
    t = np.arange(data.frames.shape[1])
    rows = np.stack([np.repeat(s, len(t)), np.tile(t, len(s)), np.repeat(p, len(t))], axis=1)
    return np.concatenate([rows, data.identities[rows[:, 0], rows[:, 2]][:, None]], axis=1)


def kept_arrays(path: Path, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays in the file `path`, which is written first if it is missing."""
    if not path.is_file():
        _write(path, make())
    return _read(path)


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def _read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def _render_shard(scenes: Sequence[Scene], settings: Settings, path: Path) -> None:
    size = {"frames": settings.frames, "height": settings.height, "width": settings.width}
    _write(path, _arrays([
        render_clip(scene, **size, looks=looks_of(scene) if settings.looks else None)
        for scene in scenes
    ]))


def _arrays(clips: Sequence[Clip]) -> dict[str, np.ndarray]:
    """The fields of `Frames`, with the scenes as JSON."""
    count = len(clips[0].frames)
    landmarks = np.full((len(clips), count, PEOPLE, 5, 2), np.nan, np.float32)
    boxes = np.full((len(clips), count, PEOPLE, 4), np.nan, np.float32)
    identities = np.full((len(clips), PEOPLE), -1, np.int64)
    for i, clip in enumerate(clips):
        people = len(clip.scene.people)
        landmarks[i, :, :people], boxes[i, :, :people] = clip.landmarks, clip.boxes
        identities[i, :people] = [person.identity for person in clip.scene.people]
    return {
        "frames": np.stack([c.frames for c in clips]), "parts": np.stack([c.parts for c in clips]),
        "landmarks": landmarks, "boxes": boxes, "identities": identities,
        "scenes": np.array([json.dumps(asdict(c.scene)) for c in clips]),
    }


def batches(count: int, batch: int, seed: int, step: int, group: int = 1) -> Iterator[int]:
    """The `batch` indices of training step `step`; each epoch is a new permutation of `count`.

    They depend on the arguments alone, so a resumed training continues exactly. `group` indices
    in a row stay together; `batch` and `count` have to be multiples of it.
    """
    for position in range(step * batch // group, (step + 1) * batch // group):
        epoch, index = divmod(position, count // group)
        first = int(_permutation(count // group, seed, epoch)[index]) * group
        yield from range(first, first + group)


@lru_cache(maxsize=4)
def _permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, 13, epoch]).permutation(count)
