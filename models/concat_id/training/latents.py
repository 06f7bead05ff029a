"""Encodes rendered scenes once: what the trainings of the embedded transformers read.

    LATENTS/SET/SHARD/latents.npy      float16 (S, N, C, h, w), scaled for the transformer
            references.npy             (S, P, R, C, h, w); zero for empty places
            text.npy                   (S, L, D), of the captions
            embeddings.npy             (S, P, R, D): ArcFace embeddings of the references, of unit
                                       length; NaN where no face was found or nobody is
            garment.npy, background.npy    (S, C, h, w): the references without a face, of sets of
                                       one person

The paper's pixel noise, of standard deviation exp(N(-3, 0.5)), is part of the stored references:
each has one fixed draw. Encoding anew at every step would cost more than the step.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from idbench.errors import UserError
from idbench.files import atomic_path
from idbench.metrics.faces.crops import FaceEmbedder
from idbench.models.concat_id import networks, scenes
from idbench.models.concat_id.about import NOISE_MEAN, NOISE_SCALE
from idbench.models.concat_id.autoencoder import encode, to_tensor
from idbench.models.concat_id.training import rendering


def prepare(
    recipe: dict[str, Any], state_dir: Path, resume: bool = True, evaluate: bool = False
) -> dict[str, Any]:
    """Trainer of the recipe `concat_id_latents`: encode what is missing of every rendered shard.

    Uses `workers` processes with `threads` threads each.
    """
    del resume, evaluate  # finished files are never made again
    folder = Path(state_dir)
    rendered = folder.parent / recipe["data"]
    sets = scenes.sets_of(scenes.load_recipe(recipe["data"]))
    jobs = [
        (s, path, s.path(folder, number), recipe["seed"], recipe.get("threads", 1))
        for s, number in rendering.jobs_of(sets) if (path := s.path(rendered, number)).exists()
    ]
    if not jobs:
        raise UserError(
            f"No rendered data in {rendered}; run `idbench train {recipe['data']}` first."
        )
    rendering.in_processes(_encode_all, jobs, recipe.get("workers", 2), "encode shards")
    return {"shards": len(jobs)}


@cache
def _networks(threads: int) -> tuple[Any, Any, FaceEmbedder]:
    """Autoencoder, text encoder and embedder of faces, loaded once a process."""
    torch.set_num_threads(threads)
    return networks.load_vae(), networks.load_text_encoder(), FaceEmbedder()


def _encode_all(
    described: scenes.RenderSet, source: Path, target: Path, seed: int, threads: int
) -> None:
    vae, text, embedder = _networks(threads)
    encode_shard(vae, text.numpy, source, target, seed, described.frames >= scenes.CLIP_FRAMES)
    _embed_shard(embedder, source, target)
    if described.people == 1:
        encode_subjects(vae, source, target, seed)


def encode_shard(
    vae: Any, text: Callable[[list[str]], np.ndarray], source: Path, target: Path, seed: int,
    clips: bool,
) -> None:
    """Encode frames, references and captions of one rendered shard, only what is missing.

    Args:
        text: from captions to embeddings (n, L, D).
        clips: whether frames form clips (encoded together) or are single images.
    """
    shard = scenes.read_shard(source)
    if not (target / "text.npy").exists():
        save_array(target / "text.npy", text(list(shard.captions)))
    if (target / "references.npy").exists():
        return
    latents = target / "latents.npy"
    # Portraits are not of the video's size: they are references only.
    if shard.frames.shape[2:4] == shard.references.shape[-3:-1] and not latents.exists():
        rows = []
        step = 2 if clips else 16
        for start in range(0, len(shard.frames), step):
            frames = np.array(shard.frames[start : start + step])
            images = to_tensor(frames if clips else frames.reshape(-1, 1, *frames.shape[2:]))
            z = encode(vae, images)
            rows.append(z if clips else z.view(len(frames), frames.shape[1], *z.shape[2:]))
        save_array(latents, torch.cat(rows).half().numpy())
    pictures = shard.pictures
    if not len(pictures):
        raise UserError(f"{source} contains no references; remove it and render it again.")
    encoded = _encode_noisy(vae, pictures, seed, _key(source))
    save_array(target / "references.npy", shard.at_places(encoded, 0.0))


def encode_subjects(vae: Any, source: Path, target: Path, seed: int) -> None:
    """Write `garment.npy` and `background.npy` of one rendered shard of one person a scene."""
    shard = scenes.read_shard(source)
    size = shard.references.shape[-3:-1]
    for number, subject in enumerate(scenes.SUBJECTS):
        path = target / f"{subject}.npy"
        if not path.exists():
            pictures = np.stack(
                [scenes.prepared_subject(subject, scene, *size) for scene in shard.scenes]
            )
            save_array(path, _encode_noisy(vae, pictures, seed, _key(source, subject) + number))


def _encode_noisy(vae: Any, pictures: np.ndarray, seed: int, key: int) -> np.ndarray:
    """float16 latents (n, C, h, w) of pictures (n, H, W, 3), to each of which pixel noise of
    deviation exp(N(-3, 0.5)) was added."""
    noise = torch.Generator().manual_seed(seed * 7919 + key)
    rows = []
    for start in range(0, len(pictures), 16):
        images = to_tensor(pictures[start : start + 16, None])
        drawn = torch.randn(len(images), 1, 1, 1, 1, generator=noise)
        sigma = torch.exp(drawn * NOISE_SCALE + NOISE_MEAN)
        images = images + sigma * torch.randn(images.shape, generator=noise)
        rows.append(encode(vae, images)[:, 0].half().numpy())
    return np.concatenate(rows)


def _embed_shard(embedder: FaceEmbedder, source: Path, target: Path) -> None:
    """Write `embeddings.npy` of one rendered shard."""
    path = target / "embeddings.npy"
    if path.exists():
        return
    shard = scenes.read_shard(source)
    pictures = shard.pictures
    parts = [embedder.embed_largest(pictures[i : i + 64]) for i in range(0, len(pictures), 64)]
    width = max(part.shape[1] for part in parts)
    rows = [np.broadcast_to(part, (len(part), width)) for part in parts]  # (n, 1): no face in it
    save_array(path, shard.at_places(np.concatenate(rows), np.nan))


def _key(source: Path, *parts: str) -> int:
    return zlib.crc32("/".join([source.parent.name, source.name, *parts]).encode())


def save_array(path: Path, array: np.ndarray) -> None:
    """Write `array` atomically. Raises DiskFull: the disk is full."""
    with atomic_path(path) as temporary:
        np.save(temporary, array)
