"""The values of a run's videos, as its tables, marks and differences read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from idbench.measurements import metric_of
from idbench.runs import Run
from idbench.score_table import sample_table, wide_scores
from idbench.statistics import Estimate, estimate, identity_clusters

if TYPE_CHECKING:
    import pandas as pd

ABOUT = ("suite_id", "identities", "prompt_id", "status", "cluster", "not_asked")
"""Columns of `video_values` that are no metric."""


def video_values(run: Run) -> pd.DataFrame:
    """Video-level values: one row a finished sample, with `ABOUT`, and one column a metric.

    A missing or unscored value is NaN. `not_asked` has the metrics that do not apply to the sample:
    a sample without a garment has no similarity of garments, and none is missing.

    Raises UserError: the run has no scores yet.
    """
    wide = wide_scores(run)
    base = sample_table(run)[["sample", *ABOUT[:-2]]]
    base["cluster"] = identity_clusters(base["identities"].tolist())
    values = base.set_index("sample").join(wide, how="left")
    not_asked: dict[str, set[str]] = {}
    asking = {
        name: (applies_to, set(values.index[missing])) for name in wide.columns
        if (applies_to := getattr(metric_of(name), "applies_to", None)) is not None
        and (missing := values[name].isna()).any()
    }
    for record in run.records() if asking else ():  # reading them again takes a while
        for name, (applies_to, unscored) in asking.items():
            if record.id in unscored and not applies_to(record.sample):
                not_asked.setdefault(record.id, set()).add(name)
    values["not_asked"] = [frozenset(not_asked.get(sample, ())) for sample in values.index]
    return values


def metric_names(values: pd.DataFrame) -> list[str]:
    """The metrics of `video_values`."""
    return [str(n) for n in values.columns if n not in ABOUT]


def estimates(
    values: pd.DataFrame, clusters: Sequence[str] | None = None
) -> dict[str, Estimate]:
    """The estimate of each metric over the samples that it applies to; none of a metric that
    applies to none of them. `clusters`: in place of the column."""
    groups = np.asarray(values["cluster"] if clusters is None else clusters, object)
    found = {}
    for name in metric_names(values):
        asked = np.array([name not in others for others in values["not_asked"]])
        if asked.any():
            found[name] = estimate(values[name][asked], groups[asked].tolist())
    return found


def pair(
    first: pd.DataFrame, second: pd.DataFrame, name: str
) -> tuple[pd.Series, list[str]]:
    """Differences first - second of the samples in both, and the sample's cluster."""
    both = first.set_index("suite_id")[[name, "cluster"]].join(
        second.set_index("suite_id")[name].rename("second"), how="inner")
    return both[name] - both["second"], both["cluster"].tolist()
