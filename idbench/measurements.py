"""Measurements: what a table, a gate or a ranking needs of a run, and where it is read from.

A run folder, a reference file of the gate and a submission to a leaderboard all give the same:
one value a sample and metric, and under what it was measured. Reading imports no network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idbench.errors import UserError
from idbench.runs import Run
from idbench.scores import sample_table, wide_scores

if TYPE_CHECKING:
    import pandas as pd

SCORING_PARTS = ("protocol", "weights", "metric_weights", "detector", "metrics")
"""Parts of a run's scoring that have to be equal for numbers to be comparable."""
ABOUT = ("sample", "identities", "category", "prompt_id", "status")
"""Columns of `Measurement.values` that are no metric."""


@dataclass(frozen=True)
class Measurement:
    """Values of one system on the samples of one split.

    Attributes:
        system: the model's name with its variant.
        source: where it was read from.
        model: name, variant, revision, settings and weight hashes of what was measured.
        suite: name, version and sha256.
        scoring: protocol, weights (sha256 by name), detector, metrics (package by name).
        better: metric -> whether higher is better (None: not known).
        planned: suite ids of all samples asked for, in the suite's order.
        values: DataFrame indexed by suite id, one row a finished sample: the columns `ABOUT`
            (identities: tuple of names), then one float64 column a metric, NaN: unscored.
    """

    system: str
    source: str
    model: Mapping[str, Any]
    suite: Mapping[str, Any]
    split: str
    seed: int
    scoring: Mapping[str, Any]
    better: Mapping[str, bool | None]
    planned: tuple[str, ...]
    values: pd.DataFrame
    idbench: str | None = None

    @property
    def metrics(self) -> list[str]:
        """Names of the measured metrics."""
        return [str(name) for name in self.values.columns if name not in ABOUT]


def of_run(run: Run) -> Measurement:
    """What was measured in a run folder.

    Raises:
        UserError: it has no scores yet.
    """
    identity, scoring = run.file.identity, run.file.scoring.model_dump()
    wide = wide_scores(run)
    values = sample_table(run).set_index("suite_id")[list(ABOUT)].join(wide, on="sample")
    return Measurement(
        system=run.name, source=str(run.folder), model=identity.model.model_dump(),
        suite=identity.suite.model_dump(), split=identity.split, seed=identity.seed,
        scoring={part: scoring.get(part) for part in SCORING_PARTS},
        better={str(name): higher_is_better(str(name)) for name in wide.columns},
        planned=tuple(run.file.samples), values=values,
        idbench=run.file.packages.get("idbench"),
    )


def read(path: Path) -> Measurement:
    """What was measured, of a run folder, a reference file, cached embeddings, or a submission.

    Raises:
        UserError: there is nothing of the kind, or it is damaged or of a newer idbench.
    """
    from idbench import gate_reference

    path = Path(path)
    if path.is_dir() and not (path / "run.json").is_file():
        for name in ("results.json", "reference.json"):
            if (path / name).is_file():
                return gate_reference.read(path / name)
    if path.suffix == ".zip" and path.is_file():
        from idbench import gate_cached

        return gate_cached.read(path)
    return gate_reference.read(path) if path.is_file() else of_run(Run.open(path))


def differences(first: Any, second: Any, where: str = "") -> list[tuple[str, Any, Any]]:
    """Every place where two JSON values differ: (place, value there, value here)."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        keys = [*first, *(k for k in second if k not in first)]
        return [
            found for key in keys
            for found in differences(first.get(key), second.get(key), f"{where} {key}".strip())
        ]
    return [] if first == second else [(where, first, second)]


def metric_weight_differences(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """`differences` of the weight files that metrics of both scorings read besides the networks.

    A file that is known to one alone belongs to a metric that the other does not have.
    """
    before, after = (one.get("metric_weights") or {} for one in (first, second))
    shared = sorted(set(before) & set(after))
    return differences({k: before[k] for k in shared}, {k: after[k] for k in shared}, "weights")


def in_words(found: list[tuple[str, Any, Any]], most: int = 3) -> str:
    """`differences` as words: "protocol name: strict-v1 / loose-v1; ... and 2 more"."""
    def short(value: Any) -> str:
        text = " ".join(str(value).split())
        return text if len(text) <= 24 else f"{text[:12]}..."

    parts = [f"{where}: {short(first)} / {short(second)}" for where, first, second in found[:most]]
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return "; ".join(parts) + more


def metric_of(name: str) -> Any:
    """The registered metric of that name, or None when its package is not installed."""
    try:
        return _loaded(name)
    except UserError:
        return None


@cache
def _loaded(name: str) -> Any:
    from idbench.registry import METRICS

    return METRICS.load(name)  # an error is not kept: a package may be installed later


def higher_is_better(name: str) -> bool | None:
    """The metric's better direction; None when its package is not installed."""
    metric = metric_of(name)
    return None if metric is None else bool(metric.higher_is_better)
