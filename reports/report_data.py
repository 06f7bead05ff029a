"""What a report shows, read from run folders: cards of samples, breakdowns, what is unscored."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from idbench.errors import UserError
from idbench.records import FacesFile, SampleFile
from idbench.reports import columns, media, tables
from idbench.reports.video_values import estimates, metric_names, video_values
from idbench.reports.views import (
    CardView,
    Curve,
    IdentityView,
    PersonView,
    ReferenceView,
    ReportData,
    TakeView,
    Unscored,
    Value,
)
from idbench.runs import Run
from idbench.score_table import long_scores
from idbench.statistics import Estimate, identity_clusters
from idbench.video import UnreadableVideo, read_chosen

if TYPE_CHECKING:
    import pandas as pd

EMBED_LIMIT = 11_000_000
"""Bytes of video embedded in a page at most; more are linked."""


def read(runs: Sequence[Run], page: Path, embed: bool | None = None) -> ReportData:
    """Read `runs` for a page to be written to `page`; `embed`: whether videos go into it (None:
    while they are small together). Raises UserError: a run has no scores."""
    values = [video_values(run) for run in runs]
    records = [run.records() for run in runs]
    if embed is None:
        videos = [r.video for of_run in records for r in of_run if r.video]
        embed = sum(v.stat().st_size for v in videos) <= EMBED_LIMIT
    metrics = _metrics(values)

    cards: dict[str, CardView] = {}
    of_people: dict[str, list[dict[str, list[float]]]] = {}
    pictures: dict[str, str | None] = {}
    reasons: dict[str, list[tuple[str, int, str, str | None]]] = collections.defaultdict(list)
    over_time: list[dict[str, list[tuple[float, float | None]]]] = []
    for index, run in enumerate(runs):
        scores = _scores(run)
        over_time.append(collections.defaultdict(list))
        for record in records[index]:
            card = cards.setdefault(record.suite_id, _card(record))
            take = _take(run, index, record, scores.get(record.sample.id, []), metrics, page, embed)
            card.takes.append(take)
            for person in take.people:
                mine = of_people.setdefault(
                    person.name, [collections.defaultdict(list) for _ in runs])[index]
                for metric, value in person.values.items():
                    if value.value is not None:
                        mine[metric].append(value.value)
                for curve in person.curves:
                    last = max(curve.frames[-1], 1)
                    over_time[index][curve.metric] += [
                        (f / last, v) for f, v in zip(curve.frames, curve.values, strict=True)]
            for reference in card.references:
                if reference.kind == "face":
                    pictures[reference.name] = reference.uri
            _reasons(card.key, index, take, reasons)
    _number_repeats(cards.values())
    identities = tuple(
        IdentityView(name, pictures.get(name),
                     tuple({m: tuple(v) for m, v in of_run.items()} for of_run in of_runs))
        for name, of_runs in sorted(of_people.items())
    )
    unscored = tuple(
        Unscored(reason, tuple(rows))
        for reason, rows in sorted(reasons.items(), key=lambda item: -len(item[1]))
    )
    return ReportData(
        tuple(runs), tuple(tables.labels(runs)), metrics, tuple(cards.values()), identities,
        unscored, _categories(records, values, metrics), tuple(dict(o) for o in over_time), embed,
    )


def _metrics(values: Sequence[pd.DataFrame]) -> tuple[str, ...]:
    """Metrics of the runs that have a column, in the tables' order."""
    return tuple(columns.columns(n for table in values for n in metric_names(table)))


class Seen(NamedTuple):
    """A video's length in frames, its rate, and some of its frames by index."""

    length: int
    fps: float
    frames: dict[int, np.ndarray]


class _Row(NamedTuple):
    metric: str
    identity: str | None
    frame: int | None
    value: float | None
    reason: str | None


def _scores(run: Run) -> dict[str, list[_Row]]:
    """The rows of each sample, with None for what is missing."""
    frame = long_scores(run).astype(object)
    frame = frame.where(frame.notna(), None)
    found: dict[str, list[_Row]] = collections.defaultdict(list)
    columns = (frame[name] for name in ("sample", *_Row._fields))
    for sample, *row in zip(*columns, strict=True):
        found[sample].append(_Row(*row))
    return found


def _faces(path: Path) -> list[dict[str, Any]]:
    """The faces of a sample; none where they are missing or damaged."""
    try:
        return FacesFile.read(path).model_dump()["frames"]
    except UserError:
        return []


def _card(record: SampleFile) -> CardView:
    sample = record.sample
    references = tuple(
        ReferenceView(r.kind, r.name, media.reference_uri(r.image)) for r in sample.references
    )
    return CardView(record.suite_id, sample.split, sample.category, sample.prompt, references)


