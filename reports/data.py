"""What a report shows, read from run folders: cards of samples, breakdowns, what is unscored."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from idbench.files import read_json
from idbench.reports import media, tables
from idbench.runs import Record, Run
from idbench.statistics import Estimate, estimate, identity_clusters

if TYPE_CHECKING:
    import pandas as pd

IDENTITY_METRICS = ("arcsim", "cursim", "own_minus_other", "face_coverage")
CURVE_METRICS = ("arcsim", "cursim")
EMBED_LIMIT = 11_000_000
"""Bytes of video embedded in a page at most; more are linked."""


@dataclass(frozen=True)
class Value:
    """A value, or the reason why there is none."""

    value: float | None
    reason: str | None = None


@dataclass(frozen=True)
class Curve:
    """Values of one metric over the frames looked at (None: unscored)."""

    metric: str
    frames: tuple[int, ...]
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class PersonView:
    """One identity in one video: values, matched face of each frame, curves over frames.

    `tiles` are the frames of the strip; `missing` the places in it where no face was found.
    """

    name: str
    values: dict[str, Value]
    strip: str | None
    tiles: tuple[int, ...]
    missing: tuple[int, ...]
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class TakeView:
    """One model's video of a sample. `run` is the index of its run in the report."""

    run: int
    sample: str
    video: str | None
    poster: str | None
    width: int
    height: int
    frames: int
    fps: float
    values: dict[str, Value]
    people: tuple[PersonView, ...]
    problem: str | None


@dataclass(frozen=True)
class ReferenceView:
    """A reference image beside the videos."""

    kind: str
    name: str
    uri: str | None


@dataclass
class CardView:
    """One sample as asked, with the video of each run."""

    key: str
    split: str
    category: str
    prompt: str
    references: tuple[ReferenceView, ...]
    takes: list[TakeView] = field(default_factory=list)

    @property
    def identities(self) -> tuple[str, ...]:
        return tuple(r.name for r in self.references if r.kind == "face")

    @property
    def complete(self) -> bool:
        """Whether every value of every video was scored."""
        return all(v.value is not None for t in self.takes for v in t.values.values())


@dataclass(frozen=True)
class IdentityView:
    """One identity over all samples: for each run its values of each metric."""

    name: str
    uri: str | None
    values: tuple[dict[str, tuple[float, ...]], ...]


@dataclass(frozen=True)
class Unscored:
    """A reason and the samples it kept from a score (key of the card, run, metric, identity)."""

    reason: str
    rows: tuple[tuple[str, int, str, str | None], ...]


@dataclass(frozen=True)
class ReportData:
    """Everything a page shows."""

    runs: tuple[Run, ...]
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    cards: tuple[CardView, ...]
    identities: tuple[IdentityView, ...]
    unscored: tuple[Unscored, ...]
    categories: dict[str, tuple[dict[str, Estimate], ...]]
    frame_values: tuple[dict[str, list[tuple[float, float]]], ...]
    embedded: bool


def read(runs: Sequence[Run], page: Path, embed: bool | None = None) -> ReportData:
    """Read `runs` for a page that will lie at `page`.

    Args:
        embed: whether videos go into the page; None: while they are small together.

    Raises:
        UserError: a run has no scores.
    """
    values = [tables.video_values(run) for run in runs]
    records = [run.records() for run in runs]
    if embed is None:
        videos = [r.video for of_run in records for r in of_run if r.video]
        embed = sum(v.stat().st_size for v in videos) <= EMBED_LIMIT
    metrics = _metrics(values)

    cards: dict[str, CardView] = {}
    of_people: dict[str, list[dict[str, list[float]]]] = {}
    pictures: dict[str, str | None] = {}
    reasons: dict[str, list[tuple[str, int, str, str | None]]] = collections.defaultdict(list)
    over_time: list[dict[str, list[tuple[float, float]]]] = []
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
                        (f / last, v) for f, v in zip(curve.frames, curve.values, strict=True)
                        if v is not None]
            for reference in card.references:
                if reference.kind == "face":
                    pictures[reference.name] = reference.uri
            _reasons(card.key, index, take, reasons)
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
        tuple(runs), _labels(runs), metrics, tuple(cards.values()), identities, unscored,
        _categories(records, values, metrics), tuple(dict(o) for o in over_time), embed,
    )


