"""Training data of the embedded scale: scenes rendered once, kept as shards with their truth.

A set is described by its recipe alone: shard `k` of a set depends on the seed, the set's name
and `k`. A shard is a folder that appears whole (written under another name, then renamed), so
rendering can be stopped and started again, and a training can begin on the first shards.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from idbench.errors import UserError
from idbench.models.concat_id import references
from idbench.prompts.avatars.scene import (
    TRAINING_IDENTITIES,
    VALIDATION_IDENTITIES,
    Scene,
)

HEAD_PARTS = ("skin", "hair", "glasses")
PEOPLE = 3
"""Places for people in the arrays."""
PORTRAIT_SIZE = 96


@dataclass(frozen=True)
class RenderSet:
    """One set of rendered scenes.

    Attributes:
        name: names the folder and enters the seed.
        scenes: number of scenes.
        people: people in each scene; 0 means portraits (one person, a square photograph).
        frames: of each clip. Sets of 2 frames hold the first and last moment of the motion.
        identities: number of different identity seeds, from the first of the range.
        split: `training` or `validation`.
        references: references prepared from each person of a scene.
    """

    name: str
    scenes: int
    people: int = 1
    frames: int = 9
    identities: int = 1000
    split: str = "training"
    references: int = 2
    height: int = 64
    width: int = 96
    shard: int = 200

    @property
    def seeds(self) -> range:
        whole = {"training": TRAINING_IDENTITIES, "validation": VALIDATION_IDENTITIES}
        if self.split not in whole:
            raise UserError(f"set {self.name!r}: split is training or validation")
        return whole[self.split][: self.identities]

    @property
    def shards(self) -> int:
        return -(-self.scenes // self.shard)


@dataclass(frozen=True)
class Shard:
    """One shard, memory-mapped. S scenes, T frames, P = 3 places, R references a person.

    Attributes:
        frames: uint8 (S, T, H, W, 3) RGB.
        faces: uint8 (S, T, H, W), 1 + person where a head is seen.
        boxes: float32 (S, T, P, 4), NaN where nobody is.
        references: uint8 (S, P, R, H, W, 3), prepared; black where nobody is.
        scenes: truth; captions: one prompt a scene.
    """

    frames: np.ndarray
    faces: np.ndarray
    boxes: np.ndarray
    references: np.ndarray
    scenes: tuple[Scene, ...]
    captions: tuple[str, ...]


def scene_of(described: RenderSet, index: int, seed: int) -> Scene:
    """Scene `index` of a set: identities in turn, all else drawn from (seed, set, index)."""
    from idbench.prompts.sampling import random_scene

    key = zlib.crc32(described.name.encode())
    rng = np.random.default_rng([seed, key, index])
    seeds, count = described.seeds, max(described.people, 1)
    if count == 1:
        chosen = [seeds[index % len(seeds)]]
    else:
        picks = rng.choice(len(seeds), count, replace=False)
        chosen = [seeds[int(i)] for i in picks]
    scene = random_scene(rng, count, chosen)
    if scene.people and sorted(p.identity for p in scene.people) != sorted(chosen):
        raise AssertionError("random_scene must use the identities it is given")
    return scene


def render_shard(described: RenderSet, number: int, seed: int, folder: Path) -> Path:
    """Render one shard of a set into `folder` unless it is there; returns its path."""
    from dataclasses import asdict

    from idbench.prompts.avatars.render import render_clip, render_portrait
    from idbench.prompts.language import describe

    target = folder / described.name / f"{number:05d}"
    if target.exists():
        return target
    first = number * described.shard
    indices = range(first, min(first + described.shard, described.scenes))
    rows: dict[str, list[Any]] = {k: [] for k in ("frames", "faces", "boxes", "references")}
    truth = []
    key = zlib.crc32(described.name.encode())
    for index in indices:
        rng = np.random.default_rng([seed, key, index, 1])
        scene = scene_of(described, index, seed)
        if described.people == 0:
            clip = render_portrait(scene.people[0].identity, seed=index, size=PORTRAIT_SIZE)
            scene = clip.scene
        else:
            clip = render_clip(scene, described.frames, described.height, described.width)
        rows["frames"].append(clip.frames)
        rows["faces"].append(_heads(clip))
        boxes = np.full((len(clip.frames), PEOPLE, 4), np.nan, np.float32)
        boxes[:, : len(scene.people)] = clip.boxes
        rows["boxes"].append(boxes)
        rows["references"].append(_references(clip, described, rng))
        truth.append({"caption": describe(scene, rng), "scene": asdict(scene)})
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.mkdir(parents=True, exist_ok=True)
    for name, values in rows.items():
        np.save(temporary / f"{name}.npy", np.stack(values))
    (temporary / "truth.json").write_text(json.dumps(truth))
    try:
        os.rename(temporary, target)
    except OSError:  # another worker was first
        shutil.rmtree(temporary)
    return target


def _heads(clip: Any) -> np.ndarray:
    from idbench.prompts.avatars.march import PARTS

    head = np.isin(clip.parts, [PARTS.index(name) for name in HEAD_PARTS])
    return (clip.person_mask * head).astype(np.uint8)


def _references(clip: Any, described: RenderSet, rng: np.random.Generator) -> np.ndarray:
    """Prepared references of every person, (P, R, H, W, 3), with the jitter of a detector.

    Crop scale and centre vary by a few percent and the mask's edge by a pixel, so that crops
    of true landmarks and of detected ones look alike to the network. One in eight keeps its
    background, as happens where the 40 % rule asks for it.
    """
    height, width = described.height, described.width
    out = np.zeros((PEOPLE, described.references, height, width, 3), np.uint8)
    heads = _heads(clip)
    size = min(height, width)
    frames = len(clip.frames)
    for person in range(clip.landmarks.shape[1]):
        for number in range(described.references):
            t = 0 if frames == 1 else int(rng.integers(frames))
            marks = clip.landmarks[t, person].astype(np.float64)
            scale = references.CROP_SCALE * float(np.exp(rng.normal(0, 0.04)))
            shift = (float(rng.normal(0, 0.015)), float(rng.normal(0, 0.015)))
            crop = references.crop_face(clip.frames[t], marks, size, scale, shift)
            if rng.random() >= 0.125:
                mask = references.crop_mask(heads[t] == person + 1, marks, size, scale, shift)
                crop, _ = references.remove_background(crop, mask)
            out[person, number] = references.fit_and_pad(crop, height, width)
    return out


def read_shard(folder: Path) -> Shard:
    """A finished shard; arrays stay on disk until used."""
    arrays = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r")
        for name in ("frames", "faces", "boxes", "references")
    }
    truth = json.loads((folder / "truth.json").read_text())
    scenes = tuple(Scene.from_dict(row["scene"]) for row in truth)
    return Shard(**arrays, scenes=scenes, captions=tuple(row["caption"] for row in truth))


def finished(folder: Path, described: RenderSet) -> list[Path]:
    """Paths of the shards of a set that are there, in order."""
    paths = (folder / described.name / f"{k:05d}" for k in range(described.shards))
    return [path for path in paths if path.exists()]


def load_recipe(name: str) -> dict[str, Any]:
    """An installed data recipe of this package by name."""
    import yaml

    return yaml.safe_load((Path(__file__).parent / "recipes" / f"{name}.yaml").read_text())


def sets_of(recipe: Mapping[str, Any]) -> list[RenderSet]:
    """The sets of a data recipe: `sets: {name: {scenes: ..., ...}}`."""
    try:
        return [RenderSet(name=name, **values) for name, values in recipe["sets"].items()]
    except TypeError as error:
        raise UserError(f"data recipe: {error}") from error


def jobs_of(sets: Sequence[RenderSet]) -> Iterator[tuple[RenderSet, int]]:
    """All shards, the sets taking turns, so that an early stop leaves some of each."""
    # Validation comes first: without it nothing can be measured.
    order = [
        (-1.0 if s.split == "validation" else (k + 0.5) / s.shards, i, k)
        for i, s in enumerate(sets) for k in range(s.shards)
    ]
    for _, i, k in sorted(order):
        yield sets[i], k


def in_processes(
    function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], workers: int, what: str
) -> None:
    """Call `function` with the arguments of each job, in `workers` processes, with a bar."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    from tqdm import tqdm

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = [pool.submit(function, *job) for job in jobs]
        for future in tqdm(futures, desc=what):
            future.result()


def render(
    recipe: dict[str, Any], state_dir: Path, resume: bool = True, evaluate: bool = False
) -> dict[str, Any]:
    """Trainer of recipe `data`: render what is missing with `workers` processes."""
    import time

    del resume, evaluate  # finished shards always stay
    folder = Path(state_dir)
    sets = sets_of(recipe)
    jobs = [
        (s, k, recipe["seed"], folder)
        for s, k in jobs_of(sets)
        if not (folder / s.name / f"{k:05d}").exists()
    ]
    start = time.monotonic()
    in_processes(render_shard, jobs, recipe.get("workers", 2), "render shards")
    frames = sum(described.shard * described.frames for described, *_ in jobs)
    seconds = time.monotonic() - start
    total = sum(s.scenes for s in sets)
    return {"scenes": total, "rendered_frames": frames, "seconds": round(seconds, 1)}
