"""Rendered scenes as training sees them: encoded once, all in memory, drawn by group.

What step s draws depends on the seed and on s alone. Frames are encoded alone, so a frame of a clip
is a sample of a single image, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from idbench.errors import UserError
from idbench.models.concat_id import about, scenes
from idbench.models.concat_id.families import BASELINES
from idbench.models.concat_id.training.network import configuration
from idbench.models.concat_id.training.recipe import SceneRecipe, StageRecipe
from idbench.models.concat_id.training.samples import HeldOut
from idbench.models.concat_id.training.scene_pairs import Faces, choose
from idbench.models.concat_id.training.subset import PATCH, choose_tokens, reference_tokens
from idbench.names import one_of
from idbench.output import note

COUNTS = {1: "one", 2: "two", 3: "three"}
GROUPS = {f"{kind}_{word}": n for kind in ("image", "clip") for n, word in COUNTS.items()}
"""Groups of samples of one shape, and how many people each shows."""
IMAGE_STRIDE = 4
"""Of the frames of a clip that are also single images: neighbours hardly differ."""
HEADS_ALONE = 0.5
"""Share of the steps whose loss counts heads alone, for systems with masks (ConsisID's)."""
PREPARE = "run `idbench train concat_id_data` and `idbench train concat_id_latents` first"


@dataclass(frozen=True)
class Record:
    """One sample.

    Attributes:
        latents: float16 (N, C, h, w). text: (L, D).
        scene: its number among all scenes.
        identities: of its people, from left to right.
        own: of each person, the indices of the references from this scene.
        exact: of each person, the reference that shows this very image; empty: unknown.
        heads: bool (N, tokens), whether a token shows a head.
        others: of each person, those from the scene that `pairs` chose; empty: any other scene.
        subjects: latents (C, h, w) of the references without a face.
        people: uint8 (N, h, w), 1 + person where a head is seen; only for baselines.
    """

    latents: torch.Tensor
    text: torch.Tensor
    scene: int
    identities: tuple[int, ...]
    own: tuple[tuple[int, ...], ...]
    subjects: Mapping[str, torch.Tensor]
    heads: torch.Tensor
    others: tuple[tuple[int, ...], ...] = ()
    exact: tuple[int, ...] = ()
    people: torch.Tensor | None = None


class SceneSamples:
    """All encoded scenes of the training split. `samples.Cache` has the same methods.

    Args:
        recipe: names the data, and the pairs to use.
        home: folder of the rendered and of the encoded scenes.

    Attributes:
        groups: the samples of each group.
        references: latents (C, h, w) of all face references; for baselines with their features,
            as rows of `face_tower`.
        of_identity: index and scene of every reference of a person.

    Raises UserError: nothing is encoded, or no sample has a pair.
    """

    def __init__(self, recipe: SceneRecipe, home: Path) -> None:
        self.recipe = recipe
        self.rendered, self.encoded = home / recipe.data, home / recipe.latents
        self.sets = scenes.sets_of(scenes.load_recipe(recipe.data))
        self.fill = self.sets[0].fill
        self.settings: dict[str, Any] = {
            "data": recipe.data, "latents": recipe.latents, "fps": about.FPS, "fill": self.fill,
        }
        self.groups: dict[str, list[Record]] = {}
        self.references: list[torch.Tensor] = []
        self.of_identity: dict[int, list[tuple[int, int]]] = {}
        self._faces: list[Faces] = []
        self._tower: Any = None
        if configuration(recipe)[0] in BASELINES:  # it reads more of a reference than its latents
            from idbench.baselines.face_tower import FaceTower

            self._tower = FaceTower()
        for group in recipe.groups:
            one_of("group", group, GROUPS)
        for described in (s for s in self.sets if s.split == "training"):
            for rendered, encoded in self._finished(described):
                self._read(described, rendered, encoded)
        self._refuse_empty(f"There are no encoded samples of {{}}; {PREPARE}.")
        if recipe.pairs:
            self._pair()
            self._refuse_empty("No sample of {} has a pair; render more scenes, or change `pairs`.")

    def _refuse_empty(self, message: str) -> None:
        missing = [group for group in self.recipe.groups if not self.groups.get(group)]
        if missing:
            raise UserError(message.format(", ".join(missing)))

    def check(self, recipe: StageRecipe) -> None:
        """Raise UserError unless every sample has the subject that the recipe asks for."""
        kind = self.recipe.subject
        for group in self.recipe.groups:
            images = self.groups[group] if group.startswith("image_") else []
            if self.recipe.exact and images and not any(record.exact for record in images):
                raise UserError(
                    f"No sample of {group} has a reference of its very image; set `exact` to 0, or "
                    "use data with `by_frame: true`."
                )
            if kind is not None and any(kind not in r.subjects for r in self.groups[group]):
                raise UserError(
                    f"Samples of {group} have no {kind} reference; use groups of one person, and "
                    f"{PREPARE}."
                )

    def check_network(self, config: Any) -> None:
        """Raise UserError where the latents do not fit the network."""
        made = next(iter(self.groups.values()))[0].latents.shape[1]
        wanted = config.out_channels or config.in_channels
        if made != wanted:
            raise UserError(
                f"{self.encoded} has latents of {made} channels, the network takes "
                f"{wanted}; encode the scenes with the network's own autoencoder."
            )

    def batches(
        self, recipe: StageRecipe, step: int, rank: int, world: int, pinned: bool
    ) -> Iterator[dict[str, Any]]:
        """The batches from `step` on; several processes share the rows of each."""
        for number in range(step, recipe.steps):
            batch = self.batch(number)
            yield {k: v if k == "group" else v[rank::world] for k, v in batch.items()}

    def batch(self, step: int) -> dict[str, Any]:
        """The samples of a step, with everything random about it; keys as of `StepSamples`."""
        recipe = self.recipe
        rng = np.random.default_rng([recipe.seed, step])
        now = recipe.at(step)
        shares = np.array(list(now["groups"].values()), dtype=float)
        group = list(now["groups"])[int(rng.choice(len(shares), p=shares / shares.sum()))]
        size = recipe.batch[group.partition("_")[0]]  # type: ignore[index]
        drawn = self.draw(group, size, now["cross"], rng, now["exact"])
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        # One time in each of B equal parts, dealt out at random: the loss varies less.
        uniform = (torch.arange(size) + torch.rand(size, generator=generator)) / size
        uniform = uniform[torch.randperm(size, generator=generator)]
        noise = torch.randn(drawn["latents"].shape, generator=generator)
        keep = {
            f"keep_{name}": (torch.rand(size, generator=generator) >= chance).float()
            for name, chance in
            (("text", recipe.text_dropout), ("references", recipe.reference_dropout))
        }
        heads = drawn.pop("heads")
        if now["background_tokens"] < 1:
            keep["tokens"] = self._tokens(
                heads, drawn["references"], now["background_tokens"], generator
            )
        if "people" in drawn:  # drawn last: the rest is the same for every system
            alone = torch.rand(1, generator=generator) < HEADS_ALONE
            drawn["heads_alone"] = alone.float().expand(size)
        return {"group": group, **drawn, "uniform": uniform, "noise": noise, **keep}

    def _tokens(
        self, heads: torch.Tensor, references: torch.Tensor, share: float,
        generator: torch.Generator,
    ) -> torch.Tensor:
        """The tokens (B, K) that a step computes; see `subset`."""
        video = choose_tokens(heads, share, generator)
        faces = references.shape[1] - (self.recipe.subject is not None)
        height, width = (size // PATCH for size in references.shape[-2:])
        whole = torch.arange(faces * height * width, references.shape[1] * height * width)
        behind = torch.cat([reference_tokens(faces, height, width, self.fill), whole])
        behind = behind + heads.shape[1]
        return torch.cat([video, behind.expand(len(video), -1)], dim=1)

    def draw(
        self, group: str, size: int, cross: float, rng: np.random.Generator, exact: float = 0.0
    ) -> dict[str, torch.Tensor]:
        """Random samples of a group: `latents`, `references` and `text`, float32, and `heads`.

        Args:
            cross, exact: see `SceneRecipe`.
        """
        records, recipe = self.groups[group], self.recipe
        picked = [records[int(i)] for i in rng.integers(len(records), size=size)]
        chosen = []
        for record in picked:
            for person in range(GROUPS[group] if recipe.references else 0):
                chosen.append(self.references[self._reference(record, person, cross, exact, rng)])
            if recipe.subject is not None:
                chosen.append(record.subjects[recipe.subject])
        latents = torch.stack([record.latents for record in picked]).float()
        drawn = {
            "latents": latents, "references": latents[:, :0],
            "text": torch.stack([record.text for record in picked]).float(),
            "heads": torch.stack([record.heads.flatten() for record in picked]),
        }
        if chosen:
            drawn["references"] = torch.stack(chosen).float().unflatten(0, (size, -1))
        people = [record.people for record in picked if record.people is not None]
        return {**drawn, "people": torch.stack(people)} if people else drawn

    def held_out(self, recipe: StageRecipe, fresh: bool) -> list[HeldOut]:
        """The first `validation_samples` clips of the validation split that show as many people as
        the groups do; their references are encoded, whether `fresh` or not."""
        count, people = recipe.validation_samples, {GROUPS[g] for g in self.recipe.groups}
        found: list[HeldOut] = []
        for described in self.sets:
            if described.split == "validation" and described.people in people:
                for rendered, encoded in self._finished(described):
                    found += self._clips(rendered, encoded, count - len(found))
        return found

    def _clips(self, rendered: Path, encoded: Path, count: int) -> list[HeldOut]:
        shard, subject = scenes.read_shard(rendered), self.recipe.subject
        stored = {name: np.load(encoded / f"{name}.npy", mmap_mode="r")
                  for name in ("latents", "text", "references", *((subject,) if subject else ()))}
        found = []
        for i, scene in enumerate(shard.scenes[:count]):
            people = range(len(scene.people) if self.recipe.references else 0)
            pictures = [shard.references[i, p, 0] for p in people]
            references = [stored["references"][i, p, 0] for p in people]
            if subject is not None:
                size = shard.references.shape[-3:-1]
                pictures.append(scenes.prepared_subject(subject, scene, *size))
                references.append(stored[subject][i])
            row = {"latents": stored["latents"][i], "text": stored["text"][i]}
            if references:
                row["references"] = np.stack(references)
                if self._tower is not None:
                    row["references"] = self._tower.rows(row["references"], np.stack(pictures))
            found.append(HeldOut(
                f"{rendered.parent.name}-{rendered.name}-{i}", shard.captions[i],
                ("face",) * len(people) + ((subject,) if subject else ()),
                {name: torch.from_numpy(np.array(v)).float() for name, v in row.items()},
                tuple(pictures),
            ))
        return found

    def _finished(self, described: scenes.RenderSet) -> list[tuple[Path, Path]]:
        """The shards of a set that are rendered, and encoded as well."""
        shards = [(path, self.encoded / path.relative_to(self.rendered))
                  for path in described.finished(self.rendered)]
        return [
            (rendered, encoded) for rendered, encoded in shards
            if all((encoded / f"{name}.npy").exists() for name in ("references", "text"))
        ]

    def _read(self, described: scenes.RenderSet, rendered: Path, encoded: Path) -> None:
        truth = json.loads((rendered / "truth.json").read_text())
        stored = {
            name: torch.from_numpy(np.load(encoded / f"{name}.npy"))
            for name in ("latents", "references", "text", "embeddings", *scenes.SUBJECTS)
            if (encoded / f"{name}.npy").exists()
        }
        heads = np.load(rendered / "faces.npy", mmap_mode="r")
        people = boxes = None
        if self._tower is not None:
            stored["references"] = self._tower.of_shard(stored["references"], rendered, encoded)
            if "latents" in stored:
                people = middle_pixels(heads, stored["latents"].shape[-2:])
        if self.recipe.pairs:
            boxes = np.load(rendered / "boxes.npy") / (2 * described.size)
        for s, row in enumerate(truth):
            identities = tuple(person["identity"] for person in row["scene"]["people"])
            scene = len(self._faces)
            own = tuple(self._own(identity, stored["references"][s, p], scene)
                        for p, identity in enumerate(identities))
            self._faces.append(Faces(
                f"{described.name}/{rendered.name}/{s}", identities, own,
                stored["embeddings"][s].numpy() if "embeddings" in stored else None,
                None if boxes is None else boxes[s],
            ))
            if "latents" not in stored:
                continue
            word, latents = COUNTS[len(identities)], stored["latents"][s]
            record = Record(
                latents, stored["text"][s], scene, identities, own,
                {kind: stored[kind][s] for kind in scenes.SUBJECTS if kind in stored},
                heads=head_tokens(heads[s], latents.shape[-2:]),
                people=None if people is None else people[s],
            )
            clip = described.frames >= scenes.CLIP_FRAMES
            self.groups.setdefault(f"image_{word}", []).extend(
                replace(
                    record, latents=latents[t : t + 1], heads=record.heads[t : t + 1],
                    exact=tuple(of_one[t] for of_one in own)
                    if described.by_frame and t < described.references else (),
                    people=None if record.people is None else record.people[t : t + 1],
                )
                for t in range(0, len(latents), IMAGE_STRIDE if clip else 1)
            )
            if clip:
                self.groups.setdefault(f"clip_{word}", []).append(record)

    def _own(self, identity: int, latents: torch.Tensor, scene: int) -> tuple[int, ...]:
        """The indices of a person's references of a scene, which are added to the known ones."""
        first = len(self.references)
        self.references.extend(latents)
        indices = tuple(range(first, len(self.references)))
        self.of_identity.setdefault(identity, []).extend((index, scene) for index in indices)
        return indices

    def _pair(self) -> None:
        """Keep the samples for which `pairs` finds partners, whose references they get."""
        if any(faces.embeddings is None for faces in self._faces):
            raise UserError(f"The references in {self.encoded} have no embeddings; {PREPARE}.")
        chosen = choose(self._faces, self.recipe.pairs, self.recipe.seed)
        for group, records in self.groups.items():
            partners = chosen.get(group.partition("_")[2], {})
            self.groups[group] = [
                replace(record, others=partners[record.scene])
                for record in records if record.scene in partners
            ]
            if group in self.recipe.groups:
                note(f"{len(self.groups[group])} of {len(records)} samples of {group} have pairs")

    def _reference(
        self, record: Record, person: int, cross: float, exact: float,
        rng: np.random.Generator,
    ) -> int:
        """The index of a random reference of a person of a sample."""
        known: tuple[int, ...] = record.own[person]
        if exact and record.exact and rng.random() < exact:
            known = (record.exact[person],)
        if rng.random() < cross:
            if record.others:
                known = record.others[person]
            else:
                known = tuple(index for index, scene in
                              self.of_identity[record.identities[person]]
                              if scene != record.scene) or known
        return known[int(rng.integers(len(known)))]


def head_tokens(faces: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """Which tokens show a head, bool (T, tokens).

    Args:
        faces: (T, H, W), not 0 at the pixels of heads.
        size: height and width of the latents.
    """
    rows, columns = (n // PATCH for n in size)
    frames, height, width = faces.shape
    blocks = faces.reshape(frames, rows, height // rows, columns, width // columns)
    return torch.from_numpy(np.asarray(blocks).any((2, 4)).reshape(frames, -1))


def middle_pixels(faces: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """(..., h, w): `faces` (..., H, W) at the middle pixel of each latent; `size` as before."""
    down, across = faces.shape[-2] // size[0], faces.shape[-1] // size[1]
    return torch.from_numpy(np.array(faces[..., down // 2 :: down, across // 2 :: across]))
