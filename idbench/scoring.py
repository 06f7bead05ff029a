"""The step `score`: videos in a run folder -> scores, one sample at a time, and one table."""

from __future__ import annotations

import traceback
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idbench import embedded
from idbench.ahead import Ahead
from idbench.engine import FATAL, describe
from idbench.errors import UserError
from idbench.files import atomic_path, read_json, sha256_file, sha256_json, write_derived
from idbench.progress import steps
from idbench.registry import METRICS
from idbench.runs import Record, Run
from idbench.timings import Timings
from idbench.types import Sample, Score
from idbench.video import Clip, UnreadableVideo

if TYPE_CHECKING:
    from idbench.metrics.networks.sources import Source
    from idbench.metrics.score import Scorer

PEOPLE_METRICS = ("own_minus_other", "own_minus_other_by_order", "order", "swap_rate")
"""Metrics that only a sample of several people has."""
WINDOW = 8
"""Videos that are scored at once; as many more are decoded ahead."""
WINDOW_BYTES = 256_000_000
"""A window is full with so many bytes of frames: large videos are scored one by one."""
COLUMNS = {"sample": "string", "metric": "string", "identity": "string", "frame": "Int64",
           "value": "float64", "status": "string", "reason": "string"}
"""Of scores.parquet, with pandas' types."""


@dataclass(frozen=True)
class _Scored:
    """Rows of one sample, its faces (`Scorer.faces`), and whether the scoring itself failed."""

    rows: Sequence[Score]
    faces: Sequence[Any] = ()
    failed: bool = False


def scoring_key(
    protocol: Mapping[str, Any], metrics: Sequence[str],
    sources: Mapping[str, Source] | None = None,
) -> dict[str, Any]:
    """Everything that moves a score apart from the video: equal keys, comparable scores.

    Imports no network: the weights are named by their sha256, those of the user by the way they
    are read too, and never by where they lie. Files that metrics read besides the networks are
    `metric_weights`, where there are any.
    """
    from idbench.metrics.networks import sources as weights

    if sources is None:
        sources = weights.parse()
    there = embedded.entries()
    targets = {name: METRICS.target(name) for name in metrics}
    besides = {k: v for name in metrics for k, v in METRICS.load(name).weights().items()}
    return {
        "protocol": dict(protocol),
        "weights": {
            name: sources[name].identity() for name in weights.NETWORKS
            if name in there or sources[name].path is not None
        },
        **({"metric_weights": dict(sorted(besides.items()))} if besides else {}),
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
    """The finished samples of `ids` without scores under `key`, and others scored otherwise.

    One folder has one scoring: its table never holds values of two.
    """
    digest, asked = sha256_json(key), set(ids)
    found = []
    for sample in run.sample_ids:
        if sample not in asked and not run.path(sample, "scores.json").is_file():
            continue
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
    with timings.phase("load"):
        from idbench.metrics.score import Scorer

        metrics = [METRICS.load(name) for name in key["metrics"]]
        scorer = Scorer(protocol, run.folder / "embeddings", metrics=metrics, sources=sources)
        about = {
            "sha256": sha256_json(key), **key, "weight_files": scorer.weight_hashes(),
            "sources": {name: source.words() for name, source in (sources or {}).items()},
            "notes": list(getattr(scorer, "notes", ())),
        }
    # What the cache gives needs no provider: those of the run that filled it stand.
    before = run.meta.get("scoring") or {}
    same = before.get("weight_files") == about["weight_files"]
    providers: dict[str, Any] = dict(before.get("providers") or {}) if same else {}
    # Those of the samples that were scored alike before stand too.
    same = before.get("sha256") == about["sha256"]
    people: dict[str, str] = dict(before.get("reference_notes") or {}) if same else {}
    with (
        steps("score", len(records), quiet) as step,
        closing(_windows(records, scorer, timings)) as windows,
    ):
        for window in windows:
            scored = _score(run, window, scorer, list(key["metrics"]), timings)
            providers |= scorer.providers()
            people |= scorer.reference_notes
            told = {**about, "providers": dict(providers), "reference_notes": dict(people)}
            if run.meta.get("scoring") != told:
                if not same:
                    # Should this end half-way, the scores of before must not pass for these.
                    (run.folder / "scores.parquet").unlink(missing_ok=True)
                run.save(scoring=told)
            for (record, _), of_one in zip(window, scored, strict=True):
                _write(run, record, about["sha256"], of_one, timings)
                step(record.sample.prompt_id)
            del window, scored  # not held while the next one is filled


def collect(run: Run) -> Path:
    """Write scores.parquet of all scored samples; returns its path.

    Columns: sample, metric, identity (or null), frame (or null), value (or null), status, reason.
    """
    import pandas as pd
    import pyarrow
    import pyarrow.parquet

    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for sample in run.sample_ids:
        path = run.path(sample, "scores.json")
        if path.is_file() and (rows := read_json(path)["scores"]):
            metrics, identities, frames, values, reasons = zip(*rows, strict=True)
            status = ("scored" if reason is None else "unscored" for reason in reasons)
            of_sample = ([sample] * len(rows), metrics, identities, frames, values, status, reasons)
            for column, part in zip(columns.values(), of_sample, strict=True):
                column.extend(part)
    # Pandas reads its own types from it; to make the table by pandas takes ten times as long.
    empty = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()})
    schema = pyarrow.Schema.from_pandas(empty, preserve_index=False)
    table = pyarrow.table(
        [pyarrow.array(columns[of.name], of.type) for of in schema], schema=schema
    )
    target = run.folder / "scores.parquet"
    with atomic_path(target) as temporary:
        pyarrow.parquet.write_table(table, temporary)
    return target


