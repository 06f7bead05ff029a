"""The values of a run's videos, as tables, marks, differences and figures read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from idbench.measurements import metric_names, metric_of, sample_values
from idbench.names import one_of
from idbench.records import SampleFile
from idbench.runs import Run
from idbench.score_table import long_scores, wide_scores
from idbench.statistics import Estimate, estimate, identity_clusters

if TYPE_CHECKING:
    import pandas as pd

    from idbench.reports.tables import MeasuredRow

Points = Sequence[tuple[float, float | None]]
"""Places along a video 0..1, each with a value or None (unscored)."""


def video_values(run: Run) -> pd.DataFrame:
    """Values of all finished samples, scored or not, as in `measurements.sample_values`, with the
    sample's cluster.

    `not_asked` has the metrics that do not apply to the sample: a sample without a garment has no
    similarity of garments, and none is missing. Raises UserError: the run has no scores yet.
    """
    records, wide = run.records(), wide_scores(run)
    values = sample_values(records, wide)
    values["cluster"] = identity_clusters(values["identities"].tolist())
    asking = {
        name: applies_to for name in wide.columns
        if (applies_to := getattr(metric_of(name), "applies_to", None)) is not None
    }
    unscored = values[list(asking)].isna().to_numpy()
    values["not_asked"] = [
        frozenset(name for (name, applies_to), missing in zip(asking.items(), row, strict=True)
                  if missing and not applies_to(record.sample))
        for record, row in zip(records, unscored, strict=True)
    ]
    return values


def shared_records(runs: Sequence[Run]) -> dict[str, list[SampleFile]]:
    """Suite id -> the record of each run, of the samples that all of them finished."""
    by_run = [{record.suite_id: record for record in run.records()} for run in runs]
    return {key: [of[key] for of in by_run] for key in by_run[0]
            if all(key in of for of in by_run)}


def estimates(values: pd.DataFrame) -> dict[str, Estimate]:
    """The estimate of each metric over the samples that it applies to; none of a metric that
    applies to none of them."""
    groups = np.asarray(values["cluster"], object)
    found = {}
    for name in metric_names(values):
        asked = np.array([name not in others for others in values["not_asked"]])
        if asked.any():
            found[name] = estimate(values[name][asked], groups[asked].tolist())
    return found


def category_estimates(values: pd.DataFrame, category: str) -> dict[str, Estimate]:
    """`estimates` of the samples of a category, which are clustered anew."""
    chosen = values[values["category"] == category]
    return estimates(chosen.assign(cluster=identity_clusters(chosen["identities"].tolist())))


def pair(
    first: pd.DataFrame, second: pd.DataFrame, name: str
) -> tuple[pd.Series, list[str]]:
    """Differences first - second of the samples in both, and the sample's cluster."""
    both = first[[name, "cluster"]].join(second[name].rename("second"), how="inner")
    return both[name] - both["second"], both["cluster"].tolist()


@dataclass(frozen=True)
class Series:
    """One run in a figure: its name, its estimates by metric, its videos and their samples."""

    name: str
    estimates: Mapping[str, Estimate]
    points: Sequence[tuple[float, float]] = ()
    keys: Sequence[str] = ()


def series(runs: Sequence[Run], rows: Sequence[MeasuredRow], x: str, y: str) -> list[Series]:
    """For each run and its row of a table: its estimates, and the two values of each of its videos.
    Raises UserError: none was measured by `x` or `y`."""
    known = {name for row in rows for name in row.estimates}
    for metric in (x, y):
        one_of("metric of these runs", metric, known)
    found = []
    for run, row in zip(runs, rows, strict=True):
        both = video_values(run).reindex(columns=[x, y]).dropna()
        points = list(zip(both[x].tolist(), both[y].tolist(), strict=True))
        found.append(Series(row.system, row.estimates, points, both.index.tolist()))
    return found


def along(run: Run, metric: str) -> Points:
    """Each looked-at frame of each person. Raises UserError: the run has no scores, or no value of
    `metric` for single frames."""
    frame = long_scores(run)
    frame = frame[frame["frame"].notna()]
    one_of("metric of single frames in this run", metric, set(frame["metric"]))
    chosen = frame[frame["metric"] == metric]
    last = chosen.groupby("sample")["frame"].transform("max").clip(lower=1)
    places = (chosen["frame"] / last).astype("float64")
    return [(float(p), None if v != v else float(v))
            for p, v in zip(places, chosen["value"].astype("float64"), strict=True)]
