"""The training cache: pairs, videos and captions encoded once, one safetensors file a sample.

    cache.json                       what it was made with (written last: then it is complete)
    index.parquet                    key, split, video, caption, kinds, candidates of each sample
    skipped.jsonl                    videos left out, with the reason
    samples/AB/KEY.safetensors       of one sample:
        latents        float16 (N, C, h, w)   the clip, scaled for the transformer
        text           float16 (L, D)         embedding of the caption
        image.M.K      uint8 (bytes,)         candidate K of reference M: a PNG of the video's size
        whole.M.K      uint8 (bytes,)         the same with its background, if `keep_background`
        encoded.M.K    float16 (R, C, h, w)   R noisy draws of it, only with `draws`

References are kept as images, so that their pixel noise can be new at every step: encoding one
frame takes under 1 % of a training step of CogVideoX-5B. `draws` is for small networks, where it
takes more. A key is the hash of everything that the file is made of; a finished file is never made
again, so preparing resumes where it stopped, also with several processes.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pydantic
import torch
from accelerate import PartialState
from PIL import Image, ImageOps
from pydantic.dataclasses import dataclass as checked
from safetensors.torch import save

from idbench import embedded
from idbench.errors import UserError
from idbench.files import (
    atomic_path,
    sha256_file,
    sha256_json,
    write_bytes,
    write_json,
    write_text,
)
from idbench.models.concat_id import references as preparation
from idbench.models.concat_id.about import MAXIMUM_REFERENCES
from idbench.models.concat_id.autoencoder import to_tensor
from idbench.models.concat_id.face_tools import load_foreground
from idbench.models.concat_id.families import check_size
from idbench.models.concat_id.training import components, samples
from idbench.models.concat_id.training.pair_file import Pair, alignment_of, held_out, read_pairs
from idbench.models.concat_id.training.recipe import STRICT, read, settings_of
from idbench.pictures import UnreadablePicture, encoded, read_rgb
from idbench.progress import steps
from idbench.video import UnreadableVideo, count_frames, read_video

ENCODING = 3
"""Version of what is written for the same pair: 2 cleans Wan's captions and encodes with the
precision of the pipelines; 3 cleans them with ftfy, as Wan's own code does."""


@checked(frozen=True, config=STRICT)
class CacheRecipe:
    """What to encode, and how.

    Attributes:
        pairs: a parquet file of `idbench pairs build`; its images lie relative to its folder.
        videos: the folder that the pairs' video names are relative to.
        out: the cache; None means the state's folder.
        components: a diffusers folder with vae, text_encoder and tokenizer, or `embedded`.
        frames, height, width: of the clips; videos are cut to the size's aspect and resized.
        fps: frames a second taken from each video, from its start; 0 takes every frame.
        references: references a sample; pairs with fewer are left out, further ones ignored.
        draws: encoded noisy draws kept of each reference image; 0 keeps the images alone.
        parser: what removes the background of faces: `embedded` (made for avatars), `none`, or
            the folder or hub id of a SegFormer face parser.
        keep_background: store faces with their background too, for `background_removed`.
        held_out: samples kept for validation, with people whom the training does not see where
            the pairs allow it.
        seed: of draws and held-out samples.
        device: `auto` or `cpu`.
    """

    name: str
    trainer: str
    description: str = ""
    pairs: str = ""
    videos: str = ""
    out: str | None = None
    components: str = "embedded"
    frames: pydantic.PositiveInt = 49
    height: pydantic.PositiveInt = 480
    width: pydantic.PositiveInt = 720
    fps: pydantic.NonNegativeFloat = 8.0
    references: int = pydantic.Field(default=1, ge=0, le=MAXIMUM_REFERENCES)
    draws: pydantic.NonNegativeInt = 0
    parser: str = "none"
    keep_background: bool = False
    held_out: pydantic.NonNegativeInt = 64
    seed: pydantic.NonNegativeInt = 0
    device: Literal["auto", "cpu"] = "auto"


@dataclass(frozen=True)
class _Networks:
    autoencoder: components.Autoencoder
    text: components.TextEncoder
    foreground: preparation.Foreground | None


