"""What a report shows, as plain data for its templates."""

from __future__ import annotations

from dataclasses import dataclass, field

from idbench.runs import Run
from idbench.statistics import Estimate


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
    """One model's video of a sample. `run` is the index of its run in the report.

    `file` is the address of the video file, relative to the page.
    `others` are faces that were detected and matched to no reference (None: there are none).
    """

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
    frame_values: tuple[dict[str, list[tuple[float, float | None]]], ...]
    embedded: bool
