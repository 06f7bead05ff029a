"""Renders the scenes that the embedded networks are trained on."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from idbench.files import atomic_folder, write_text
from idbench.models.concat_id import references
from idbench.models.concat_id.scenes import PEOPLE, PORTRAIT_SIZE, RenderSet, sets_of
from idbench.pools import pool
from idbench.prompts.avatars.march import PARTS
from idbench.prompts.avatars.render import render_clip, render_portrait
from idbench.prompts.avatars.scene import Scene
from idbench.prompts.language import describe
from idbench.prompts.sampling import random_scene

HEAD_PARTS = ("skin", "hair", "glasses")


def render(
    recipe: dict[str, Any], state_dir: Path, resume: bool = True, evaluate: bool = False
) -> dict[str, Any]:
    """Trainer of the recipe `concat_id_data`: render what is missing in `workers` processes."""
    del resume, evaluate  # finished shards are never rendered again
    folder = Path(state_dir)
    sets = sets_of(recipe)
    jobs = [
        (s, k, recipe["seed"], folder)
        for s, k in jobs_of(sets) if not s.path(folder, k).exists()
    ]
    start = time.monotonic()
    in_processes(render_shard, jobs, recipe.get("workers", 2), "render shards")
    frames = sum(described.shard * described.frames for described, *_ in jobs)
    seconds = time.monotonic() - start
    total = sum(s.scenes for s in sets)
    return {"scenes": total, "rendered_frames": frames, "seconds": round(seconds, 1)}


def scene_of(described: RenderSet, index: int, seed: int) -> Scene:
    """Scene `index` of a set: identities in turn, the rest drawn from (seed, set, index)."""
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
        raise AssertionError("random_scene did not use the given identities")
    return scene


def render_shard(described: RenderSet, number: int, seed: int, folder: Path) -> None:
    """Render one shard of a set into `folder` unless it exists."""
    target = described.path(folder, number)
    if target.exists():
        return
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
            size = described.fill * described.height / references.CROP_SCALE
            clip = render_clip(
                scene, described.frames, described.height, described.width,
                face_size=size if described.aligned else None,
            )
        rows["frames"].append(clip.frames)
        rows["faces"].append(head_mask(clip))
        boxes = np.full((len(clip.frames), PEOPLE, 4), np.nan, np.float32)
        boxes[:, : len(scene.people)] = clip.boxes
        rows["boxes"].append(boxes)
        rows["references"].append(_references(clip, described, rng))
        caption = describe(scene, rng, chances=described.mentions)
        truth.append({"caption": caption, "scene": asdict(scene)})
    try:
        with atomic_folder(target) as temporary:
            for name, values in rows.items():
                np.save(temporary / f"{name}.npy", np.stack(values))
            write_text(temporary / "truth.json", json.dumps(truth))
    except OSError:
        if not target.exists():  # else another worker was first
            raise


def head_mask(clip: Any) -> np.ndarray:
    """uint8 (T, H, W): 1 + person where a head is seen."""
    head = np.isin(clip.parts, [PARTS.index(name) for name in HEAD_PARTS])
    return (clip.person_mask * head).astype(np.uint8)


def _references(clip: Any, described: RenderSet, rng: np.random.Generator) -> np.ndarray:
    """Prepared references of every person, (P, R, H, W, 3), with the jitter of a detector.

    Crop scale and centre vary by a few percent (half of that where faces are `aligned`), so that
    crops at true landmarks and at detected ones look alike to the network. One in eight keeps its
    background, as the 40 % rule would.
    """
    height, width = described.height, described.width
    out = np.zeros((PEOPLE, described.references, height, width, 3), np.uint8)
    heads = head_mask(clip)
    size = min(height, width)
    frames, jitter = len(clip.frames), 0.5 if described.aligned else 1.0
    for person in range(clip.landmarks.shape[1]):
        for number in range(described.references):
            if described.by_frame:
                t = number % frames
            else:
                t = 0 if frames == 1 else int(rng.integers(frames))
            marks = clip.landmarks[t, person].astype(np.float64)
            scale = references.CROP_SCALE * float(np.exp(rng.normal(0, 0.04 * jitter)))
            across, down = rng.normal(0, 0.015 * jitter, 2)
            shift = (float(across), float(down))
            crop = references.crop_face(clip.frames[t], marks, size, scale, shift)
            if rng.random() >= 0.125:
                mask = references.crop_mask(heads[t] == person + 1, marks, size, scale, shift)
                crop, _ = references.remove_background(crop, mask)
            out[person, number] = references.fit_and_pad(crop, height, width, described.fill)
    return out


def jobs_of(sets: Sequence[RenderSet]) -> Iterator[tuple[RenderSet, int]]:
    """All shards, alternating between sets, so that an early stop leaves some of each."""
    # Validation first: without it nothing can be measured.
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
    from tqdm import tqdm

    with pool(workers) as processes:
        futures = [processes.submit(function, *job) for job in jobs]
        for future in tqdm(futures, desc=what):
            future.result()
