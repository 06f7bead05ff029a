"""Videos and references of avatars for the benchmarks of scoring, and their cost in two clocks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from idbench.prompts.avatars.render import render_clip, render_portrait
from idbench.prompts.avatars.scene import VALIDATION_IDENTITIES
from idbench.prompts.language import describe
from idbench.prompts.sampling import random_scene
from idbench.types import Video
from idbench.video import write_video


@dataclass(frozen=True)
class Cost:
    """Seconds on the clock, and of all processor cores together."""

    wall: float
    processor: float

    def __str__(self) -> str:
        return f"{self.wall:.2f} s wall, {self.processor:.2f} s processor"


def cost(work: Callable[[], object]) -> Cost:
    """What `work` costs this process, its threads included."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - wall, time.process_time() - processor)


def make_videos(
    folder: Path, count: int, frames: int = 9, size: tuple[int, int] = (64, 96),
    people: int = 1,
) -> Path:
    """`count` avatars' videos of `size` (height, width), their references, and the manifest.

    A clip is rendered at most 96 pixels high and enlarged: what a video shows has no part in
    these benchmarks, its size has.
    """
    rng = np.random.default_rng(7)
    rows = []
    for i in range(count):
        scene = random_scene(rng, people, VALIDATION_IDENTITIES)
        height, width = size
        scale = min(1.0, 96 / height)
        clip = render_clip(scene, min(frames, 9), round(height * scale), round(width * scale))
        order = np.linspace(0, len(clip.frames) - 1, frames).round().astype(int)
        made = [cv2.resize(clip.frames[t], (width, height)) for t in order]
        write_video(folder / f"v{i:04}.mp4", Video(np.stack(made), 8.0))
        references = []
        for person in scene.people:
            name = f"{person.identity}.png"
            if not (folder / name).exists():
                Image.fromarray(render_portrait(person.identity, size=128).frames[0]).save(
                    folder / name
                )
            references.append(name)
        rows.append({"video": f"v{i:04}.mp4", "prompt": describe(scene, rng),
                     "references": references})
    manifest = folder / "videos.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest
