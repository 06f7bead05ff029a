"""Measurements: what a table, a gate or a ranking needs of a run, and how much of a split it is.

A run folder, a reference file of the gate and a submission to a leaderboard all give the same:
one value a sample and metric, and under what it was measured. Reading imports no network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from idbench.errors import UserError
from idbench.names import ABOUT, ADDED
from idbench.prompts import suite_names
from idbench.records import Identity, SampleFile, ScoringKey
from idbench.registry import METRICS
from idbench.runs import Run
from idbench.score_table import wide_scores
from idbench.statistics import Estimate, estimate, identity_clusters
from idbench.suite import load_suite

if TYPE_CHECKING:
    import pandas as pd

Key = tuple[tuple[str, ...], str]
"""What a sample is of: its identities and its prompt's id, whatever its seed."""


@dataclass(frozen=True)
class Measurement:
    """Values of one system on the samples of one split.

    Attributes:
        system: the model's name with its variant.
        source: where it was read from.
        better: metric -> whether higher is better (None: not known).
        planned: suite ids of all samples asked for, in the suite's order.
        split_size: how many the whole split has, see `RunFile`.
        values: the measured samples, see `sample_values`.
    """

    system: str
    source: str
    identity: Identity
    scoring: ScoringKey
    better: Mapping[str, bool | None]
    planned: tuple[str, ...]
    values: pd.DataFrame
    idbench: str | None = None
    split_size: int | None = None

    @property
    def metrics(self) -> list[str]:
        """Names of the measured metrics."""
        return metric_names(self.values)

    @property
    def missing(self) -> list[str]:
        """Suite ids of the samples that were asked for and not measured."""
        return [sample for sample in self.planned if sample not in self.values.index]

    @cached_property
    def clusters(self) -> list[str]:
        """The cluster of each row of `values`, see `identity_clusters`."""
        return identity_clusters(self.values["identities"].tolist())

    def estimate(self, metric: str) -> Estimate:
        """Mean, 95% interval and coverage of a metric over `values`."""
        return estimate(self.values[metric], self.clusters)


def of_run(run: Run) -> Measurement:
    """What was measured in a run folder. A sample without scores is missing in `values`.
    Raises UserError: it has no scores yet."""
    file, wide = run.file, wide_scores(run)
    values = sample_values([r for r in run.records() if r.id in wide.index], wide)
    return Measurement(
        system=run.name, source=str(run.folder), identity=file.identity, scoring=file.scoring.key,
        better=directions(values), planned=tuple(file.samples), values=values,
        idbench=file.packages.get("idbench"), split_size=file.split_size,
    )


def sample_values(records: Sequence[SampleFile], wide: pd.DataFrame) -> pd.DataFrame:
    """A table indexed by suite id, one row a sample: the columns `ABOUT` (identities: tuple of
    names), then those of `wide`, which has a row per sample id and a float64 column per metric.
    NaN: unscored."""
    import pandas as pd

    about = pd.DataFrame(
        [(r.id, r.identities, r.category, r.prompt_id, r.status) for r in records],
        columns=list(ABOUT), index=pd.Index([r.suite_id for r in records], name="suite_id"),
    )
    return about.join(wide, on="sample")


def metric_names(values: pd.DataFrame) -> list[str]:
    """The metrics of a table of samples."""
    return [str(name) for name in values.columns if name not in ABOUT + ADDED]


def metric_of(name: str) -> Any:
    """The registered metric of that name, or None when its package is not installed."""
    try:
        return _loaded(name)
    except UserError:
        return None


@cache
def _loaded(name: str) -> Any:
    return METRICS.load(name)  # an error is not kept: a package may be installed later


def higher_is_better(name: str) -> bool | None:
    """The metric's better direction; None when its package is not installed."""
    metric = metric_of(name)
    return None if metric is None else bool(metric.higher_is_better)


def directions(values: pd.DataFrame) -> dict[str, bool | None]:
    """`higher_is_better` of each metric of a table of samples."""
    return {name: higher_is_better(name) for name in metric_names(values)}


@dataclass(frozen=True)
class Share:
    """How many of a split's samples were measured, of all that are known, counted by `Key`."""

    measured: int
    of: int

    @property
    def whole(self) -> bool:
        """Whether nothing is missing."""
        return self.measured >= self.of

    def __str__(self) -> str:
        return f"{self.measured} of {self.of} samples"


def present(values: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table of samples that were measured: not a failed sample without any value."""
    valued = values[metric_names(values)].notna().any(axis=1)
    return values[(values["status"] != "failed") | valued]


def keys(values: pd.DataFrame) -> list[Key]:
    """The key of each row, from its columns `identities` and `prompt_id`."""
    return [
        (tuple(people), str(prompt))
        for people, prompt in zip(values["identities"], values["prompt_id"], strict=True)
    ]


def shares(groups: Sequence[tuple[pd.DataFrame, int]]) -> list[Share]:
    """The share of each system in what all systems of a split were asked for together.

    Args:
        groups: per system, its samples as in `sample_values`, and how many samples of an
            unfinished run have no known key yet.
    """
    together = {key for values, _ in groups for key in keys(values)}
    counts = [(len(set(keys(present(values)))), unfinished) for values, unfinished in groups]
    return [Share(has, max(len(together), has + unfinished)) for has, unfinished in counts]


def shares_of(group: Sequence[Measurement]) -> list[Share]:
    """`shares` of measurements of one split."""
    return shares([(one.values, len(one.missing)) for one in group])


def share_of_suite(measured: Measurement) -> Share:
    """The share of the suite's split: as installed, else by the size kept with the values; where
    neither is known, of what was asked for."""
    identity, values = measured.identity, present(measured.values)
    suite = identity.suite
    loaded = load_suite(suite.name) if suite.name in suite_names() else None
    if loaded is None or loaded.sha256 != suite.sha256:
        share = shares_of([measured])[0]
        return Share(share.measured, max(share.of, measured.split_size or 0))
    of_split: dict[str, Key] = {
        sample.id: (tuple(sample.identities), str(sample.prompt_id))
        for sample in loaded.samples(identity.split, None, identity.seed)
    }
    has = {of_split.get(str(i), key) for i, key in zip(values.index, keys(values), strict=True)}
    whole = set(of_split.values())
    return Share(len(whole & has), len(whole))
