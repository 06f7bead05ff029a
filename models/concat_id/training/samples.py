"""The cache as training sees it: what step s draws depends on the seed and on s alone.

Sample j of step s is the same for any number of processes: the order of the cache is drawn anew
each epoch, and the rest (time, noise, reference, dropout) from (seed, s, j).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch.utils.data import DataLoader, Dataset

from idbench.errors import UserError
from idbench.files import read_json
from idbench.models.concat_id.about import NOISE_MEAN, NOISE_SCALE
from idbench.models.concat_id.autoencoder import to_frames, to_tensor
from idbench.models.concat_id.training.recipe import StageRecipe
from idbench.provenance import cores

VERSION = 1
PREPARE = "run `idbench train pairs_cache --set pairs=... --set videos=...` first"


@dataclass(frozen=True)
class HeldOut:
    """A sample that is not trained on.

    Attributes:
        key: its name. caption: its prompt. kinds: of its references.
        row: float `latents`, `text`, and `images` (M, 3, H, W) or encoded `references` (M, C, h, w)
            where it has some; without pixel noise in `images`.
        pictures: the references, uint8 RGB (H, W, 3).
    """

    key: str
    caption: str
    kinds: tuple[str, ...]
    row: dict[str, torch.Tensor]
    pictures: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Cache:
    """A finished cache; see `cache` for its files. `SceneSamples` has the same methods.

    Attributes:
        folder: of the cache.
        settings: of the cache, from cache.json.
        index: one row a sample: key, split, video, caption, kinds (comma-separated), candidates
            (number of candidates of each reference, comma-separated).
    """

    folder: Path
    settings: dict[str, Any]
    index: pd.DataFrame

    @staticmethod
    def open(folder: Path) -> Cache:
        """The cache in `folder`. Raises UserError: there is none, it is unfinished, or another
        version's."""
        if not (folder / "cache.json").is_file():
            raise UserError(f"There is no finished cache in {folder}; {PREPARE}.")
        settings = read_json(folder / "cache.json")
        version = settings.get("version") if isinstance(settings, dict) else None
        if version != VERSION:
            raise UserError(
                f"The cache {folder} has version {version!r}, this idbench reads {VERSION}; "
                f"{PREPARE}."
            )
        try:
            index = pd.read_parquet(folder / "index.parquet")
        except (OSError, ValueError) as error:
            raise UserError(
                f"The index of the cache {folder} is missing or damaged; {PREPARE}; existing "
                "samples are kept."
            ) from error
        return Cache(folder, settings, index)

    def split(self, name: str) -> pd.DataFrame:
        """The rows of `training` or `validation`."""
        return self.index[self.index.split == name].reset_index(drop=True)

    def check(self, recipe: StageRecipe) -> None:
        """Raises UserError where the cache is not what the recipe trains on."""
        for name in ("frames", "height", "width", "references"):
            if self.settings[name] != getattr(recipe, name):
                raise UserError(
                    f"The cache {self.folder} was made with {name} {self.settings[name]}, the "
                    f"recipe {recipe.name!r} has {getattr(recipe, name)}; make another cache or "
                    "change the recipe."
                )
        if recipe.references and recipe.reference_noise == "cached" and not self.settings["draws"]:
            raise UserError(
                f"The cache {self.folder} contains no encoded references; make it with --set "
                "draws=8, or train with reference_noise: fresh."
            )
        if not len(self.split("training")):
            raise UserError(f"The cache {self.folder} has no training samples; {PREPARE}.")

    def check_network(self, config: Any) -> None:
        """Raises UserError where a transformer of this config cannot take the cache's samples."""
        row = read_sample(self.folder, str(self.split("training").key[0]), 0, True, None)
        latents, text = row["latents"].shape, row["text"].shape
        wide = config.get("text_embed_dim") or config.get("text_dim")
        patch = config.patch_size if isinstance(config.patch_size, int) else config.patch_size[-1]
        for what, made, wanted in (
            ("latents of channels", latents[1], config.in_channels),
            ("text of width", text[1], wide),
            ("latents of rows beyond whole patches", latents[2] % patch, 0),
            ("latents of columns beyond whole patches", latents[3] % patch, 0),
        ):
            if made != wanted:
                raise UserError(
                    f"The cache {self.folder} has {what} {made}, the network takes {wanted}; make "
                    "it with the network's own `components`, or use another `init` or `network`."
                )

    def batches(
        self, recipe: StageRecipe, step: int, rank: int, world: int, pinned: bool
    ) -> Iterator[dict[str, Any]]:
        """What process `rank` of `world` computes from `step` on, as items of `StepSamples`, read
        ahead by `workers` processes, with `pinned` into pinned memory."""
        drawn = StepSamples(self, recipe, rank, world)
        loader = DataLoader(
            drawn, batch_size=None, sampler=range(step * drawn.accumulation, len(drawn)),
            num_workers=min(recipe.workers, cores()), pin_memory=pinned,
        )
        for batch in loader:
            if "problem" in batch:
                raise UserError(batch["problem"])
            yield batch

    def held_out(self, recipe: StageRecipe, fresh: bool) -> list[HeldOut]:
        """The first `validation_samples` samples that are not trained on, with the first candidate
        of each reference: as `images` where they are encoded `fresh`, by an autoencoder."""
        count = recipe.references
        found = []
        for held in self.split("validation").head(recipe.validation_samples).itertuples():
            row = read_sample(self.folder, str(held.key), count, fresh and count > 0, None)
            pictures = to_frames(row["images"][:, :, None])[:, 0] if "images" in row else ()
            kinds = tuple(str(held.kinds).split(","))[:count]
            found.append(HeldOut(str(held.key), str(held.caption), kinds, row, tuple(pictures)))
        return found