def prepare(
    content: dict[str, Any], state_dir: Path, resume: bool = True, evaluate: bool = False
) -> dict[str, Any]:
    """Trainer of recipe `pairs_cache`: encode every sample that is not yet there. Raises UserError:
    pairs or videos are missing, the size does not suit the autoencoder, no sample could be made, or
    the disk is full."""
    del resume, evaluate  # finished samples always stay
    recipe = read(CacheRecipe, content)
    out = Path(recipe.out) if recipe.out else Path(state_dir)
    videos = Path(recipe.videos)
    if not recipe.videos or not videos.is_dir():
        what = f"There is no folder {recipe.videos}" if recipe.videos else "No videos are named"
        raise UserError(
            f"{what}; pass the folder that the pairs were built from: --set videos=FOLDER."
        )
    # Read again each time: millions of pairs in memory are gigabytes in every process.
    count = sum(1 for _ in read_pairs(recipe.pairs, recipe.references))
    state = PartialState(cpu=recipe.device == "cpu")
    networks = _Networks(
        components.load_autoencoder(recipe.components, state.device),
        components.load_text_encoder(recipe.components, state.device),
        load_foreground(recipe.parser, state.device.type)[0],
    )
    unit = networks.autoencoder
    check_size(2 * unit.spatial, unit.temporal, recipe.frames, recipe.height, recipe.width)
    identity = _identity(recipe)
    own = range(state.process_index, count, state.num_processes)
    pairs = islice(
        read_pairs(recipe.pairs, recipe.references), own.start, None, own.step
    )
    rows: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    with steps("encode pairs", len(own), quiet=not state.is_local_main_process) as step:
        for number, pair in zip(own, pairs, strict=True):
            try:
                key = _key(identity, videos, pair)
                path = samples.sample_path(out, key)
                if not path.exists():
                    write_bytes(path, _encode(recipe, networks, videos, pair, key))
                rows.append({"number": number, "key": key, **_described(pair)})
            except (_Unusable, UnreadableVideo) as error:
                skipped.append({"video": pair.video, "reason": str(error)})
            step()
    return _finish(recipe, identity, out, rows, skipped, state)


class _Unusable(UserError):
    """A sample that cannot be made from these files; it is counted and skipped."""


def _identity(recipe: CacheRecipe) -> dict[str, Any]:
    """Everything but the pair that a sample's file depends on."""
    names = ("frames", "height", "width", "fps", "references", "draws", "parser", "seed")
    both = {"keep_background": True} if recipe.keep_background and recipe.parser != "none" else {}
    return {
        "version": samples.VERSION, "encoding": ENCODING,
        **{n: getattr(recipe, n) for n in names}, **both,
        "weights": _weight_hashes(recipe.components),
    }


def _weight_hashes(source: str) -> dict[str, str]:
    if source == "embedded":
        return {n: embedded.entry(n)["sha256"] for n in ("vae", "text_encoder")}
    folder = Path(source)
    files = sorted([*folder.glob("vae/*.safetensors"), *folder.glob("text_encoder/*.safetensors")])
    return {str(f.relative_to(folder)): sha256_file(f) for f in files}


def _key(identity: Mapping[str, Any], videos: Path, pair: Pair) -> str:
    parts: list[Any] = [identity, pair.video, pair.caption]
    for path in (videos / pair.video, *(image for slot in pair.slots for image in slot.images)):
        try:
            status = path.stat()
        except OSError as error:
            raise _Unusable(f"{path} is missing") from error
        parts.append([path.name, status.st_size, status.st_mtime_ns])
    parts.append([slot.kind for slot in pair.slots])
    return sha256_json(parts)[:40]


