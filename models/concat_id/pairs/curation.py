"""The whole pipeline: list, read, judge, calibrate, search, write."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from idbench.errors import UserError
from idbench.files import check_output, sha256_json, write_json
from idbench.lock import exclusive
from idbench.models.concat_id.pairs import (
    built_files,
    calibration,
    partners,
    people,
    stages,
    store,
)
from idbench.models.concat_id.pairs.reader import (
    FaceReader,
    Make,
    ReaderSettings,
    read_videos,
)
from idbench.models.concat_id.pairs.settings import PairSettings
from idbench.models.concat_id.pairs.tracking import usual_count
from idbench.video_folders import VIDEO_SUFFIXES

NO_SCORER = (
    "No aesthetic scorer given: Stage III is ranked by optical flow and motion only "
    "(--aesthetic FILE or module:function adds it)."
)
NAMED = 100
"""Videos of a kind that the summary names; videos.parquet names all."""
OPTIONAL = (*(f"multi{n}_{kind}" for n in (2, 3) for kind in ("pretraining", "cross")),
            "tryon", "background")
"""Outputs that not every build has."""


@dataclass(frozen=True)
class BuildRequest:
    """What to build.

    Attributes:
        videos: folder with video files, also in folders below.
        captions: file with video and caption.
        reader: how videos are read, with the thresholds.
        workers: processes that read videos.
        aesthetic: file with video and score, or None.
        calibrate, truth: files of identities, to fit the thresholds on or to measure against.
    """

    videos: Path
    captions: Path
    out: Path
    reader: ReaderSettings
    workers: int = 1
    aesthetic: Path | None = None
    calibrate: Path | None = None
    truth: Path | None = None
    quiet: bool = False


@dataclass(frozen=True)
class Built:
    """What a build made: summary.json, and the number of videos read now, not before."""

    summary: dict[str, Any]
    read: int


def build(request: BuildRequest, make: Make = FaceReader) -> Built:
    """Build pairs; a build that was stopped resumes, a finished one reads nothing. `make` makes the
    reader of videos, here and in workers. Raises UserError: wrong inputs."""
    _check(request)
    with exclusive(request.out):
        _check_out(request.out)
        reader = make(request.reader)
        with closing(store.Store(request.out / "videos.sqlite", reader.identity())) as base:
            found = base.list_videos(request.videos, request.out)
            captions = base.note_captions(request.captions)
            if request.aesthetic:
                base.note_aesthetic(request.aesthetic)
            read = read_videos(
                base, request.videos, request.out, reader, make, request.reader, request.workers,
                request.quiet,
            )
            summary = _select(request, base, found - captions, reader.identity())
    return Built(summary, read)


def _check(request: BuildRequest) -> None:
    """Refuse what can be checked before a network is loaded or a folder is made."""
    if not request.videos.is_dir():
        raise UserError(f"There is no folder {request.videos}; pass the folder of the videos.")
    for what, path in (
        ("captions", request.captions), ("aesthetic scores", request.aesthetic),
        ("identities", request.calibrate), ("identities", request.truth),
    ):
        if path is not None and not path.is_file():
            raise UserError(f"The {what} file {path} is missing; check the path.")
    if next(store.video_files(request.videos, request.out), None) is None:
        raise UserError(
            f"There are no videos in {request.videos}; pass a folder with "
            f"{', '.join(VIDEO_SUFFIXES)} files."
        )


def _select(
    request: BuildRequest, base: store.Store, uncaptioned: int, reader: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything after reading; it is done anew each time, so thresholds can be changed."""
    settings = request.reader.pairs
    everyone, dropped = people.collect(base, settings)
    partners.check_size(len(everyone), settings.exact_limit)
    calibrated = None
    if request.calibrate:
        named = calibration.read_identities(request.calibrate, base, everyone)
        settings, calibrated = calibration.calibrate(everyone, named, settings)
    known = calibration.read_identities(request.truth, base, everyone) if request.truth else None
    outputs, similarity = choose_outputs(
        everyone, settings, known.of_person if known else None, request.reader.subjects != "none"
    )
    _remove_older(request.out, [made.name for made in outputs])
    alignment = reader.get("alignment")
    schema = built_files.SCHEMA.with_metadata({"alignment": alignment} if alignment else None)
    for made in outputs:
        rows = built_files.rows(made, everyone, base, settings.seed)
        built_files.write_rows(request.out / f"{made.name}.parquet", schema, rows)
    unreadable, no_term = _write_videos(request.out / "videos.parquet", base, settings)
    kept = {str(n): len(everyone.of_group(n)) for n in (1, 2, 3)}
    scored = bool(np.isfinite(everyone.aesthetic).any())
    summary = {
        "version": 1,
        "videos": {
            "found": uncaptioned + sum(dropped.values()) + sum(kept.values()),
            "dropped": {"no caption": uncaptioned, **dropped}, "kept_by_people": kept,
        },
        "unreadable": unreadable,
        "captions_without_a_term": no_term,
        "copies": _copies(similarity, everyone, base),
        "outputs": {made.name: made.summary() for made in outputs},
        "aesthetic": "given" if scored else NO_SCORER,
        "calibration": calibrated,
        "truth": calibration.report(everyone, known, similarity, outputs) if known else None,
        "settings": asdict(settings),
        "similarity": similarity.as_dict(),
        "reader": {
            "weights": list(request.reader.weights), "subjects": request.reader.subjects,
            "alignment": alignment, "sha256": sha256_json(reader),
        },
    }
    # Round trip: tuples become lists, as a reader of the file sees them.
    summary = json.loads(json.dumps(summary))
    write_json(request.out / "summary.json", summary)
    built_files.write_page(request.out, summary, outputs, everyone, base)
    return summary


