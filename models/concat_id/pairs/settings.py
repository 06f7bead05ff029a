"""Every threshold of the pair pipeline, with the paper's values as defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from idbench import yaml_text
from idbench.errors import UserError
from idbench.names import number, one_of, whole

Range = tuple[float, float]


def _limited(default: Any, low: float, high: float) -> Any:
    """A setting between two limits; of a range, both of its ends."""
    return field(default=default, metadata={"limits": (low, high)})


@dataclass(frozen=True)
class PairSettings:
    """How videos are read, which are kept and which are paired.

    Values of the paper (arXiv 2503.14151, sections on data) unless marked `ours`.

    Attributes:
        frames_per_second: frames sampled from each second of video.
        faces_kept: faces kept of each person of a video, spread evenly over its length.
        count_share: a video is dropped when more than this share of its frames has another
            number of faces than most of its frames.
        identity_share, identity_cosine: a video is dropped when more than this share of its
            consecutive frames (those with equal numbers of faces) has an ArcFace cosine below
            this.
        cross: Stage II: cosines of target and partner, lower end included, upper end not.
        tradeoff: Stage III: likewise; the partner of smallest cosine is taken.
        face_area: Stage III: least and greatest share of the frame that the face's box fills,
            for the target and for its partner.
        tradeoff_kept: Stage III: number of the best-ranked pairs that are kept.
        multi: cosines for multi-identity and multi-subject partners.
        multi_crossed: of three identities, at least this many have a partner from another video;
            of two, both have.
        people: most people in a video; videos with more are dropped.
        human_terms: words of which a caption must have one, separated by commas; empty: our list
            (see `people`); `none`: captions are not filtered, the face detector alone decides
            (ours; the paper filters by terms and does not list them).
        minimum_confidence: of a detected face (ours; the embedded detector's own limit is 0.9).
        crop_size: largest side of the face crops written, pixels; small faces are not enlarged.
        exact_limit: with more people than this the search uses FAISS (ours).
        calibration_anchors: (cosine in the paper's scale, share of same-person pairs below
            it); used by `--calibrate` only (ours, see docs/pairs.md).
        calibration_false_matches: share of different-person pairs that a calibrated lower
            threshold may accept (ours).
        seed: of every random choice.
    """

    frames_per_second: float = _limited(2.0, 1e-3, 1e3)
    faces_kept: int = _limited(5, 1, 1000)
    count_share: float = _limited(0.30, 0.0, 1.0)
    identity_share: float = _limited(0.30, 0.0, 1.0)
    identity_cosine: float = _limited(0.5, -1.0, 1.0)
    cross: Range = _limited((0.7, 0.9), -1.0, 1.0)
    tradeoff: Range = _limited((0.9, 0.99), -1.0, 1.0)
    face_area: Range = _limited((0.04, 0.90), 0.0, 1.0)
    tradeoff_kept: int = _limited(50_000, 0, 2**62)
    multi: Range = _limited((0.87, 0.97), -1.0, 1.0)
    multi_crossed: int = _limited(2, 1, 3)
    people: int = _limited(3, 1, 3)
    human_terms: str = ""
    minimum_confidence: float = _limited(0.5, 0.0, 1.0)
    crop_size: int = _limited(448, 16, 4096)
    exact_limit: int = _limited(50_000, 1, 2**62)
    calibration_anchors: tuple[Range, ...] = ((0.7, 0.05), (0.9, 0.84), (0.99, 0.995))
    calibration_false_matches: float = _limited(1e-4, 0.0, 1.0)
    seed: int = _limited(0, 0, 2**63 - 1)

    def __post_init__(self) -> None:
        for setting in fields(self):
            if limits := setting.metadata.get("limits"):
                check = _range if isinstance(setting.default, tuple) else _between
                check(setting.name, getattr(self, setting.name), *limits)
        _anchors(self.calibration_anchors)

    @property
    def lowest_cosine(self) -> float:
        """Pairs below this are in no output."""
        return min(self.cross[0], self.tradeoff[0], self.multi[0])

    def reading(self) -> dict[str, Any]:
        """The fields that change what is read from a video; the rest needs no second reading."""
        names = ("frames_per_second", "faces_kept", "people", "minimum_confidence", "crop_size")
        return {name: getattr(self, name) for name in names}


def make_settings(*parts: Mapping[str, Any]) -> PairSettings:
    """Settings from mappings (a later one wins), such as a YAML file's and the command line's.
    Raises UserError: an unknown name (says the nearest), or a value out of its range."""
    kinds = {f.name: type(f.default) for f in fields(PairSettings)}
    values: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            one_of("setting of pairs build", name, kinds)
            values[name] = _typed(name, value, kinds[name])
    return PairSettings(**values)


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of a YAML file. Raises UserError: missing, no YAML, or no mapping."""
    found = yaml_text.read(path, f"The recipe {path}")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise UserError(f"The recipe {path} must contain lines such as `cross: [0.7, 0.9]`.")
    return {str(name): value for name, value in found.items()}


def _typed(name: str, value: Any, kind: type) -> Any:
    if kind is str:
        return _words(name, value)
    if kind is tuple:
        if isinstance(value, list | tuple):
            return tuple(tuple(v) if isinstance(v, list | tuple) else v for v in value)
        raise UserError(f"{name} must be two numbers such as [0.7, 0.9], not {value!r}.")
    return whole(name, value) if kind is int else number(name, value)


def _words(name: str, value: Any) -> str:
    """A text, or a list of them as one."""
    if isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
        return ",".join(value)
    if value is None:
        return "none"  # what YAML and `--set` make of null
    if not isinstance(value, str):
        raise UserError(f"{name} must be words separated by commas, or none, not {value!r}.")
    return value


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # not a number fails as well
        raise UserError(f"{name} must be between {low:g} and {high:g}, not {value!r}.")


def _range(name: str, value: Any, low: float, high: float) -> None:
    if not _two_numbers(value) or not low <= value[0] < value[1] <= high:
        raise UserError(
            f"{name} must be two increasing numbers between {low:g} and {high:g}, not "
            f"{list(value)}."
        )


def _two_numbers(value: Any) -> bool:
    return len(value) == 2 and all(
        isinstance(v, int | float) and not isinstance(v, bool) for v in value
    )


def _anchors(anchors: tuple[Any, ...]) -> None:
    good = len(anchors) >= 2 and all(isinstance(a, tuple) and _two_numbers(a) for a in anchors)
    if not good or not all(
        -1 <= a[0] < b[0] <= 1 and 0 <= a[1] < b[1] <= 1
        for a, b in zip(anchors, anchors[1:], strict=False)
    ):
        raise UserError(
            "calibration_anchors must be increasing pairs of a cosine and a share, such as "
            "[[0.7, 0.05], [0.9, 0.84], [0.99, 0.995]]."
        )
