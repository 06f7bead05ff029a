"""Cached embeddings for the gate: a run's values computed again in seconds, without its videos.

A bundle (a zip beside the reference file) holds what the scoring networks said of one run: the
embeddings of its videos, references and prompts, by the keys of the embedding cache, and what was
asked. From it the scores are computed by the metrics installed now, and held against the
reference: so a change of a metric, of the matching or of a protocol is gated on any CPU. Other
networks or another detection have other keys; then nothing is computed, and the gate says so.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from idbench.errors import UserError
from idbench.files import atomic_path
from idbench.measurements import ABOUT, Measurement, higher_is_better
from idbench.runs import Run
from idbench.types import Reference, Sample

SCHEMA = 1
CONTENT = "bundle.json"


def write(path: Path, run: Run) -> None:
    """Write the bundle of a run, atomically: only the embeddings that its scores need.

    Raises:
        UserError: the run lacks embeddings, or was not scored by the networks installed now.
    """
    content: dict[str, Any] = {
        "schema": SCHEMA, "identity": run.file.identity.model_dump(),
        "scoring": run.file.scoring.model_dump(),
        "samples": [_described(run, record) for record in run.records()],
    }
    _, used = _score(content, run.folder)
    images = {r["image"] for s in content["samples"] for r in s["references"]}
    with atomic_path(path) as temporary, zipfile.ZipFile(
            temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, CONTENT, json.dumps(content, ensure_ascii=False, indent=1).encode())
        for name in sorted({*images, *used}):
            _add(archive, name, (run.folder / name).read_bytes())


def read(path: Path) -> Measurement:
    """The values of a bundle, computed now.

    Raises:
        UserError: no bundle, a damaged one, or one of other networks.
    """
    import pandas as pd

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        try:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(folder)  # zipfile keeps names inside the folder
            content = json.loads((folder / CONTENT).read_text(encoding="utf-8"))
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{path} holds no embeddings of idbench ({type(error).__name__}); make them with "
                "`idbench check RUN --update FILE --embeddings`."
            ) from error
        if content.get("schema") != SCHEMA:
            raise UserError(f"{path} was written by another idbench; make it again.")
        values, _ = _score(content, folder)
    samples = content["samples"]
    about = pd.DataFrame({
        "suite_id": [s["suite_id"] for s in samples], "sample": [s["id"] for s in samples],
        "identities": [tuple(r["name"] for r in s["references"] if r["kind"] == "face")
                       for s in samples],
        "category": [s["category"] for s in samples],
        "prompt_id": [s["prompt_id"] for s in samples], "status": [s["status"] for s in samples],
    }).set_index("suite_id")[list(ABOUT)]
    wide = pd.DataFrame.from_dict(values, orient="index", dtype="float64")
    identity = content["identity"]
    model, scoring = identity["model"], content["scoring"]
    name = f"{model['name']}@{model['variant']}" if model.get("variant") else model["name"]
    protocol = _protocol(scoring).as_dict()
    return Measurement(
        system=name, source=str(path), model=model, suite=identity["suite"],
        split=identity["split"], seed=identity["seed"],
        scoring={"protocol": json.loads(json.dumps(protocol)), "weights": scoring["weights"],
                 "detector": scoring["detector"], "metrics": scoring["metrics"]},
        better={str(n): higher_is_better(str(n)) for n in wide.columns},
        planned=tuple(about.index), values=about.join(wide, on="sample"),
    )


def _described(run: Run, record: Any) -> dict[str, Any]:
    """A sample as JSON, with the shape of its video; without a video it stays unscored."""
    from idbench.video import UnreadableVideo, read_video

    sample, shape = record.sample, record.shape
    if record.video is not None and shape is None:
        try:
            shape = read_video(record.video).frames.shape
        except UnreadableVideo:
            shape = None
    return {
        "id": sample.id, "suite_id": record.suite_id, "split": sample.split,
        "prompt_id": sample.prompt_id, "prompt": sample.prompt, "category": sample.category,
        "seed": sample.seed, "truth": dict(sample.truth), "status": record.status,
        "video_sha256": record.video_sha256, "shape": None if shape is None else list(shape),
        "references": [
            {"kind": r.kind, "name": r.name, "image": r.image.relative_to(run.folder).as_posix()}
            for r in sample.references
        ],
    }


def _score(
    content: Mapping[str, Any], folder: Path
) -> tuple[dict[str, dict[str, float | None]], Iterable[str]]:
    """Sample -> metric -> value of the whole video, and the files of `folder` that were read."""
    from idbench.metrics.cache import EmbeddingCache
    from idbench.metrics.score import Scorer
    from idbench.registry import METRICS
    from idbench.video import Clip

    used: dict[str, None] = {}

    class Strict(EmbeddingCache):
        """A cache in which everything must be: nothing is computed from the empty frames."""

        def get(self, source: str, key: str) -> dict[str, np.ndarray] | None:
            found, path = super().get(source, key), self.file(source, key)
            if found is None or path is None:
                raise UserError(
                    "The cached embeddings are of other scoring networks, another detection or "
                    "another protocol than those installed now; score the run again with "
                    "`idbench score RUN` and make them with `idbench check RUN --update FILE "
                    "--embeddings`."
                )
            used[path.relative_to(folder).as_posix()] = None
            return found

    for image in {r["image"] for s in content["samples"] for r in s["references"]}:
        if not (folder / image).is_file():
            raise UserError(f"The reference image {image} is missing; make the embeddings again.")
    known = METRICS.targets()
    metrics = [METRICS.load(name) for name in content["scoring"]["metrics"] if name in known]
    scorer = Scorer(_protocol(content["scoring"]), folder / "embeddings", metrics=metrics)
    names = [m.name for m in scorer.metrics]
    # There are no pixels here: what needs them stays without a value.
    scorer.metrics = tuple(m for m in scorer.metrics if not m.needs_pixels)
    scorer.embedder.cache = Strict(folder / "embeddings")
    values: dict[str, dict[str, float | None]] = {}
    for data in content["samples"]:
        sample = _sample(data, folder)
        of_sample: dict[str, float | None] = dict.fromkeys(names)
        if data["shape"] is not None:
            # Without frames: what they showed is in the embeddings.
            rows = scorer.rows(sample, Clip(data["shape"][0], 1.0, {}, data["video_sha256"]))
            of_sample |= {
                row.metric: row.value for row in rows
                if row.identity is None and row.frame is None
            }
        values[sample.id] = of_sample
    return values, used


def _sample(data: Mapping[str, Any], folder: Path) -> Sample:
    references = tuple(
        Reference(r["kind"], r["name"], folder / r["image"]) for r in data["references"])
    return Sample(
        id=data["id"], split=data["split"], prompt_id=data["prompt_id"], prompt=data["prompt"],
        category=data["category"], references=references, seed=data["seed"], truth=data["truth"],
    )


def _protocol(scoring: Mapping[str, Any]) -> Any:
    from idbench.metrics.protocols import get_protocol

    return get_protocol(scoring["protocol"]["name"])


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """With a fixed time, so that the same run gives the same file."""
    archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