def _number_repeats(cards: Iterable[CardView]) -> None:
    alike: dict[Any, list[CardView]] = collections.defaultdict(list)
    for card in cards:
        named = tuple((r.kind, r.name) for r in card.references)
        alike[card.split, card.category, card.prompt, named].append(card)
    for group in alike.values():
        for number, card in enumerate(group, 1):
            card.repeat = f"{number} of {len(group)}" if len(group) > 1 else ""


def _take(
    run: Run, index: int, record: SampleFile, rows: Sequence[_Row], metrics: Sequence[str],
    page: Path, embed: bool,
) -> TakeView:
    sample, problem = record.sample, record.reason
    faces = _faces(run.path(sample.id, "faces.json"))
    uri = poster = file = None
    seen = Seen(0, record.fps or 8.0, {})
    if record.video is not None:
        try:
            seen = _look(record.video, faces)
            uri = media.video_uri(record.video, page, embed)
            file = media.video_uri(record.video, page, embed=False)
            poster = media.picture_uri(media.small(seen.frames[seen.length // 2]), quality=78)
        except UnreadableVideo as error:
            problem = str(error)
    values = {
        r.metric: Value(r.value, r.reason)
        for r in rows if r.identity is None and r.frame is None and r.metric in metrics
    }
    ordered = {m: values[m] for m in metrics if m in values}
    people = tuple(_person(name, rows, seen.frames, faces, metrics) for name in sample.identities)
    height, width = next(iter(seen.frames.values())).shape[:2] if seen.frames else (1, 1)
    return TakeView(index, sample.id, uri, poster, width, height, seen.length, seen.fps,
                    ordered, people, problem, file, _others(seen.frames, faces))


def _look(path: Path, faces: Sequence[dict[str, Any]]) -> Seen:
    """The frames of a video that the page shows; others are not kept in memory."""
    of_faces = {int(f["frame"]) for f in media.shown(faces)}
    clip = read_chosen(path, lambda count: {i for i in of_faces if 0 <= i < count} | {count // 2})
    return Seen(clip.count, clip.fps, dict(clip.frames))


def _person(
    name: str, rows: Sequence[_Row], frames: Mapping[int, np.ndarray],
    faces: Sequence[dict[str, Any]], metrics: Sequence[str],
) -> PersonView:
    mine = [r for r in rows if r.identity == name]
    listed = columns.about(metrics, "identity", "person")
    values = {
        r.metric: Value(r.value, r.reason)
        for r in mine if r.frame is None and r.metric in listed
    }
    strip, tiles = media.crop_strip(frames, faces, name)
    curves = []
    for metric in columns.about(metrics, "identity"):
        points = {r.frame: r.value for r in mine if r.metric == metric and r.frame is not None}
        if points:
            frames_of = tuple(sorted(points))
            curves.append(Curve(metric, frames_of, tuple(points[f] for f in frames_of)))
    with_face = {int(f["frame"]) for f in faces if name in f["assignment"]}
    missing = tuple(i for i, frame in enumerate(tiles) if frame not in with_face)
    return PersonView(name, values, strip, tuple(tiles), missing, tuple(curves))


def _others(frames: Mapping[int, np.ndarray], faces: Sequence[dict[str, Any]]) -> PersonView | None:
    """Faces matched to nobody, one of each shown frame; None where every face was matched."""
    with_face = {int(f["frame"]) for f in media.shown(faces) if media.unmatched(f) is not None}
    if not with_face & frames.keys():
        return None
    strip, tiles = media.crop_strip(frames, faces, None)
    missing = tuple(i for i, frame in enumerate(tiles) if frame not in with_face)
    return PersonView("", {}, strip, tuple(tiles), missing, ())


def _reasons(
    key: str, run: int, take: TakeView, reasons: dict[str, list[tuple[str, int, str, str | None]]]
) -> None:
    """Files every missing value of a video under its reason, those of one person only once."""
    told = set()
    for person in take.people:
        for metric, value in person.values.items():
            if value.value is None and value.reason:
                reasons[value.reason].append((key, run, metric, person.name))
                told.add(metric)
    for metric, value in take.values.items():
        if value.value is None and value.reason and metric not in told:
            reasons[value.reason].append((key, run, metric, None))


def _categories(
    records: Sequence[Sequence[SampleFile]], values: Sequence[pd.DataFrame], metrics: Sequence[str]
) -> dict[str, tuple[dict[str, Estimate], ...]]:
    """For each category and run the estimate of each metric."""
    names = dict.fromkeys(r.sample.category for of_run in records for r in of_run)
    found: dict[str, tuple[dict[str, Estimate], ...]] = {}
    for name in names:
        of_runs = []
        for of_run, table in zip(records, values, strict=True):
            chosen = [r for r in of_run if r.sample.category == name]
            rows = table.loc[[r.sample.id for r in chosen]]
            clusters = identity_clusters([r.sample.identities for r in chosen])
            known = estimates(rows, clusters)
            of_runs.append({m: known[m] for m in metrics if m in known})
        found[name] = tuple(of_runs)
    return found
