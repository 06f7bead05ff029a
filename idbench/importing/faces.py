"""The face of each reference, embedded and compared with the others and with a training set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image
from safetensors.numpy import load_file

from idbench.errors import UserError, explained
from idbench.files import atomic_path
from idbench.metrics.base import cosine
from idbench.metrics.faces.crops import FaceEmbedder
from idbench.picture_hash import NEAR, difference_hash, differing_bits
from idbench.pictures import is_transparent, open_rgb

LARGEST_SIDE = 1280
"""Longest side of stored references, in pixels: the scorer sees what was checked."""
SAME_PERSON = 0.6
"""Two people whose faces have at least this ArcFace cosine may be one (ours)."""
COPY = 0.9
"""Pictures are copies if they look alike and their faces have at least this cosine: portraits of
two people before one background look alike too (ours)."""


def open_picture(path: Path) -> Image.Image:
    """As `open_rgb`, without metadata and with at most `LARGEST_SIDE` pixels on a side.
    Raises UnreadablePicture: missing or not an image."""
    upright = open_rgb(path)
    upright.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    clean = Image.new("RGB", upright.size)
    clean.paste(upright)
    return clean


def store_picture(source: Path, target: Path, as_published: bool) -> None:
    """Write a picture as PNG, with no metadata but its orientation.

    `as_published`: with its own size, transparency, bits and orientation, so that protocols that
    read it as a script does get the same pixels; otherwise as `open_picture`."""
    if not as_published:
        open_picture(source).save(target, optimize=True)
        return
    with Image.open(source) as opened:
        turned = opened.getexif().get(ExifTags.Base.Orientation, 1)
        deep = opened.mode.startswith("I")  # 16 bits of grey
        mode = "RGBA" if is_transparent(opened) else "RGB"
        pixels = np.asarray(opened if deep else opened.convert(mode))
    if deep:
        pixels = np.clip(pixels, 0, 2**16 - 1).astype(np.uint16)
    more: dict[str, Any] = {}
    if turned != 1:
        more["exif"] = Image.Exif()
        more["exif"][ExifTags.Base.Orientation] = turned
    Image.fromarray(pixels).save(target, optimize=True, **more)


@dataclass(frozen=True)
class Face:
    """What was found on a reference: the number of faces; of the largest the probability, box (x0,
    y0, x1, y1 in pixels) and embedding (d,) of length 1; and the hash of the picture. None without
    a face."""

    count: int
    probability: float | None = None
    box: tuple[float, ...] | None = None
    vector: np.ndarray | None = None
    hash: np.ndarray | None = None


class FaceReader(FaceEmbedder):
    """Finds and embeds the faces of images."""

    def read(self, picture: Image.Image) -> Face:
        """Number of faces; probability, box and embedding of the largest."""
        pixels = np.asarray(picture)
        (faces,) = self.find(pixels[None])
        if not len(faces):
            return Face(0)
        (vector,) = self.embed_largest(pixels[None], [faces])
        box = tuple(round(float(x), 1) for x in faces.boxes[0])
        return Face(
            len(faces), round(float(faces.scores[0]), 4), box, vector, difference_hash(pixels))


@dataclass(frozen=True)
class Alike:
    """Two names of a suite, the cosine of their faces, and whether their pictures are copies."""

    first: str
    second: str
    cosine: float
    copy: bool

    def __str__(self) -> str:
        if self.copy:
            return f"{self.first} and {self.second} have the same picture"
        return f"{self.first} and {self.second} may be one person (cosine {self.cosine:.2f})"


def find_alike(faces: Mapping[str, Face]) -> list[Alike]:
    """Every two names whose faces are alike, in order: no pair of two people, or one picture under
    two names."""
    found = []
    known = [(name, face.vector, face.hash) for name, face in faces.items()
             if face.vector is not None and face.hash is not None]
    for place, (first, vector, picture) in enumerate(known[:-1], 1):
        cosines = cosine(np.stack([other for _, other, _ in known[place:]]), vector)
        for (second, _, other), value in zip(known[place:], cosines.tolist(), strict=True):
            if value >= SAME_PERSON:
                near = int(differing_bits(picture, other)) <= NEAR
                found.append(Alike(first, second, value, near and value >= COPY))
    return found


def nearest_cosine(vector: np.ndarray, training: np.ndarray) -> float:
    """Cosine of an embedding (d,) to the nearest of a training set's (n, d), -1..1."""
    return float(np.nanmax(cosine(training, vector)))


def read_embeddings(path: Path, reader: FaceReader, width: int | None = None) -> np.ndarray:
    """Embeddings (n, d) of a training set: .npy, or .npz / .safetensors with `embeddings`. A file
    of `idbench suites embed` names its recogniser, which must be `reader`'s. Raises UserError:
    missing, of another form or recogniser, or nothing finite in it."""
    if not path.is_file():
        raise UserError(f"The embeddings file {path} is missing; check the path.")
    written_by = ""
    with explained(
        f"{path} cannot be read as embeddings", "use .npy of shape (n, d), or .npz or .safetensors "
        "with an array named embeddings",
    ):
        if path.suffix == ".safetensors":
            found = load_file(path)["embeddings"]
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as stored:
                found = stored["embeddings"]
                written_by = str(stored["sha256"]) if "sha256" in stored.files else ""
        else:
            found = np.load(path, allow_pickle=False)
    if found.ndim != 2 or (width is not None and found.shape[1] != width):
        raise UserError(
            f"{path} has embeddings of shape {tuple(found.shape)}, not (n, {width or 'd'}) "
            f"of {reader.recogniser}; embed the training set with `idbench suites embed`."
        )
    if written_by and written_by != reader.sha256:
        raise UserError(
            f"{path} was embedded by another recogniser than {reader.recogniser}; embed the "
            "training set again with `idbench suites embed`."
        )
    found = np.asarray(found, np.float64)
    found = found[np.isfinite(found).all(1) & (np.linalg.norm(found, axis=1) > 0)]
    if not len(found):
        raise UserError(f"{path} contains no finite embedding; embed the training set again.")
    return found


def write_embeddings(
    path: Path, names: Sequence[str], vectors: np.ndarray, reader: FaceReader
) -> None:
    """Keep embeddings (n, d) with their images' names and their recogniser, atomically."""
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        np.savez(
            stream, allow_pickle=False, embeddings=np.asarray(vectors, np.float32),
            names=np.asarray(list(names), np.str_), recogniser=np.asarray(reader.recogniser),
            sha256=np.asarray(reader.sha256),
        )