def _encode(
    recipe: CacheRecipe, networks: _Networks, videos: Path, pair: Pair, key: str
) -> bytes:
    """The bytes of one sample's file."""
    clip = to_tensor(_clip(videos / pair.video, recipe)[None]).contiguous()
    tensors = {
        "latents": _half(networks.autoencoder.encode(clip)[0]),
        "text": _half(networks.text([pair.caption])[0]),
    }
    rng = np.random.default_rng([recipe.seed, zlib.crc32(key.encode())])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    for m, slot in enumerate(pair.slots):
        for k, path in enumerate(slot.images):
            image = whole = _read(path)
            if slot.kind == "face" and networks.foreground is not None:
                image, _ = preparation.remove_background(whole, networks.foreground(whole))
            stored = _png(image, recipe)
            tensors[f"image.{m}.{k}"] = stored
            if recipe.keep_background and image is not whole:
                tensors[f"whole.{m}.{k}"] = _png(whole, recipe)
            if recipe.draws:
                clean = samples.read_image(stored)
                noisy = [samples.vary(clean, slot.kind, rng, generator)
                         for _ in range(recipe.draws)]
                encoded = networks.autoencoder.encode(torch.stack(noisy)[:, :, None])[:, 0]
                tensors[f"encoded.{m}.{k}"] = _half(encoded)
    return save(tensors, _described(pair))


def _described(pair: Pair) -> dict[str, str]:
    """What the index and a sample's file say of it."""
    return {
        "video": pair.video, "caption": pair.caption,
        "kinds": ",".join(s.kind for s in pair.slots),
        "candidates": ",".join(str(len(s.images)) for s in pair.slots),
    }


def _clip(path: Path, recipe: CacheRecipe) -> np.ndarray:
    """`frames` frames of the size, from the video's start: uint8 RGB (T, H, W, 3)."""
    count = count_frames(path)
    rate = read_video(path, [0]).fps
    stride = rate / recipe.fps if recipe.fps else 1.0
    indices = [round(i * stride) for i in range(recipe.frames)]
    if indices[-1] >= count:
        raise _Unusable(f"{path} has {count} frames, the clip needs {indices[-1] + 1}")
    frames = read_video(path, indices).frames
    return np.stack([_cover(frame, recipe.height, recipe.width) for frame in frames])


def _cover(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize to fill the size, and crop equally on both sides."""
    made = ImageOps.fit(Image.fromarray(image), (width, height), Image.Resampling.LANCZOS)
    return np.asarray(made)


def _read(path: Path) -> np.ndarray:
    try:
        return read_rgb(path)
    except UnreadablePicture as error:
        raise _Unusable(f"the reference {path} is not a readable image") from error


def _png(image: np.ndarray, recipe: CacheRecipe) -> torch.Tensor:
    """An image at the video's size as a PNG, uint8 (bytes,)."""
    fitted = preparation.fit_and_pad(image, recipe.height, recipe.width)
    data = encoded(Image.fromarray(fitted), "PNG")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _half(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to("cpu", torch.float16).contiguous()


def _finish(
    recipe: CacheRecipe, identity: Mapping[str, Any], out: Path, rows: list[dict[str, Any]],
    skipped: list[dict[str, str]], state: PartialState,
) -> dict[str, Any]:
    """Write the index from every process's rows; the main process returns counts."""
    from accelerate.utils import gather_object

    state.wait_for_everyone()
    rows, skipped = gather_object(rows), gather_object(skipped)
    if not state.is_main_process:
        return {}
    if not rows:
        raise UserError(
            f"No sample could be made ({skipped[0]['reason']}); check pairs and videos."
        )
    rows.sort(key=lambda row: row.pop("number"))
    chosen = [(row["key"], row["video"]) for row in rows]
    pairs = read_pairs(recipe.pairs, recipe.references)
    held = set(held_out(chosen, pairs, recipe.held_out, recipe.seed))
    for row in rows:
        row["split"] = "validation" if row["key"] in held else "training"
    (out / "cache.json").unlink(missing_ok=True)  # of an earlier cache: it has another index
    write_text(out / "skipped.jsonl", "".join(json.dumps(row) + "\n" for row in skipped))
    with atomic_path(out / "index.parquet") as temporary:
        pd.DataFrame(rows).drop_duplicates("key").to_parquet(temporary)
    write_json(out / "cache.json", {
        **identity, "components": recipe.components, "alignment": alignment_of(recipe.pairs),
    })
    return {"samples": len(rows), "held_out": len(held), "skipped": len(skipped)}


# What the command line asks a trainer for.
prepare.settings = settings_of(CacheRecipe)  # type: ignore[attr-defined]
