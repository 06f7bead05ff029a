"""What a report shows, read from run folders: cards of samples, breakdowns, what is unscored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from idbench.errors import UserError
from idbench.measurements import metric_names
from idbench.records import FacesFile, SampleFile
from idbench.reports import columns, media, tables
from idbench.reports.video_values import category_estimates, video_values
from idbench.runs import Run
from idbench.score_table import long_scores
from idbench.statistics import Estimate
from idbench.video import UnreadableVideo, read_chosen

EMBED_LIMIT = 11_000_000
"""Bytes of video embedded in a page at most; more are linked."""
Missing = tuple[str, int, str, str | None]
"""A value that is not there: key of the card, run, metric, identity (None: the whole video)."""


@dataclass(frozen=True)
class Value:
    """A value, or the reason why there is none."""

    value: float | None
    reason: str | None = None


@dataclass(frozen=True)
class PersonView:
    """One identity in one video: values, matched face of each frame, curves over frames.

    `tiles` are the frames of the strip; `missing` the places in it where no face was found.
    `curves`: metric -> frame looked at, in order -> value (None: unscored).
    """

    name: str
    values: dict[str, Value]
    strip: str | None
    tiles: tuple[int, ...]
    missing: tuple[int, ...]
    curves: Mapping[str, Mapping[int, float | None]]


@dataclass(frozen=True)
class TakeView:
    """One model's video of a sample. `run` is the index of its run in the report.

    `file` is the address of the video file, relative to the page.
    `others` are faces that were detected and matched to no reference (None: there are none).
    """

    run: int
    video: str | None
    poster: str | None
    width: int
    height: int
    frames: int
    fps: float
    values: dict[str, Value]
    people: tuple[PersonView, ...]
    problem: str | None
    file: str | None = None
    others: PersonView | None = None


@dataclass(frozen=True)
class ReferenceView:
    """A reference image next to the videos."""

    kind: str
    name: str
    uri: str | None


@dataclass
class CardView:
    """One sample as asked, with the video of each run.

    `repeat`: such as `2 of 3`, where others have the same references and prompt, as with seeds.
    """

    key: str
    split: str
    category: str
    prompt: str
    references: tuple[ReferenceView, ...]
    takes: list[TakeView] = field(default_factory=list)
    repeat: str = ""

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
    values: tuple[dict[str, list[float]], ...]


@dataclass(frozen=True)
class ReportData:
    """Everything a page shows.

    `unscored`: by reason. `categories`: for each run the estimate of each metric.
    """

    runs: tuple[Run, ...]
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    cards: tuple[CardView, ...]
    identities: tuple[IdentityView, ...]
    unscored: dict[str, list[Missing]]
    categories: dict[str, tuple[dict[str, Estimate], ...]]
    embedded: bool

    @property
    def takes(self) -> list[TakeView]:
        """All videos."""
        return [take for card in self.cards for take in card.takes]


def read(runs: Sequence[Run], page: Path, embed: bool | None = None) -> ReportData:
    """Read `runs` for a page to be written to `page`; `embed`: whether videos go into it (None:
    while they are small together). Raises UserError: a run has no scores."""
    values = [video_values(run) for run in runs]
    records = [run.records() for run in runs]
    if embed is None:
        videos = [r.video for of_run in records for r in of_run if r.video]
        embed = sum(v.stat().st_size for v in videos) <= EMBED_LIMIT
    metrics = tuple(columns.columns(n for table in values for n in metric_names(table)))
    categories = dict.fromkeys(category for table in values for category in table["category"])

    cards: dict[str, CardView] = {}
    takes: list[tuple[CardView, TakeView]] = []
    for index, run in enumerate(runs):
        scores = _scores(run)
        for record in records[index]:
            card = cards.setdefault(record.suite_id, _card(record))
            take = _take(run, index, record, scores.get(record.id, []), metrics, page, embed)
            card.takes.append(take)
            takes.append((card, take))
    _number_repeats(cards.values())
    return ReportData(
        tuple(runs), tuple(tables.labels(runs)), metrics, tuple(cards.values()),
        _identities(takes, len(runs)), _unscored(takes),
        {name: tuple(category_estimates(table, name) for table in values) for name in categories},
        embed,
    )


def _scores(run: Run) -> dict[str, list[Any]]:
    """The rows of each sample, with the columns as attributes and None for what is missing."""
    frame = long_scores(run).astype(object)
    found: dict[str, list[Any]] = defaultdict(list)
    for row in frame.where(frame.notna(), None).itertuples(index=False):
        found[row.sample].append(row)
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
    alike: dict[Any, list[CardView]] = defaultdict(list)
    for card in cards:
        named = tuple((r.kind, r.name) for r in card.references)
        alike[card.split, card.category, card.prompt, named].append(card)
    for group in alike.values():
        for number, card in enumerate(group, 1):
            card.repeat = f"{number} of {len(group)}" if len(group) > 1 else ""


def _take(
    run: Run, index: int, record: SampleFile, rows: Sequence[Any], metrics: Sequence[str],
    page: Path, embed: bool,
) -> TakeView:
    faces, problem = _faces(run.path(record.id, "faces.json")), record.reason
    of_faces = {f["frame"] for f in media.shown(faces)}
    uri = poster = file = None
    length, fps, frames = 0, record.fps or 8.0, dict[int, np.ndarray]()
    if record.video is not None:
        try:
            # Frames that the page does not show are not kept in memory.
            clip = read_chosen(record.video, lambda count: {
                i for i in of_faces if 0 <= i < count} | {count // 2})
            length, fps, frames = clip.count, clip.fps, dict(clip.frames)
            uri = media.video_uri(record.video, page, embed)
            file = media.video_uri(record.video, page, embed=False)
            poster = media.picture_uri(media.small(frames[length // 2]), quality=78)
        except UnreadableVideo as error:
            problem = str(error)
    values = _values(rows, None, metrics)
    height, width = next(iter(frames.values())).shape[:2] if frames else (1, 1)
    return TakeView(
        index, uri, poster, width, height, length, fps,
        {m: values[m] for m in metrics if m in values},
        tuple(_person(name, rows, frames, faces, metrics) for name in record.identities),
        problem, file, _others(frames, faces),
    )


def _values(rows: Sequence[Any], identity: str | None, metrics: Sequence[str]) -> dict[str, Value]:
    """Of a whole video, or of one person in all of it."""
    return {
        r.metric: Value(r.value, r.reason)
        for r in rows if r.identity == identity and r.frame is None and r.metric in metrics
    }


def _person(
    name: str, rows: Sequence[Any], frames: Mapping[int, np.ndarray],
    faces: Sequence[dict[str, Any]], metrics: Sequence[str],
) -> PersonView:
    points = {
        metric: {r.frame: r.value for r in rows
                 if r.identity == name and r.metric == metric and r.frame is not None}
        for metric in columns.about(metrics, "identity")
    }
    curves = {metric: dict(sorted(of.items())) for metric, of in points.items() if of}
    values = _values(rows, name, columns.about(metrics, "identity", "person"))
    return PersonView(name, values, *media.crop_strip(frames, faces, name), curves)


def _others(frames: Mapping[int, np.ndarray], faces: Sequence[dict[str, Any]]) -> PersonView | None:
    """Faces matched to nobody, one of each shown frame; None where every face was matched."""
    if all(media.unmatched(f) is None for f in media.shown(faces) if f["frame"] in frames):
        return None
    return PersonView("", {}, *media.crop_strip(frames, faces, None), {})


def _identities(takes: list[tuple[CardView, TakeView]], runs: int) -> tuple[IdentityView, ...]:
    of_people: dict[str, list[dict[str, list[float]]]] = {}
    for _, take in takes:
        for person in take.people:
            of_runs = of_people.setdefault(person.name, [{} for _ in range(runs)])
            for metric, value in person.values.items():
                if value.value is not None:
                    of_runs[take.run].setdefault(metric, []).append(value.value)
    pictures = {r.name: r.uri for card, _ in takes for r in card.references if r.kind == "face"}
    return tuple(IdentityView(name, pictures.get(name), tuple(of_runs))
                 for name, of_runs in sorted(of_people.items()))


def _unscored(takes: list[tuple[CardView, TakeView]]) -> dict[str, list[Missing]]:
    """Every missing value of a video under its reason, those of one person only once."""
    found: dict[str, list[Missing]] = defaultdict(list)
    for card, take in takes:
        told = set()
        for person in take.people:
            for metric, value in person.values.items():
                if value.value is None and value.reason:
                    found[value.reason].append((card.key, take.run, metric, person.name))
                    told.add(metric)
        for metric, value in take.values.items():
            if value.value is None and value.reason and metric not in told:
                found[value.reason].append((card.key, take.run, metric, None))
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))
