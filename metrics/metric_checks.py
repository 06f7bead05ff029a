"""What metrics of other packages may get wrong: their descriptions, and the rows they return."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite, isnan
from numbers import Integral, Real
from typing import Any

import numpy as np

from idbench.errors import encodable
from idbench.names import ABOUT, ADDED
from idbench.types import Score

NETWORKS = ("arcface", "curricularface", "clip", "viclip")
"""Networks whose embeddings metrics read."""
_CHOICES = {
    "computed": ("always", "named", "listed"), "shown": ("headline", "table", "long"),
    "about": ("identity", "person", "video"),
}
_KINDS: dict[str, Any] = {
    **dict.fromkeys(("name", "title", "formula", "source", "revision", "note"), str),
    **dict.fromkeys(("higher_is_better", "needs_pixels", "needs_frames", "matches_itself"), bool),
    **dict.fromkeys(("scores", "weights", "applies_to"), Callable),
    **dict.fromkeys(("networks", "range", "runs"), tuple),
}
_LARGEST_FRAME = 2**31


def check_metric(metric: Any) -> None:
    """Raise TypeError or ValueError for a `Metric` with a field of the wrong kind."""
    for field, kind in _KINDS.items():
        value = getattr(metric, field)
        if not isinstance(value, kind) or (field == "range" and not _is_range(value)):
            raise TypeError(f"its {field} is {str(value)[:40]!r}")
    if metric.name in ABOUT + ADDED:
        raise ValueError("its name is that of a column of the tables of samples")
    for field, choices in _CHOICES.items():
        if getattr(metric, field) not in choices:
            raise ValueError(f"its {field} is none of {', '.join(choices)}")
    for network in metric.networks:
        if network not in NETWORKS:
            raise ValueError(
                f"its networks name {str(network)[:40]!r}; known are {', '.join(NETWORKS)}")


def _is_range(value: tuple[Any, ...]) -> bool:
    numbers = all(isinstance(end, Real) and not isnan(end) for end in value)
    return numbers and len(value) == 2 and value[0] < value[1]


def checked_weights(found: object) -> dict[str, str]:
    """`found` if it maps names of files to their sha256. Raises TypeError."""
    if not isinstance(found, Mapping) or not all(
            isinstance(text, str) for pair in found.items() for text in pair):
        raise TypeError("weights must map names of files to their sha256")
    return dict(found)


def checked(name: str, sample: str, rows: object) -> list[Score]:
    """`rows` of the metric `name` for a sample, with plain numbers. Raises TypeError, ValueError or
    OverflowError unless they are scores of that metric and sample, each place has one, and values
    are finite."""
    if not isinstance(rows, list) or not all(isinstance(row, Score) for row in rows):
        raise TypeError(f"the metric {name} returned something else than a list of scores")
    places = set()
    made = []
    for row in rows:
        if (row.metric, row.sample) != (name, sample):
            raise ValueError(
                f"the metric {name} returned a score of {str(row.metric)[:40]!r} and sample "
                f"{str(row.sample)[:40]!r}")
        made.append(Score(
            sample, name, _identity(name, row.identity), _frame(name, row.frame),
            _value(name, row.value), None if row.reason is None else encodable(str(row.reason)),
        ))
        places.add((made[-1].identity, made[-1].frame))
    if len(places) < len(made):
        raise ValueError(f"the metric {name} returned two scores of one frame or identity")
    return made


def _identity(name: str, identity: Any) -> str | None:
    if identity is not None and not isinstance(identity, str):
        raise TypeError(f"the metric {name} returned a {type(identity).__name__} as an identity")
    return None if identity is None else encodable(identity)


def _frame(name: str, frame: Any) -> int | None:
    if frame is None:
        return None
    if not isinstance(frame, Integral) or not 0 <= int(frame) < _LARGEST_FRAME:
        raise ValueError(f"the metric {name} returned {str(frame)[:40]!r} as the index of a frame")
    return int(frame)


def _value(name: str, value: Any) -> float | None:
    if value is None:
        return None
    number = isinstance(value, Real | np.bool_) and not isinstance(value, np.timedelta64)
    if not number:
        raise TypeError(f"the metric {name} returned a {type(value).__name__} as a value")
    if not isfinite(value):
        raise ValueError(f"the metric {name} returned a value that is not finite")
    return float(value)