def _check_out(out: Path) -> None:
    """Refuse a folder where a file that a build writes or removes is something else."""
    # After a kill, the store's content may still be in SQLite's write-ahead log.
    store, log = out / "videos.sqlite", out / "videos.sqlite-wal"
    try:
        check_output(store, "store of videos")
    except UserError:
        if not (log.is_file() and log.stat().st_size):
            raise
        check_output(log, "store of videos")
    check_output(out / "summary.json", "summary of pairs")
    check_output(out / "pairs.html", "page of pairs")
    for name in ("videos", "pretraining", "cross", "tradeoff", *OPTIONAL):
        check_output(out / f"{name}.parquet", "pairs")


def _remove_older(out: Path, made: Sequence[str]) -> None:
    """What speaks of an earlier build's files, and those of them that this build has not."""
    older = [f"{name}.parquet" for name in OPTIONAL if name not in made]
    for name in ("summary.json", "pairs.html", *older):
        (out / name).unlink(missing_ok=True)


def choose_outputs(
    everyone: people.People, settings: PairSettings, identity: np.ndarray | None = None,
    subjects: bool = True,
) -> tuple[list[stages.Output], partners.Similarity]:
    """The pairs of every output, and the similarities seen on the way. `identity`: see
    `partners.find_partners`; `subjects`: whether to make outputs with garments and backgrounds."""
    wanted = partners.requests(everyone, settings)
    best, similarity = partners.find_partners(everyone, wanted, settings, identity)
    outputs = [
        stages.pretraining(everyone, 1), stages.cross(everyone, best["cross"]),
        stages.tradeoff(everyone, best["tradeoff"], settings),
    ]
    for size in range(2, settings.people + 1):
        outputs.append(stages.pretraining(everyone, size))
        outputs.append(stages.cross_of_several(everyone, best["multi"], size, settings))
    if subjects:
        outputs.append(stages.with_subject(everyone, best["tryon"], "garment"))
        outputs.append(stages.with_subject(everyone, best["background"], "background"))
    return outputs, similarity


def _copies(
    similarity: partners.Similarity, everyone: people.People, base: store.Store
) -> dict[str, Any]:
    """Pairs of videos that are near-copies, and so no partners: their number and first names."""
    pairs = sorted({(int(everyone.video[a]), int(everyone.video[b])) for a, b in similarity.copies})
    names = [[base.get(a).name, base.get(b).name] for a, b in pairs[:NAMED]]
    return {"pairs": len(pairs), "videos": names}


def _write_videos(
    path: Path, base: store.Store, settings: PairSettings
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Write the result of every captioned video; returns the first unreadable ones, and the first
    captions without a human term."""
    schema = pa.schema([
        ("video", pa.string()), ("kept", pa.bool_()), ("reason", pa.string()),
        ("detail", pa.string()), ("people", pa.int32()), ("other_count_share", pa.float64()),
        ("other_identity_share", pa.float64()), ("frames_in_other_order", pa.int32()),
    ])
    unreadable: list[dict[str, str]] = []
    no_term: list[dict[str, str]] = []

    def rows() -> Iterator[dict[str, Any]]:
        for row in base.rows(vectors=False):
            reason, record = people.why_dropped(row, settings), row.record
            if reason == people.UNREADABLE and len(unreadable) < NAMED:
                unreadable.append({"video": row.name, "problem": str(row.problem)})
            if reason == people.NO_TERM and len(no_term) < NAMED:
                no_term.append({"video": row.name, "caption": str(row.caption)})
            found = {"video": row.name, "kept": reason is None, "reason": reason,
                     "detail": row.problem, "people": 0}
            if record is not None:
                found |= {
                    "people": usual_count(record.counts),
                    "other_count_share": people.count_inconsistency(record.counts),
                    "other_identity_share": people.identity_inconsistency(
                        record.cosines, settings.identity_cosine),
                    "frames_in_other_order": record.conflicts,
                }
            yield found

    built_files.write_rows(path, schema, rows())
    return unreadable, no_term
