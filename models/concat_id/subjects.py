"""Training data of the embedded scale beyond faces: garments, backgrounds, who resembles whom.

Beside the latents of each rendered shard (see `latents`) are written, only what is missing:

- `garment.npy` (S, C, h, w) and `background.npy` (S, C, h, w): latents of the reference that
  shows the first person's garment alone, and of the scene without people. One-person sets only.
- `embeddings.npy` (S, P, R, D): the ArcFace embedding of each face reference, of unit length;
  NaN where no face was found or nobody is. Stages II and III choose their pairs by it.

Source: arXiv 2503.14151, the sections on multi-subject customisation and on data.
"""

from __future__ import annotations

import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from idbench.errors import UserError
from idbench.models.concat_id import data, references
from idbench.models.concat_id.autoencoder import encode, to_tensor
from idbench.prompts.avatars.scene import Garment, Scene

GARMENT_SIZE = 96
BACKGROUND_SIZE = (128, 192)
SUBJECTS = ("garment", "background")


@cache
def _garment(garment: Garment) -> np.ndarray:
    """There are few garments: each is rendered once."""
    from idbench.prompts.avatars.render import render_garment

    return render_garment(garment, GARMENT_SIZE)


def subject_reference(subject: str, scene: Scene) -> np.ndarray:
    """The first person's garment alone (`garment`), or the place without people (`background`).

    Returns:
        uint8 RGB (H, W, 3).
    """
    from idbench.prompts.avatars.render import render_background

    if subject == "garment":
        return _garment(scene.people[0].garment)
    if subject == "background":
        return render_background(scene.background, scene.seed, *BACKGROUND_SIZE)
    raise UserError(f"There is no subject {subject!r}; take one of {', '.join(SUBJECTS)}.")


def prepared_subject(subject: str, scene: Scene, height: int, width: int) -> np.ndarray:
    """`subject_reference` fitted and padded: uint8 RGB (height, width, 3)."""
    return references.plain(subject_reference(subject, scene), height, width).image


def encode_subjects(vae: Any, source: Path, target: Path, seed: int) -> None:
    """Write `garment.npy` and `background.npy` of one rendered shard of one person a scene."""
    from idbench.models.concat_id.latents import add_pixel_noise, save_array

    shard = None
    for number, subject in enumerate(SUBJECTS):
        path = target / f"{subject}.npy"
        if path.exists():
            continue
        shard = shard or data.read_shard(source)
        size = shard.references.shape[-3:-1]
        images = [prepared_subject(subject, s, *size) for s in shard.scenes]
        key = zlib.crc32(f"{source.parent.name}/{source.name}/{subject}".encode())
        noise = torch.Generator().manual_seed(seed * 7919 + key + number)
        rows = [
            encode(vae, add_pixel_noise(to_tensor(np.stack(images[i : i + 16])[:, None]), noise))
            for i in range(0, len(images), 16)
        ]
        save_array(path, torch.cat(rows)[:, 0].half().numpy())


class ReferenceEmbedder:
    """ArcFace embeddings of prepared references, by the embedded detector and recogniser."""

    def __init__(self) -> None:
        from idbench.metrics.faces.detect import make_detector
        from idbench.metrics.networks.recogniser import Recogniser
        from idbench.metrics.protocols import get_protocol

        self.detection = get_protocol("strict-v1").detection
        self.detector = make_detector(self.detection)
        self.recogniser = Recogniser("arcface")

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """uint8 (n, H, W, 3) -> float32 (n, D) of unit length; NaN where no face was found."""
        from idbench.metrics.faces.align import align_crops
        from idbench.metrics.faces.detect import find_faces

        found = find_faces(self.detector, images, self.detection)
        seen = [i for i, faces in enumerate(found) if len(faces)]
        crops = [align_crops(images[i], found[i].landmarks[:1], self.detection.crop) for i in seen]
        if not crops:
            return np.full((len(images), 1), np.nan, np.float32)
        vectors = self.recogniser.embed(np.concatenate(crops))
        out = np.full((len(images), vectors.shape[1]), np.nan, np.float32)
        out[seen] = vectors
        return out


def embed_shard(embedder: ReferenceEmbedder, source: Path, target: Path) -> None:
    """Write `embeddings.npy` of one rendered shard."""
    from idbench.models.concat_id.latents import save_array

    path = target / "embeddings.npy"
    if path.exists():
        return
    shard = data.read_shard(source)
    places = [(s, p, r) for s, scene in enumerate(shard.scenes)
              for p in range(len(scene.people)) for r in range(shard.references.shape[2])]
    parts = [embedder(np.stack([shard.references[k] for k in places[i : i + 64]]))
             for i in range(0, len(places), 64)]
    size = max(part.shape[1] for part in parts)
    out = np.full((*shard.references.shape[:3], size), np.nan, np.float16)
    for place, vector in zip(places, (row for part in parts for row in part), strict=True):
        out[place] = vector
    save_array(path, out)


def similar_pairs(
    embeddings: np.ndarray, groups: list[list[tuple[int, int]]], share: tuple[float, float]
) -> tuple[dict[int, list[int]], tuple[float, float]]:
    """Cross-scene partners of each reference, by similarity.

    Args:
        embeddings: (n, D) of all references, NaN where there is none.
        groups: the references of each person: (index, scene).
        share: quantiles of the similarity over all cross-scene pairs of one person, for example
            (0.5, 1.0): the more similar half. The paper cuts at fixed cosines (0.7 to 0.9, and
            0.9 to 0.99); another recogniser has another scale, so the cut is by quantile here.

    Returns:
        Partners of each reference that has any, and the cosines where the quantiles lie.
    """
    found: list[tuple[int, int, float]] = []
    for members in groups:
        for place, (i, scene) in enumerate(members):
            for j, other in members[place + 1 :]:
                if scene != other:
                    cosine = float(embeddings[i] @ embeddings[j])
                    if np.isfinite(cosine):
                        found.append((i, j, cosine))
    if not found:
        return {}, (0.0, 0.0)
    low, high = np.quantile([cosine for *_, cosine in found], share)
    partners: dict[int, list[int]] = {}
    for i, j, cosine in found:
        if low <= cosine <= high:
            partners.setdefault(i, []).append(j)
            partners.setdefault(j, []).append(i)
    return partners, (float(low), float(high))