def _metrics(values: Sequence[pd.DataFrame]) -> tuple[str, ...]:
    """Metrics of the runs: those of the tables in their order, then those of other packages."""
    present = dict.fromkeys(str(n) for table in values for n in table.columns)
    known = [n for n in tables.SHOWN if n in present]
    rest = {"suite_id", "cluster", *known, *tables.HIDDEN}
    return (*known, *(n for n in present if n not in rest))


def _labels(runs: Sequence[Run]) -> tuple[str, ...]:
    """Names of the runs as shown: the model's, with the folder where two would be alike."""
    names = [run.name for run in runs]
    return tuple(
        name if names.count(name) == 1 else f"{name} ({run.folder.name})"
        for name, run in zip(names, runs, strict=True)
    )


class _Row(NamedTuple):
    metric: str
    identity: str | None
    frame: int | None
    value: float | None
    reason: str | None


def _scores(run: Run) -> dict[str, list[_Row]]:
    """The rows of each sample, with None for what is missing."""
    import pandas as pd

    frame = pd.read_parquet(run.folder / "scores.parquet").astype(object)
    frame = frame.where(frame.notna(), None)
    found: dict[str, list[_Row]] = collections.defaultdict(list)
    columns = (frame[name] for name in ("sample", *_Row._fields))
    for sample, *row in zip(*columns, strict=True):
        found[sample].append(_Row(*row))
    return found


def _card(record: Record) -> CardView:
    sample = record.sample
    references = tuple(
        ReferenceView(r.kind, r.name, media.reference_uri(r.image)) for r in sample.references
    )
    return CardView(record.suite_id, sample.split, sample.category, sample.prompt, references)


def _take(
    run: Run, index: int, record: Record, rows: Sequence[_Row], metrics: Sequence[str],
    page: Path, embed: bool,
) -> TakeView:
    from idbench.video import UnreadableVideo, read_video

    sample, problem, frames = record.sample, record.reason, np.zeros((0, 1, 1, 3), np.uint8)
    uri = poster = None
    if record.video is not None:
        try:
            frames = read_video(record.video).frames
            uri = media.video_uri(record.video, page, embed)
            poster = media.picture_uri(frames[len(frames) // 2], quality=78)
        except UnreadableVideo as error:
            problem = str(error)
    path = run.path(sample.id, "faces.json")
    faces = read_json(path) if path.is_file() and len(frames) else []
    values = {
        r.metric: Value(r.value, r.reason)
        for r in rows if r.identity is None and r.frame is None and r.metric in metrics
    }
    ordered = {m: values[m] for m in metrics if m in values}
    people = tuple(_person(name, rows, frames, faces) for name in sample.identities)
    height, width = frames.shape[1:3]
    return TakeView(index, sample.id, uri, poster, width, height, len(frames), record.fps or 8.0,
                    ordered, people, problem)


def _person(
    name: str, rows: Sequence[_Row], frames: np.ndarray, faces: Sequence[dict[str, Any]]
) -> PersonView:
    mine = [r for r in rows if r.identity == name]
    values = {
        r.metric: Value(r.value, r.reason)
        for r in mine if r.frame is None and r.metric in IDENTITY_METRICS
    }
    strip, tiles = media.crop_strip(frames, faces, name)
    curves = []
    for metric in CURVE_METRICS:
        points = {r.frame: r.value for r in mine if r.metric == metric and r.frame is not None}
        if points:
            frames_of = tuple(sorted(points))
            curves.append(Curve(metric, frames_of, tuple(points[f] for f in frames_of)))
    with_face = {int(f["frame"]) for f in faces if name in f["assignment"]}
    missing = tuple(i for i, frame in enumerate(tiles) if frame not in with_face)
    return PersonView(name, values, strip, tuple(tiles), missing, tuple(curves))


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
    records: Sequence[Sequence[Record]], values: Sequence[pd.DataFrame], metrics: Sequence[str]
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
            of_runs.append({
                m: estimate([None if v != v else float(v) for v in rows[m]], clusters)
                for m in metrics if m in rows and chosen
            })
        found[name] = tuple(of_runs)
    return found

