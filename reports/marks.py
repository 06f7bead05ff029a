"""Which runs may be called best: of those with the whole split, the best of each metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from idbench.measurements import Share, keys, metric_of, present, shares
from idbench.reports.columns import shown
from idbench.reports.video_values import metric_names, pair
from idbench.runs import Run
from idbench.statistics import holm, sign_flip

if TYPE_CHECKING:
    import pandas as pd

SIGNIFICANT = 0.05


def shares_of_runs(runs: Sequence[Run], values: Sequence[pd.DataFrame]) -> list[Share]:
    """The share of each run in what the runs of its split were asked for together."""
    found: list[Share | None] = [None] * len(runs)
    for split in dict.fromkeys(run.split for run in runs):
        places = [i for i, run in enumerate(runs) if run.split == split]
        groups = []
        for i in places:
            of_run = values[i]
            there = of_run[present(of_run, metric_names(of_run))]
            unfinished = len(runs[i].sample_ids) - len(of_run)
            groups.append((set(keys(there)), set(keys(of_run)), unfinished))
        for i, share in zip(places, shares(groups), strict=True):
            found[i] = share
    return [share for share in found if share is not None]


def part_notes(names: Sequence[str], splits: Sequence[str], found: Sequence[Share]) -> list[str]:
    """What to say of the runs that have only a part of their split."""
    return [
        f"{name} has {share} of {split}: a part of a split is not comparable, so it is never "
        "marked as best."
        for name, split, share in zip(names, splits, found, strict=True) if not share.whole
    ]


def mark(
    values: Sequence[pd.DataFrame], splits: Sequence[str], whole: Sequence[bool]
) -> list[dict[str, str]]:
    """The best of each split and metric among runs with the whole split, and the second if it is
    surely worse."""
    marks: list[dict[str, str]] = [{} for _ in values]
    seconds: list[tuple[int, str, float | None]] = []
    for split in dict.fromkeys(splits):
        places = [i for i, s in enumerate(splits) if s == split and whole[i]]
        for name in dict.fromkeys(n for i in places for n in metric_names(values[i]) if shown(n)):
            metric = metric_of(name)
            means = {i: float(values[i][name].mean()) for i in places
                     if name in values[i] and values[i][name].notna().any()}
            if metric is None or len(means) < 2:
                continue
            order = sorted(means, key=lambda i: means[i], reverse=metric.higher_is_better)
            best = [i for i in order if means[i] == means[order[0]]]
            for i in best:
                marks[i][name] = "best"
            if len(best) == 1:
                paired = pair(values[order[0]], values[order[1]], name)
                seconds.append((order[1], name, sign_flip(*paired)))
    for (i, name, _), p in zip(seconds, holm([p for _, _, p in seconds]), strict=True):
        if p is not None and p < SIGNIFICANT:
            marks[i][name] = "second"
    return marks