def sample_path(folder: Path, key: str) -> Path:
    """The file of a sample; 256 folders keep each one small."""
    return folder / "samples" / key[:2] / f"{key}.safetensors"


class StepSamples(Dataset[dict[str, Any]]):
    """Item i: the i-th batch of this process, counted from the first step of the training.

    Items are dicts of tensors with B rows: `latents`, `text`, `uniform`, `noise`, and `images`
    (B, M, 3, H, W), noisy pixels, or `references` (B, M, C, h, w), encoded; `keep_text` and
    `keep_references` (B,), 0 where dropped. A sample that cannot be read gives {"problem": why}:
    an exception would reach the main process as a page of text.
    """

    def __init__(self, cache: Cache, recipe: StageRecipe, rank: int = 0, world: int = 1) -> None:
        self.cache, self.recipe = cache, recipe
        self.rank, self.world = rank, world
        self.keys = list(cache.split("training").key)
        self.accumulation = recipe.accumulation(world)

    def __len__(self) -> int:
        return self.recipe.steps * self.accumulation

    def __getitem__(self, item: int) -> dict[str, Any]:
        step, part = divmod(item, self.accumulation)
        size = self.recipe.batch
        first = (part * self.world + self.rank) * size
        try:
            rows = [self.sample(step, first + b) for b in range(size)]
        except UserError as error:
            return {"problem": str(error)}
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def key(self, step: int, number: int) -> str:
        """Which sample is number `number` of a step's `global_batch`."""
        epoch, place = divmod(step * self.recipe.global_batch + number, len(self.keys))
        return self.keys[_order(self.recipe.seed, epoch, len(self.keys))[place]]

    def sample(self, step: int, number: int) -> dict[str, torch.Tensor]:
        """Sample `number` of a step, with everything random about it."""
        recipe = self.recipe
        rng = np.random.default_rng([recipe.seed, step, number])
        # Stratified times: one in each of G equal parts, dealt out at random, lowers the variance.
        parts = np.random.default_rng([recipe.seed, step]).permutation(recipe.global_batch)
        uniform = (parts[number] + rng.random()) / recipe.global_batch
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        row = read_sample(
            self.cache.folder, self.key(step, number), recipe.references,
            recipe.reference_noise == "fresh", rng, generator, recipe.background_removed,
        )
        keep = rng.random(2) >= [recipe.text_dropout, recipe.reference_dropout]
        return {
            **row,
            "uniform": torch.tensor(uniform, dtype=torch.float32),
            "noise": torch.randn(row["latents"].shape, generator=generator),
            "keep_text": torch.tensor(float(keep[0])),
            "keep_references": torch.tensor(float(keep[1])),
        }


def read_sample(
    folder: Path, key: str, references: int, fresh: bool, rng: np.random.Generator | None,
    generator: torch.Generator | None = None, background_removed: float = 1.0,
) -> dict[str, torch.Tensor]:
    """One sample of the cache.

    Args:
        fresh: give `images` with new pixel noise; else `references`, one of the cached draws.
        rng: picks among a slot's candidates, flips garments, draws the noise; None takes the
            first candidate as it is (validation).
        generator: of the pixel noise.
        background_removed: chance that a reference which the cache has both ways is shown without
            its background.

    Raises UserError: the file is missing or damaged.
    """
    path = sample_path(folder, key)
    try:
        with safe_open(path, framework="pt") as file:
            row = {name: file.get_tensor(name).float() for name in ("latents", "text")}
            counts = [int(n) for n in file.metadata()["candidates"].split(",") if n]
            kinds = file.metadata()["kinds"].split(",")
            picks = [0 if rng is None else int(rng.integers(n)) for n in counts[:references]]
            if not fresh:
                draws = [f"encoded.{m}.{pick}" for m, pick in enumerate(picks)]
                stored = [file.get_tensor(name) for name in draws]
                number = 0 if rng is None or not stored else int(rng.integers(len(stored[0])))
                held = [tensor[number].float() for tensor in stored]
            else:
                held = []
                both = {name for name in file.keys() if name.startswith("whole.")}  # noqa: SIM118
                for m, pick in enumerate(picks):
                    name = f"image.{m}.{pick}"
                    if rng is not None and f"whole.{m}.{pick}" in both:
                        name = name if rng.random() < background_removed else f"whole.{m}.{pick}"
                    image = read_image(file.get_tensor(name))
                    if rng is not None:
                        image = vary(image, kinds[m], rng, generator)
                    held.append(image)
    except (OSError, SafetensorError, KeyError, IndexError, TypeError) as error:
        raise UserError(
            f"The cached sample {path} is missing or damaged; {PREPARE} to "
            "write missing files again."
        ) from error
    if held:
        row["images" if fresh else "references"] = torch.stack(held)
    return row


def vary(
    image: torch.Tensor, kind: str, rng: np.random.Generator, generator: torch.Generator | None
) -> torch.Tensor:
    """A reference as training sees it: with pixel noise, a garment flipped half of the time."""
    if kind == "garment" and rng.random() < 0.5:
        image = image.flip(-1)
    sigma = float(np.exp(rng.normal(NOISE_MEAN, NOISE_SCALE)))
    return image + sigma * torch.randn(image.shape, generator=generator)


def read_image(stored: torch.Tensor) -> torch.Tensor:
    """float (3, H, W) in [-1, 1] of a stored PNG, uint8 (bytes,)."""
    image = np.array(Image.open(io.BytesIO(stored.numpy().tobytes())).convert("RGB"))
    return to_tensor(image[None, None])[0, :, 0]


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, 1_000_000_007, epoch]).permutation(count)
