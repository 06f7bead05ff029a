"""Retrieval of prompts by videos, which says how well CLIP and ViCLIP have learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from idbench.metrics.training.rendered_data import Frames
from idbench.prompts.avatars.scene import Scene
from idbench.prompts.language import describe
from idbench.prompts.sampling import edited

EVERYTHING = ("background", "expression", "motion", "garment")
GROUP = 32
"""Prompts that each video is compared with."""


def recall_at_1(videos: np.ndarray, texts: np.ndarray, group: int = GROUP) -> tuple[float, float]:
    """Share of videos whose own prompt is the nearest of `group`, and of prompts likewise;
    embeddings (n, d) in pairs, n cut to a multiple of `group`."""
    count = len(videos) // group * group
    similarity = np.einsum(
        "gnd,gmd->gnm",
        videos[:count].reshape(-1, group, videos.shape[1]),
        texts[:count].reshape(-1, group, texts.shape[1]),
    )
    own = np.arange(group)
    return (
        float((similarity.argmax(2) == own).mean()),
        float((similarity.argmax(1) == own).mean()),
    )


def measure(
    data: Frames, of_clip: Callable[[np.ndarray], np.ndarray],
    of_texts: Callable[[Sequence[str]], np.ndarray], seed: int = 0,
) -> dict[str, Any]:
    """Retrieval among 32 prompts on true clips of validation people.

    `expression_preferred`, `motion_preferred`: see `preferred`.

    `r1_full`: prompts that name all that fits in 30 words (background, garments, expressions,
    motions); `r1_partial`: prompts that name a random part, of which several may be true of one
    video, so that 1 is out of reach.
    """
    videos = np.stack([of_clip(frames) for frames in data.frames])
    videos /= np.linalg.norm(videos, axis=1, keepdims=True)
    measured: dict[str, Any] = {}
    for attribute in ("expression", "motion"):
        measured[f"{attribute}_preferred"] = preferred(
            data.scenes, videos, of_texts, attribute, seed
        )
    for name, mention in (("full", EVERYTHING), ("partial", None)):
        rngs = [np.random.default_rng([seed, 17, i]) for i in range(len(data.scenes))]
        texts = [describe(s, r, mention) for s, r in zip(data.scenes, rngs, strict=True)]
        to_text, to_video = recall_at_1(videos, of_texts(texts))
        measured[f"r1_{name}"] = round(to_text, 4)
        measured[f"r1_{name}_text_to_video"] = round(to_video, 4)
    return {**measured, "videos": len(videos) // GROUP * GROUP, "prompts": GROUP}


def preferred(
    scenes: Sequence[Scene], videos: np.ndarray, of_texts: Callable[[Sequence[str]], np.ndarray],
    attribute: str, seed: int,
) -> float:
    """How often a video of one person is nearer to its own prompt than to one in which `attribute`
    was changed, worded the same. Chance is 0.5."""
    rng = np.random.default_rng([seed, 23])
    alone = [i for i, scene in enumerate(scenes) if len(scene.people) == 1]
    texts = [
        describe(scene, np.random.default_rng([seed, 29, i]), (attribute, "background"))
        for i in alone for scene in (scenes[i], edited(scenes[i], attribute, rng))
    ]
    own, wrong = of_texts(texts).reshape(len(alone), 2, -1).transpose(1, 0, 2)
    shown = videos[alone]
    return round(float(((shown * own).sum(1) > (shown * wrong).sum(1)).mean()), 4)
