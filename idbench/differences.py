"""Where two JSON values, or two scorings, differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from idbench.records import RunFile, ScoringKey

if TYPE_CHECKING:
    from idbench.measurements import Measurement

Difference = tuple[str, Any, Any]
"""Place, first value, second value."""


def differences(first: Any, second: Any, where: str = "") -> list[Difference]:
    """Every place where two JSON values differ."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        keys = [*first, *(k for k in second if k not in first)]
        return [
            found for key in keys
            for found in differences(first.get(key), second.get(key), f"{where} {key}".strip())
        ]
    return [] if first == second else [(where, first, second)]


def scoring_differences(
    first: ScoringKey, second: ScoringKey, shared_networks: bool = False
) -> dict[str, list[Difference]]:
    """What makes two scorings incomparable, by `protocol`, `weights`, `detector`. `shared_networks`
    ignores networks that only one of them has, if there are others."""
    before, after = first.weights, second.weights
    shared = before.keys() & after.keys()
    if shared_networks and shared:
        before, after = ({k: of[k] for k in of if k in shared} for of in (before, after))
    return {
        "protocol": differences(first.protocol, second.protocol, "protocol"),
        "weights": differences(before, after, "weights")
        + metric_weight_differences(first.metric_weights, second.metric_weights),
        "detector": differences(first.detector, second.detector, "detector")
        + (differences(first.opencv, second.opencv, "OpenCV")
           if first.opencv and second.opencv else []),
    }


def incomparable(
    first: RunFile | Measurement, second: RunFile | Measurement
) -> list[Difference]:
    """What keeps two measurements out of one table."""
    before, after = first.identity.suite.model_dump(), second.identity.suite.model_dump()
    found = scoring_differences(first.scoring, second.scoring)
    return differences(before, after, "suite") + sum(found.values(), [])


def metric_weight_differences(
    first: Mapping[str, str], second: Mapping[str, str]
) -> list[Difference]:
    """`differences` of further files that metrics of both scorings read. A file that only one has
    belongs to a metric that the other lacks."""
    shared = sorted(first.keys() & second.keys())
    return differences({k: first[k] for k in shared}, {k: second[k] for k in shared}, "weights")


def in_words(found: list[Difference]) -> str:
    """`differences` as words: "protocol name: strict-v1 / loose-v1; ... and 2 more"."""
    parts = [f"{where}: {short(first)} / {short(second)}" for where, first, second in found[:3]]
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return "; ".join(parts) + more


def short(value: Any) -> str:
    """`value` in at most 24 characters."""
    text = " ".join(str(value).split())
    return text if len(text) <= 24 else f"{text[:12]}..."
