"""Data for the figures, read from runs: labels, points of two metrics, values along the videos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from idbench.names import unknown
from idbench.reports import tables
from idbench.reports.figures import Points, Series
from idbench.reports.video_values import video_values
from idbench.runs import Run

if TYPE_CHECKING:
    import pandas as pd

TRADEOFF = ("arcsim", "clipdist")
"""Identity against editability: the axes of the report's first figure."""


def tradeoff(
    runs: Sequence[Run], x: str, y: str, rows: Sequence[tables.MeasuredRow] | None = None
) -> list[Series]:
    """For each run its estimates, and the two values of each of its videos; `rows`: those of
    `tables.measured`, if known. Raises UserError: runs that cannot share a table, or none measured
    by `x` or `y`."""
    rows = tables.measured(runs).rows if rows is None else rows
    for metric in (x, y):
        known = {name for row in rows for name in row.estimates}
        if metric not in known:
            raise unknown("metric of these runs", metric, known)
    found = []
    for run, label, row in zip(runs, tables.labels(runs), rows, strict=True):
        values = video_values(run)
        both = values.dropna(subset=[x, y]) if {x, y} <= set(values.columns) else values.iloc[:0]
        points = [(float(a), float(b)) for a, b in both[[x, y]].to_numpy()]
        found.append(Series(label, row.estimates, points, both["suite_id"].tolist()))
    return found


def along(run: Run, metric: str) -> Points:
    """Each looked-at frame of each person: (place in the video 0..1, value or None).
    Raises UserError: the run has no value of `metric` for single frames."""
    import pandas as pd

    path = run.folder / "scores.parquet"
    video_values(run)  # says what to do where there are no scores
    frame = pd.read_parquet(path, columns=["sample", "metric", "frame", "value"])
    frame = frame[frame["frame"].notna()]
    chosen = frame[frame["metric"] == metric]
    if chosen.empty:
        raise unknown("metric of single frames in this run", metric, set(frame["metric"]))
    return points_of(chosen)


def points_of(chosen: pd.DataFrame) -> Points:
    """Rows of single frames (columns sample, frame, value) as places along their videos."""
    last = chosen.groupby("sample")["frame"].transform("max").clip(lower=1)
    places = (chosen["frame"] / last).astype("float64")
    return [(float(p), None if v != v else float(v))
            for p, v in zip(places, chosen["value"].astype("float64"), strict=True)]
