"""Every threshold of the pair pipeline, with the paper's values as defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from idbench.errors import UserError
from idbench.names import unknown
from idbench.values import number, whole

Range = tuple[float, float]


@dataclass(frozen=True)
class PairSettings:
    """How videos are read, which are kept and which are paired.

    Values of the paper (arXiv 2503.14151, sections on data) unless marked `ours`.

    Attributes:
        frames_per_second: frames looked at in each second of video.
        faces_kept: faces kept of each person of a video, spread evenly over its length.
        count_share: a video is dropped when more than this share of its frames has another
            number of faces than most of its frames have.
        identity_share, identity_cosine: a video is dropped when, of its consecutive frames with
            equal numbers of faces, more than this share has an ArcFace cosine under this.
        cross: Stage II: cosines of target and partner, lower end included, upper end not.
        tradeoff: Stage III: likewise; the partner of smallest cosine is taken.
        face_area: Stage III: least and greatest share of the frame that the face's box fills,
            for the target and for its partner.
        tradeoff_kept: Stage III: so many of the best ranked pairs are kept.
        multi: cosines for multi-identity and multi-subject partners.
        multi_crossed: of three identities at least so many have a partner from another video;
            of two, both have.
        people: most people of a video; more are dropped.
        minimum_confidence: of a detected face (ours; the embedded detector's own limit is 0.9).
        crop_size: largest side of the face crops written, pixels; small faces are not enlarged
            beyond their own size.
        exact_limit: with more people than this the search uses FAISS (ours).
        calibration_anchors: (cosine in the paper's scale, share of same-person pairs below
            it); used by `--calibrate` only (ours, see docs/pairs.md).
        calibration_false_matches: share of different-person pairs that a calibrated lower
            threshold may let through (ours).
        seed: of every random choice.
    """

    frames_per_second: float = 2.0
    faces_kept: int = 5
    count_share: float = 0.30
    identity_share: float = 0.30
    identity_cosine: float = 0.5
    cross: Range = (0.7, 0.9)
    tradeoff: Range = (0.9, 0.99)
    face_area: Range = (0.04, 0.90)
    tradeoff_kept: int = 50_000
    multi: Range = (0.87, 0.97)
    multi_crossed: int = 2
    people: int = 3
    minimum_confidence: float = 0.5
    crop_size: int = 448
    exact_limit: int = 50_000
    calibration_anchors: tuple[Range, ...] = ((0.7, 0.05), (0.9, 0.84), (0.99, 0.995))
    calibration_false_matches: float = 1e-4
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("cross", "tradeoff", "multi"):
            _range(name, getattr(self, name), -1.0, 1.0)
        _range("face_area", self.face_area, 0.0, 1.0)
        for name in ("count_share", "identity_share", "minimum_confidence"):
            _between(name, getattr(self, name), 0.0, 1.0)
        _between("identity_cosine", self.identity_cosine, -1.0, 1.0)
        _between("calibration_false_matches", self.calibration_false_matches, 0.0, 1.0)
        _between("frames_per_second", self.frames_per_second, 1e-3, 1e3)
        for name, low, high in (
            ("faces_kept", 1, 1000), ("tradeoff_kept", 0, 2**62), ("people", 1, 3),
            ("multi_crossed", 1, 3), ("crop_size", 16, 4096), ("exact_limit", 1, 2**62),
            ("seed", 0, 2**63 - 1),
        ):
            _between(name, getattr(self, name), low, high)
        _anchors(self.calibration_anchors)

    @property
    def lowest_cosine(self) -> float:
        """Pairs below this are in no output."""
        return min(self.cross[0], self.tradeoff[0], self.multi[0])

    def as_dict(self) -> dict[str, Any]:
        """All fields as JSON values."""
        return asdict(self)

    def reading(self) -> dict[str, Any]:
        """The fields that change what is read from a video; the rest needs no second reading."""
        names = ("frames_per_second", "faces_kept", "people", "minimum_confidence", "crop_size")
        return {name: getattr(self, name) for name in names}


def make_settings(*parts: Mapping[str, Any]) -> PairSettings:
    """Settings from mappings (a later one wins), such as a YAML file's and the command line's.

    Raises:
        UserError: an unknown name (says the nearest), or a value out of its range.
    """
    kinds = {f.name: type(f.default) for f in fields(PairSettings)}
    values: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            if name not in kinds:
                raise unknown("setting of pairs build", name, kinds)
            values[name] = _typed(name, value, kinds[name])
    return PairSettings(**values)


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of a YAML file.

    Raises:
        UserError: missing, no YAML, or no mapping.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UserError(f"The recipe {path} is missing; check the path.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"The recipe {path} is no valid YAML; correct it.") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise UserError(f"The recipe {path} must hold lines such as `cross: [0.7, 0.9]`.")
    return {str(name): value for name, value in found.items()}


def _typed(name: str, value: Any, kind: type) -> Any:
    if kind is tuple:
        if isinstance(value, list | tuple):
            return tuple(tuple(v) if isinstance(v, list | tuple) else v for v in value)
        raise UserError(f"{name} must be two numbers such as [0.7, 0.9], not {value!r}.")
    return whole(name, value) if kind is int else number(name, value)


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # not a number fails as well
        raise UserError(f"{name} must lie between {low:g} and {high:g}, not {value!r}.")


def _range(name: str, value: Any, low: float, high: float) -> None:
    if not _two_numbers(value) or not low <= value[0] < value[1] <= high:
        raise UserError(
            f"{name} must be two rising numbers between {low:g} and {high:g}, not {list(value)}."
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
            "calibration_anchors must be rising pairs of a cosine and a share, such as "
            "[[0.7, 0.05], [0.9, 0.84], [0.99, 0.995]]."
        )
