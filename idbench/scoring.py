"""The step `score`: videos in a run folder -> scores, one sample at a time, and one table."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idbench import embedded
from idbench.engine import FATAL, describe
from idbench.files import atomic_path, read_json, sha256_file, sha256_json, write_json
from idbench.progress import steps
from idbench.registry import METRICS
from idbench.runs import Record, Run
from idbench.timings import Timings
from idbench.types import Sample, Score
from idbench.video import UnreadableVideo, read_video

if TYPE_CHECKING:
    from idbench.metrics.networks.sources import Source

PEOPLE_METRICS = ("own_minus_other", "own_minus_other_by_order", "order", "swap_rate")
"""Metrics that only a sample of several people has."""
COLUMNS = ("sample", "metric", "identity", "frame", "value", "status", "reason")


def scoring_key(
    protocol: Mapping[str, Any], metrics: Sequence[str],
    sources: Mapping[str, Source] | None = None,
) -> dict[str, Any]:
    """Everything that moves a score apart from the video: equal keys, comparable scores.

    Imports no network: the weights are named by their sha256, those of the user by the way they
    are read too, and never by where they lie.
    """
    from idbench.metrics.networks import sources as weights

    if sources is None:
        sources = weights.parse()
    there = embedded.entries()
    targets = {name: METRICS.target(name) for name in metrics}
    return {
        "protocol": dict(protocol),
        "weights": {
            name: sources[name].identity() for name in weights.NETWORKS
            if name in there or sources[name].path is not None
        },
        "detector": _detector(protocol, sources),
        "metrics": {n: f"{t.distribution} {t.version}" for n, t in sorted(targets.items())},
    }


def _detector(protocol: Mapping[str, Any], sources: Mapping[str, Source]) -> str:
    """The detector that will find the faces: its weights, and the package that runs them."""
    asked = protocol.get("detection", {}).get("detector")
    if asked == "pack" and "detector" in sources:
        return f"{sources['detector'].identity()} {_version('insightface')}"
    return _version("facenet-pytorch")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def pending(run: Run, ids: Sequence[str], key: Mapping[str, Any]) -> list[Record]:
    """The finished samples of `ids` without scores under `key`."""
    digest = sha256_json(key)
    found = []
    for sample in ids:
        record = run.record(sample)
        if record is not None and _stored(run, record, digest) is None:
            found.append(record)
    return found


def score(
    run: Run, records: Sequence[Record], protocol: Any, key: Mapping[str, Any],
    timings: Timings, quiet: bool = False, sources: Mapping[str, Source] | None = None,
) -> None:
    """Score `records` and write each sample's scores as soon as they are there.

    A video that cannot be read or scored becomes unscored rows with the reason.

    Raises:
        DiskFull, WeightError: what every further sample would meet too.
    """
    if not records:
        return
    digest = sha256_json(key)
    with timings.phase("load"):
        from idbench.metrics.score import Scorer

        metrics = [METRICS.load(name) for name in key["metrics"]]
        scorer = Scorer(protocol, run.folder / "embeddings", metrics=metrics, sources=sources)
        weights, providers = scorer.weight_hashes(), scorer.providers()
    run.save(scoring={
        "sha256": digest, **key, "weight_files": weights,
        "sources": {name: source.words() for name, source in (sources or {}).items()},
        "providers": providers,
        "notes": list(getattr(scorer, "notes", ())),
    })
    with steps("score", len(records), quiet) as step:
        for record in records:
            rows, faces = _score_one(run, record, scorer, list(key["metrics"]), timings)
            _write(run, record, digest, rows, faces, timings)
            step(record.sample.prompt_id)


def collect(run: Run) -> Path:
    """Write scores.parquet of all scored samples; returns its path.

    Columns: sample, metric, identity (or null), frame (or null), value (or null), status, reason.
    """
    import pandas as pd

    rows: list[list[Any]] = []
    for sample in run.sample_ids:
        path = run.path(sample, "scores.json")
        if path.is_file():
            rows += [[sample, *row] for row in read_json(path)["scores"]]
    frame = pd.DataFrame(rows, columns=["sample", "metric", "identity", "frame", "value", "reason"])
    frame["status"] = frame["reason"].isna().map({True: "scored", False: "unscored"})
    types = {"sample": "string", "metric": "string", "identity": "string", "frame": "Int64",
             "value": "float64", "status": "string", "reason": "string"}
    target = run.folder / "scores.parquet"
    with atomic_path(target) as temporary:
        frame.astype(types)[list(COLUMNS)].to_parquet(temporary, index=False)
    return target


def unscored(sample: Sample, metrics: Sequence[str], reason: str) -> list[Score]:
    """A row of each metric that the sample would have, all with the same reason."""
    alone = len(sample.identities) < 2
    names = [name for name in metrics if not (alone and name in PEOPLE_METRICS)]
    return [Score(sample.id, name, None, None, None, reason) for name in names]


def _score_one(
    run: Run, record: Record, scorer: Any, metrics: Sequence[str], timings: Timings
) -> tuple[list[Score], list[Any]]:
    sample = record.sample
    if record.video is None or record.video_sha256 is None:
        return unscored(sample, metrics, record.reason or "there is no video"), []
    try:
        with timings.phase("decode"):
            if sha256_file(record.video) != record.video_sha256:
                return unscored(sample, metrics, "the video was changed after it was finished"), []
            video = read_video(record.video)
    except UnreadableVideo as error:
        return unscored(sample, metrics, describe(error)), []
    before = dict(scorer.timings)
    try:
        with timings.phase("score"):
            rows = scorer.score(sample, video, record.video_sha256)
            faces = scorer.faces(sample)
    except FATAL:
        raise
    except Exception as error:
        run.log_error(sample.id, traceback.format_exc())
        return unscored(sample, metrics, f"scoring failed: {describe(error)}"), []
    spent = {k: v - before.get(k, 0.0) for k, v in scorer.timings.items()}
    timings.split("score", _phases(spent))
    if not sample.prompt:
        rows = _without_prompt(sample, rows)
    return rows, faces


def _without_prompt(sample: Sample, rows: Sequence[Score]) -> list[Score]:
    """A video without a prompt has nothing that ViCLIP could compare it with."""
    reason = "no prompt was given"
    return [
        Score(sample.id, row.metric, row.identity, row.frame, None, reason)
        if row.metric == "viclip" else row
        for row in rows
    ]


def _write(
    run: Run, record: Record, digest: str, rows: Sequence[Score], faces: Sequence[Any],
    timings: Timings,
) -> None:
    with timings.phase("score"):
        sample = record.sample.id
        write_json(run.path(sample, "faces.json"), list(faces))
        write_json(run.path(sample, "scores.json"), {
            "schema": 1,
            "key": digest,
            "video_sha256": record.video_sha256,
            "scores": [[r.metric, r.identity, r.frame, r.value, r.reason] for r in rows],
        })


def _stored(run: Run, record: Record, digest: str) -> Any | None:
    path = run.path(record.sample.id, "scores.json")
    if not path.is_file():
        return None
    data = read_json(path)
    same = data["key"] == digest and data["video_sha256"] == record.video_sha256
    return data if same else None


def _phases(spent: Mapping[str, float]) -> dict[str, float]:
    """A scorer's own account in the phases of a run."""
    found: dict[str, float] = {}
    for name, seconds in spent.items():
        phase = "embed" if name.split()[0] in ("embed", "align") else name
        if phase != "score":
            found[phase] = found.get(phase, 0.0) + seconds
    return found
