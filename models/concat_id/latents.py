"""Latents of the rendered data, encoded once: what the transformer trainings read.

Beside each rendered shard's frames, `latents.npy` holds its video latents, `references.npy`
its reference latents and `text.npy` its text embeddings, all float16 and already scaled; for
what else there is see `subjects`. The pixel noise of the paper, of standard deviation
exp(N(-3, 0.5)), is in the stored references: each has one fixed draw of it (a reference that is
used a hundred times shows the same noise a hundred times; encoding anew at every step would
cost more than the step).
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from idbench.errors import UserError
from idbench.models.concat_id import data
from idbench.models.concat_id.autoencoder import encode, speed_up_single_frames, to_tensor

GROUPS = {
    "image_one": 1, "image_two": 2, "image_three": 3, "clip_one": 1, "clip_two": 2, "clip_three": 3,
}
"""Groups of samples of one shape, and how many people each shows."""


def encode_shard(vae: Any, text: Any, source: Path, target: Path, seed: int, clips: bool) -> None:
    """Encode one rendered shard into `target`, only what is missing there.

    Args:
        vae: the trained autoencoder, or None to leave images out.
        text: function from captions to embeddings (n, L, D), or None to leave text out.
        clips: whether frames belong to clips (encoded together) or are single images.
    """
    shard = data.read_shard(source)
    target.mkdir(parents=True, exist_ok=True)
    if text is not None and not (target / "text.npy").exists():
        save_array(target / "text.npy", text(list(shard.captions)))
    if vae is None or (target / "references.npy").exists():
        return
    if shard.frames.shape[2:4] == shard.references.shape[-3:-1]:
        # Portraits have another size than the video: they are references only.
        rows = []
        step = 2 if clips else 16
        for start in range(0, len(shard.frames), step):
            frames = np.array(shard.frames[start : start + step])
            images = to_tensor(frames if clips else frames.reshape(-1, 1, *frames.shape[2:]))
            z = encode(vae, images)
            rows.append(z if clips else z.view(len(frames), frames.shape[1], *z.shape[2:]))
        save_array(target / "latents.npy", torch.cat(rows).half().numpy())
    save_array(target / "references.npy", _encode_references(vae, shard, seed, source))


def _encode_references(vae: Any, shard: data.Shard, seed: int, source: Path) -> np.ndarray:
    """Latents (S, P, R, C, h, w); places where nobody is stay zero."""
    key = zlib.crc32(f"{source.parent.name}/{source.name}".encode())
    noise = torch.Generator().manual_seed(seed * 7919 + key)
    places = [(s, p, r) for s, scene in enumerate(shard.scenes)
              for p in range(len(scene.people)) for r in range(shard.references.shape[2])]
    out = None
    for start in range(0, len(places), 16):
        part = places[start : start + 16]
        images = to_tensor(np.stack([shard.references[k] for k in part])[:, None])
        z = encode(vae, add_pixel_noise(images, noise))[:, 0].half().numpy()
        if out is None:
            out = np.zeros((*shard.references.shape[:3], *z.shape[1:]), np.float16)
        for place, value in zip(part, z, strict=True):
            out[place] = value
    if out is None:
        raise UserError(f"{source} holds no references.")
    return out


def add_pixel_noise(images: torch.Tensor, noise: torch.Generator) -> torch.Tensor:
    """Images (n, C, T, H, W) in -1..1 with Gaussian noise of deviation exp(N(-3, 0.5)) each."""
    sigma = torch.exp(torch.randn(len(images), 1, 1, 1, 1, generator=noise) * 0.5 - 3.0)
    return images + sigma * torch.randn(images.shape, generator=noise)


def save_array(path: Path, array: np.ndarray) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.npy")
    np.save(temporary, array)
    os.replace(temporary, path)


@cache
def _networks(threads: int) -> tuple[Any, Any, Any]:
    """Autoencoder, text encoder and embedder of references, loaded once a process."""
    from idbench.models.concat_id.networks import load_text_encoder, load_vae
    from idbench.models.concat_id.subjects import ReferenceEmbedder

    torch.set_num_threads(threads)
    vae = load_vae()
    speed_up_single_frames(vae)
    return vae, load_text_encoder(), ReferenceEmbedder()


def _encode_all(
    described: data.RenderSet, source: Path, target: Path, seed: int, threads: int
) -> None:
    """Write what is missing in `target` of the rendered shard `source`."""
    from idbench.models.concat_id import subjects

    vae, text, embedder = _networks(threads)
    encode_shard(vae, text.numpy, source, target, seed, described.frames >= 9)
    subjects.embed_shard(embedder, source, target)
    if described.people == 1:
        subjects.encode_subjects(vae, source, target, seed)


def prepare(
    recipe: dict[str, Any], state_dir: Path, resume: bool = True, evaluate: bool = False
) -> dict[str, Any]:
    """Trainer of recipe `concat_id_latents`: encode what is missing of every rendered shard.

    `workers` processes with `threads` threads each.
    """
    del resume, evaluate  # finished shards always stay
    folder = Path(state_dir)
    rendered = folder.parent / recipe["data"]
    jobs = [
        (described, path, folder / described.name / path.name, recipe["seed"],
         recipe.get("threads", 1))
        for described, number in data.jobs_of(data.sets_of(data.load_recipe(recipe["data"])))
        if (path := rendered / described.name / f"{number:05d}").exists()
    ]
    data.in_processes(_encode_all, jobs, recipe.get("workers", 2), "encode shards")
    return {"shards": len(jobs)}


@dataclass(frozen=True)
class Batch:
    """One training batch of a group.

    Attributes:
        latents: float32 (B, N, C, h, w).
        references: float32 (B, M, C, h, w), left to right.
        text: float32 (B, L, D).
    """

    latents: torch.Tensor
    references: torch.Tensor
    text: torch.Tensor


@dataclass(frozen=True)
class _Record:
    """A sample: its latents, its prompt's embedding, who is in it and the own references.

    `subjects`: latents of the references that show no face, by kind.
    """

    latents: torch.Tensor
    text: torch.Tensor
    identities: tuple[int, ...]
    own: tuple[tuple[int, ...], ...]
    scene: int
    subjects: Mapping[str, torch.Tensor]


class LatentPool:
    """All encoded samples of a split in memory, drawn by group.

    Args:
        folder: of the encoded shards.
        rendered: of the rendered shards (truth is read there).
        sets: what to read.
        similar: quantiles between which the similarity of a person's two references must lie
            for one to stand in for the other, see `subjects.similar_pairs`; samples without
            such a pair for everybody are left out. None: any other scene of the person serves.

    Attributes:
        cosines: where the quantiles of `similar` lie.
    """

    def __init__(
        self, folder: Path, rendered: Path, sets: list[data.RenderSet],
        similar: tuple[float, float] | None = None,
    ) -> None:
        self.groups: dict[str, list[_Record]] = {}
        self.references: list[torch.Tensor] = []
        self.of_identity: dict[int, list[tuple[int, int]]] = {}
        self.partners: dict[int, list[int]] | None = None
        self.cosines: tuple[float, float] | None = None
        self._embeddings: list[np.ndarray] = []
        scenes = 0
        for described in sets:
            for path in data.finished(rendered, described):
                target = folder / described.name / path.name
                if not (target / "references.npy").exists() or not (target / "text.npy").exists():
                    continue
                self._read(described, path, target, scenes)
                scenes += described.shard
        if not self.groups:
            raise UserError(f"No encoded data in {folder}; run `idbench train concat_id_latents`.")
        if similar is not None:
            self._keep_similar(similar)

    def _keep_similar(self, share: tuple[float, float]) -> None:
        from idbench.models.concat_id.subjects import similar_pairs

        if len(self._embeddings) < len(self.references):
            raise UserError(
                "References are not embedded yet; run `idbench train concat_id_latents`."
            )
        self.partners, self.cosines = similar_pairs(
            np.stack(self._embeddings).astype(np.float32), list(self.of_identity.values()), share
        )
        for name, records in self.groups.items():
            self.groups[name] = [r for r in records if all(self._partners(own) for own in r.own)]

    def _partners(self, own: tuple[int, ...]) -> list[int]:
        assert self.partners is not None
        return [partner for index in own for partner in self.partners.get(index, ())]

    def _read(self, described: data.RenderSet, path: Path, target: Path, first: int) -> None:
        import json

        truth = json.loads((path / "truth.json").read_text())
        text = torch.from_numpy(np.load(target / "text.npy"))
        references = torch.from_numpy(np.load(target / "references.npy"))
        latents = None
        if (target / "latents.npy").exists():
            latents = torch.from_numpy(np.load(target / "latents.npy"))
        embeddings = None
        if (target / "embeddings.npy").exists():
            embeddings = np.load(target / "embeddings.npy")
        subjects = {kind: torch.from_numpy(np.load(target / f"{kind}.npy"))
                    for kind in ("garment", "background") if (target / f"{kind}.npy").exists()}
        number = {1: "one", 2: "two", 3: "three"}
        for s, row in enumerate(truth):
            identities = tuple(p["identity"] for p in row["scene"]["people"])
            own = []
            for p, identity in enumerate(identities):
                indices = []
                for r in range(references.shape[2]):
                    indices.append(len(self.references))
                    known = self.of_identity.setdefault(identity, [])
                    known.append((len(self.references), first + s))
                    self.references.append(references[s, p, r])
                    if embeddings is not None:
                        self._embeddings.append(embeddings[s, p, r])
                own.append(tuple(indices))
            if latents is None:
                continue
            people = number[len(identities)]
            clip = described.frames >= 9
            # Frames are encoded alone: each of a clip is an image too; take some that differ.
            images = latents[s, ::4] if clip else latents[s]
            others = {kind: values[s] for kind, values in subjects.items()}
            for image in images:
                record = _Record(image[None], text[s], identities, tuple(own), first + s, others)
                self.groups.setdefault(f"image_{people}", []).append(record)
            if clip:
                record = _Record(latents[s], text[s], identities, tuple(own), first + s, others)
                self.groups.setdefault(f"clip_{people}", []).append(record)

    def sizes(self) -> Mapping[str, int]:
        return {name: len(records) for name, records in self.groups.items()}

    def draw(
        self, group: str, size: int, references: int, cross: float, rng: np.random.Generator,
        subject: str | None = None,
    ) -> Batch:
        """A random batch.

        Args:
            references: per sample: 0, or as many as people in the group.
            cross: chance that a reference comes from another scene of the person.
            subject: `garment` or `background`: one reference more, after the faces.
        """
        records = self.groups[group]
        picked = [records[int(i)] for i in rng.integers(len(records), size=size)]
        chosen = []
        for record in picked:
            for p in range(references):
                chosen.append(self.references[self._reference(record, p, cross, rng)])
            if subject is not None:
                if subject not in record.subjects:
                    raise UserError(
                        f"Samples of {group} have no {subject} reference; run `idbench train "
                        "concat_id_latents`, and take groups of one person."
                    )
                chosen.append(record.subjects[subject])
        count = references + (subject is not None)
        shape = (size, count, *picked[0].latents.shape[1:])
        stacked = torch.stack(chosen).float().view(shape) if chosen else torch.empty(shape)
        return Batch(
            torch.stack([r.latents for r in picked]).float(), stacked,
            torch.stack([r.text for r in picked]).float(),
        )

    def _reference(
        self, record: _Record, person: int, cross: float, rng: np.random.Generator
    ) -> int:
        own = record.own[person]
        if rng.random() < cross:
            if self.partners is not None:
                others = self._partners(own)
                return others[int(rng.integers(len(others)))]
            known = self.of_identity[record.identities[person]]
            others = [index for index, scene in known if scene != record.scene]
            if others:
                return others[int(rng.integers(len(others)))]
        return own[int(rng.integers(len(own)))]