def unscored(sample: Sample, metrics: Sequence[str], reason: str) -> list[Score]:
    """A row of each metric that the sample would have, all with the same reason."""
    alone = len(sample.identities) < 2
    names = [name for name in metrics if not (alone and name in PEOPLE_METRICS)]
    return [Score(sample.id, name, None, None, None, reason) for name in names]


def _windows(
    records: Sequence[Record], scorer: Scorer, timings: Timings
) -> Generator[list[tuple[Record, Clip | str | Exception]], None, None]:
    """The records with their decoded videos, or why there is none, as many as are scored at once.

    While a window is scored, a thread decodes the next.
    """

    def read(record: Record) -> Clip | str | Exception:
        if record.video is None or record.video_sha256 is None:
            return record.reason or "there is no video"
        if sha256_file(record.video) != record.video_sha256:
            return "the video was changed after it was finished"
        return scorer.open(record.video, record.video_sha256)

    def size(read: Clip | str | Exception) -> int:
        return 0 if isinstance(read, str | Exception) else read.bytes

    window: list[tuple[Record, Clip | str | Exception]] = []
    filled = 0
    reading = iter(Ahead[Record, Clip | str | Exception](records, read, WINDOW, size, WINDOW_BYTES))
    try:
        while True:
            with timings.phase("decode"):  # what the networks wait for it; the rest runs beside
                found = next(reading, None)
            if found is None:
                break
            window.append(found)
            filled += size(found[1])
            if len(window) == WINDOW or filled >= WINDOW_BYTES:
                del found
                yield window
                window, filled = [], 0
        if window:
            yield window
    finally:
        reading.close()


def _score(
    run: Run, window: Sequence[tuple[Record, Clip | str | Exception]], scorer: Scorer,
    metrics: Sequence[str], timings: Timings,
) -> list[_Scored]:
    """What came of each record of a window, in its order."""
    from idbench.metrics.score import Item

    items = [
        Item(record.sample, str(record.video_sha256), read) for record, read in window
        if not isinstance(read, str | Exception)
    ]
    before = dict(scorer.timings)
    with timings.phase("score"):
        scored = iter(scorer.score_all(items))
    spent = {k: v - before.get(k, 0.0) for k, v in scorer.timings.items()}
    timings.split("score", _phases(spent))
    found: list[_Scored] = []
    for record, read in window:
        sample = record.sample
        if isinstance(read, str):
            found.append(_Scored(unscored(sample, metrics, read)))
            continue
        if isinstance(read, FATAL):
            raise read
        rows = read if isinstance(read, Exception) else next(scored)
        if isinstance(rows, UnreadableVideo):
            found.append(_Scored(unscored(sample, metrics, describe(rows))))
        elif isinstance(rows, Exception):
            run.log_error(sample.id, "".join(traceback.format_exception(rows)))
            reason = f"scoring failed: {describe(rows)}"
            found.append(_Scored(unscored(sample, metrics, reason), failed=True))
        else:
            found.append(_Scored(rows if sample.prompt else _without_prompt(sample, rows),
                                 scorer.faces(sample)))
    return found


def _without_prompt(sample: Sample, rows: Sequence[Score]) -> list[Score]:
    """A video without a prompt has nothing that ViCLIP could compare it with."""
    reason = "no prompt was given"
    return [
        Score(sample.id, row.metric, row.identity, row.frame, None, reason)
        if row.metric == "viclip" else row
        for row in rows
    ]


def _write(
    run: Run, record: Record, digest: str, scored: _Scored, timings: Timings
) -> None:
    with timings.phase("score"):
        sample = record.sample.id
        write_derived(run.path(sample, "faces.json"), list(scored.faces))
        write_derived(run.path(sample, "scores.json"), {
            "schema": 1,
            "key": digest,
            "video_sha256": record.video_sha256,
            **({"failed": True} if scored.failed else {}),
            "scores": [[r.metric, r.identity, r.frame, r.value, r.reason] for r in scored.rows],
        })


def _stored(run: Run, record: Record, digest: str) -> Any | None:
    path, faces = (run.path(record.sample.id, name) for name in ("scores.json", "faces.json"))
    if not path.is_file() or (faces.is_file() and not faces.stat().st_size):
        return None
    try:
        data = read_json(path)
    except UserError:
        return None  # Cut off with the power: it is scored again.
    if data.get("failed"):
        return None  # Not the video's fault, as far as is known: it is tried again.
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
