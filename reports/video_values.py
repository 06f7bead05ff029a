"""The values of a run's videos, as its tables, marks and differences read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from idbench.runs import Run
from idbench.scores import sample_table, wide_scores
from idbench.statistics import identity_clusters

if TYPE_CHECKING:
    import pandas as pd

ABOUT = ("suite_id", "identities", "prompt_id", "status", "cluster")
"""Columns of `video_values` that are no metric."""


def video_values(run: Run) -> pd.DataFrame:
    """Video-level values: one row a finished sample, with `ABOUT`, and one column a metric.

    A missing or unscored value is NaN.

    Raises UserError: the run has no scores yet.
    """
    wide = wide_scores(run)
    base = sample_table(run)[["sample", *ABOUT[:-1]]]
    base["cluster"] = identity_clusters(base["identities"].tolist())
    return base.set_index("sample").join(wide, how="left")


def metric_names(values: pd.DataFrame) -> list[str]:
    """The metrics of `video_values`."""
    return [str(n) for n in values.columns if n not in ABOUT]


def pair(
    first: pd.DataFrame, second: pd.DataFrame, name: str
) -> tuple[pd.Series, list[str]]:
    """Differences first - second of the samples in both, and the sample's cluster."""
    both = first.set_index("suite_id")[[name, "cluster"]].join(
        second.set_index("suite_id")[name].rename("second"), how="inner")
    return both[name] - both["second"], both["cluster"].tolist()
