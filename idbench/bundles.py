"""Cached embeddings for the gate: a run's values computed again in seconds, without its videos.

A bundle (a zip beside the reference file) holds what the scoring networks computed of one run: the
embeddings of its videos, references and prompts, under the keys of the embedding cache, and its
sample records. The scores are computed from it by the metrics installed now and checked against
the reference, so that a change of a metric, of the matching or of a protocol is gated on any CPU.
Other networks or another detection have other keys; then nothing is computed, and the gate says so.
"""

from __future__ import annotations

import tempfile
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from idbench.errors import UserError, explained
from idbench.files import atomic_path
from idbench.measurements import Measurement, directions, sample_values
from idbench.metrics.embedding_cache import EmbeddingCache
from idbench.metrics.protocols import get_protocol
from idbench.metrics.scorer import Scorer
from idbench.records import Identity, SampleFile, ScoringRecord
from idbench.registry import METRICS
from idbench.runs import Run
from idbench.stored import Stored, validate
from idbench.video import Clip, UnreadableVideo, read_video

CONTENT = "bundle.json"
FIX = "make it again with `idbench check RUN --update FILE --embeddings`"
LARGEST = 100_000_000
MOST_PACKED = 20
"""A bundle may unpack to `LARGEST` bytes, or to this many times its own size: embeddings hardly
shrink, so more is no bundle."""
MOST_FRAMES = 10_000_000
"""Of a video: a larger number was not counted in one."""


class Bundle(Stored):
    """bundle.json in a bundle: what was asked, and how it was scored."""

    FIX: ClassVar[str] = FIX

    identity: Identity
    scoring: ScoringRecord
    samples: list[SampleFile]
    split_size: int | None = Field(None, description="see RunFile")

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        if len({sample.suite_id for sample in self.samples}) < len(self.samples):
            raise ValueError("a sample is there twice")
        return self

    @property
    def images(self) -> set[str]:
        """The reference images, in the run folder."""
        return {i for sample in self.samples for r in sample.references for i in r.images}


def write(path: Path, run: Run) -> None:
    """Write the bundle of a run, atomically: only the embeddings that its scores need.
    Raises UserError: the run lacks embeddings, or was not scored by the networks installed now."""
    bundle = Bundle(
        identity=run.file.identity, scoring=run.file.scoring,
        samples=[_with_shape(record) for record in run.records()],
        split_size=run.file.split_size,
    )
    _, used = _score(bundle, run.folder)
    with atomic_path(path) as temporary, zipfile.ZipFile(
            temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, CONTENT, bundle.json_text().encode())
        for name in sorted({*bundle.images, *used}):
            _add(archive, name, (run.folder / name).read_bytes())


def read(path: Path) -> Measurement:
    """The values of a bundle, computed now. Raises UserError: no bundle, a damaged one, or one of
    other networks."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        try:
            with zipfile.ZipFile(path) as archive:
                size = sum(member.file_size for member in archive.infolist())
                if size > max(LARGEST, MOST_PACKED * path.stat().st_size):
                    raise UserError(
                        f"{path} would unpack to {size / 1e9:.1f} GB and is no bundle; {FIX}.")
                archive.extractall(folder)  # zipfile keeps names inside the folder
            data = (folder / CONTENT).read_bytes()
        except (OSError, ValueError, RuntimeError, EOFError, zlib.error,
                zipfile.BadZipFile) as error:  # RuntimeError: encrypted, an unknown compression
            raise UserError(
                f"{path} contains no embeddings ({type(error).__name__}); {FIX}."
            ) from error
        bundle = validate(Bundle, data, f"{path}: {CONTENT}", FIX)
        with explained(f"{path} contains embeddings that cannot be scored", FIX):
            values, _ = _score(bundle, folder)
    wide = pd.DataFrame.from_dict(values, orient="index", dtype="float64")
    key = bundle.scoring.key
    protocol = get_protocol(key.protocol_name or "")
    key.protocol = protocol.as_dict()
    found = sample_values(bundle.samples, wide)
    return Measurement(
        system=bundle.identity.model.title, source=str(path), identity=bundle.identity,
        scoring=key, better=directions(found), planned=tuple(found.index), values=found,
        split_size=bundle.split_size,
    )


def _with_shape(record: SampleFile) -> SampleFile:
    """With the shape of its video, and without the user's path; unreadable: it stays unscored."""
    shape = record.shape
    if record.video is not None and shape is None:
        with suppress(UnreadableVideo):
            shape = read_video(record.video).frames.shape
    return record.model_copy(update={"shape": shape, "source": None})


class _OnlyStored(EmbeddingCache):
    """A cache that must hold everything: nothing is computed from the empty frames."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "embeddings")
        self.run, self.used = folder, dict[str, None]()

    def get(self, source: str, key: str) -> dict[str, np.ndarray] | None:
        found, path = super().get(source, key), self.path(source)
        if found is None or path is None:
            raise UserError(
                "The cached embeddings are of other scoring networks, another detection or "
                "another protocol than those installed now; rescore the run with "
                "`idbench score RUN` and make them with `idbench check RUN --update FILE "
                "--embeddings`."
            )
        self.used[path.relative_to(self.run).as_posix()] = None
        return found


def _score(
    bundle: Bundle, folder: Path
) -> tuple[dict[str, dict[str, float | None]], dict[str, None]]:
    """Sample -> metric -> value of the whole video, and the files of `folder` that were read."""
    for image in bundle.images:
        if not (folder / image).is_file():
            raise UserError(f"The reference image {image} is missing; make the embeddings again.")
    known = METRICS.targets()
    metrics = [METRICS.load(name) for name in bundle.scoring.metrics if name in known]
    scorer = Scorer(
        get_protocol(bundle.scoring.protocol_name or ""), folder / "embeddings", metrics=metrics
    )
    names = [m.name for m in scorer.metrics]
    # There are no pixels here: what needs them stays without a value.
    scorer.metrics = tuple(m for m in scorer.metrics if not m.needs_pixels)
    cache = scorer.embedder.cache = _OnlyStored(folder)
    values: dict[str, dict[str, float | None]] = {}
    for record in bundle.samples:
        record._run = folder
        of_sample: dict[str, float | None] = dict.fromkeys(names)
        if record.shape and record.shape[0] > MOST_FRAMES:
            raise ValueError(f"a video has {record.shape[0]} frames")
        if record.shape and record.video_sha256:
            # Without frames: what they showed is in the embeddings.
            clip = Clip(record.shape[0], 1.0, {}, record.video_sha256)
            of_sample |= {
                row.metric: row.value for row in scorer.rows(record.sample, clip)
                if row.identity is None and row.frame is None
            }
        values[record.id] = of_sample
    return values, cache.used


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """With a fixed time, so that the same run gives the same file."""
    archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
