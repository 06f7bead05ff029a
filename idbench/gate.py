"""The regression gate: has a run become worse than its reference?

A metric has regressed when its mean fell by more than the tolerance **and** the interval of the
paired difference, bootstrapped over identities, excludes zero: a small but certain change and a
large but uncertain one both hold. Besides, nothing may have been lost: samples, metrics, or
values of samples that the reference could score. Numbers of another protocol, of other scoring
networks or of another suite are not compared.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from idbench.differences import differences, in_words, scoring_differences
from idbench.errors import UserError
from idbench.measurements import Measurement
from idbench.names import one_of
from idbench.reports.columns import shown
from idbench.statistics import RESAMPLES, estimate, identity_clusters

TOLERANCE = 0.01
"""Largest drop of a metric's mean that always holds, in the metric's own units."""
ALLOWABLE = ("suite", "split", "protocol", "weights", "detector", "missing", "coverage")
"""What a user may allow by name to differ."""
HELD, REGRESSED, INCOMPARABLE = 0, 1, 2
"""Exit codes."""


@dataclass(frozen=True)
class Check:
    """One thing that was checked.

    Attributes:
        name: `samples`, `protocol`, ..., or for a metric `arcsim` and `arcsim coverage`.
        outcome: `held`, `improved`, `regressed`, `incomparable` or `allowed`.
        reference, run: mean over the shared samples that both scored (or the coverage).
        change, low, high: paired difference run - reference, and its 95% interval.
        samples, clusters: shared samples that both scored, and independent groups among them.
    """

    name: str
    outcome: str
    message: str
    reference: float | None = None
    run: float | None = None
    change: float | None = None
    low: float | None = None
    high: float | None = None
    tolerance: float | None = None
    samples: int | None = None
    clusters: int | None = None


@dataclass(frozen=True)
class Verdict:
    """What the gate found; `notes` are differences that decide nothing."""

    run: str
    reference: str
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()

    @property
    def code(self) -> int:
        """Exit code: 0 held, 1 regressed, 2 cannot be compared."""
        outcomes = {check.outcome for check in self.checks}
        if "incomparable" in outcomes:
            return INCOMPARABLE
        return REGRESSED if "regressed" in outcomes else HELD

    @property
    def word(self) -> str:
        return ("held", "regressed", "cannot be compared")[self.code]

    @property
    def problems(self) -> list[Check]:
        """The checks that decided against the run."""
        return [c for c in self.checks if c.outcome in ("regressed", "incomparable")]

    def as_dict(self) -> dict[str, Any]:
        """JSON value of everything."""
        return {
            "verdict": self.word, "code": self.code, "run": self.run, "reference": self.reference,
            "checks": [asdict(check) for check in self.checks], "notes": list(self.notes),
        }


def check(
    run: Measurement, reference: Measurement, *, tolerance: float = TOLERANCE,
    tolerances: Mapping[str, float] | None = None, coverage_tolerance: float = 0.0,
    metrics: Collection[str] = (), allow: Collection[str] = (), resamples: int = RESAMPLES,
) -> Verdict:
    """Compare `run` with `reference` on the samples that both have.

    Args:
        tolerance: largest drop that passes; `tolerances` has exceptions by metric.
        coverage_tolerance: share of the shared samples, 0..1, that may become unscored.
        metrics: which to judge; empty: those of the reference that tables show.
        allow: names of `ALLOWABLE` that may differ.

    Raises UserError: an unknown metric or name in `allow`.
    """
    if not 0 <= coverage_tolerance <= 1:
        raise UserError(
            f"--coverage-tolerance {coverage_tolerance} is not a share; use a number from 0 to 1."
        )
    for name in allow:
        one_of("name to allow", name, ALLOWABLE)
    for name in (*metrics, *(tolerances or {})):
        one_of("metric of the reference", name, reference.metrics)
    checks = _settings(run, reference, allow)
    shared = [s for s in reference.values.index if s in run.values.index]
    checks.append(_samples(reference, len(shared), allow))
    if not any(c.outcome == "incomparable" for c in checks):
        for name in metrics or judged(reference):
            limit = (tolerances or {}).get(name, tolerance)
            checks += _metric(
                name, run, reference, shared, limit, coverage_tolerance, allow, resamples)
    return Verdict(run.source, reference.source, tuple(checks), tuple(_notes(run, reference)))


def judged(reference: Measurement) -> list[str]:
    """The metrics that are judged unless others are named: those that tables show."""
    return [name for name in reference.metrics if shown(name)]


def _settings(run: Measurement, reference: Measurement, allow: Collection[str]) -> list[Check]:
    """Whether both were measured alike, one check each."""
    before, after = reference.identity, run.identity
    unlike = {
        "suite": differences(before.suite.model_dump(), after.suite.model_dump(), "suite"),
        "split": differences(before.split, after.split, "split"),
        **scoring_differences(reference.scoring, run.scoring, shared_networks=True),
    }
    found = []
    for name, changed in unlike.items():
        message = f"reference / run: {in_words(changed)}"
        if not changed:
            found.append(Check(name, "held", "the same"))
        elif name in allow:
            found.append(Check(name, "allowed", f"{message}; allowed"))
        else:
            found.append(Check(
                name, "incomparable",
                f"{message}; make a new reference, or pass --allow {name}"))
    return found


def _samples(reference: Measurement, shared: int, allow: Collection[str]) -> Check:
    planned = len(reference.planned)
    if reference.missing:
        outcome, message = "incomparable", (
            f"the reference lacks {len(reference.missing)} of its {planned} samples; finish it "
            "first")
    elif not shared:
        outcome, message = "incomparable", "no shared sample; use the reference's split and seed"
    elif planned > shared:
        outcome, message = _lost("missing", allow), (
            f"{planned - shared} of {planned} are missing from the run")
    else:
        outcome, message = "held", f"all {planned} are there"
    return Check("samples", outcome, message, samples=shared)


def _lost(what: str, allow: Collection[str]) -> str:
    """The outcome for something that the run lost."""
    return "allowed" if what in allow else "regressed"


def _metric(
    name: str, run: Measurement, reference: Measurement, shared: list[Any], tolerance: float,
    coverage_tolerance: float, allow: Collection[str], resamples: int,
) -> list[Check]:
    """The coverage of a metric, and its mean."""
    before = reference.values.loc[shared, name].to_numpy(np.float64)
    if name not in run.values:
        return [Check(name, _lost("missing", allow), "the run has no such metric")]
    after = run.values.loc[shared, name].to_numpy(np.float64)
    had, has = ~np.isnan(before), ~np.isnan(after)
    if not had.any():
        return []  # What the reference could not measure holds nothing.
    checks = [_coverage(name, shared, had, has, coverage_tolerance, allow)]
    both = had & has
    if not both.any():
        return checks
    better = reference.better.get(name)
    better = run.better.get(name) if better is None else better
    clusters = identity_clusters(list(reference.values.loc[shared, "identities"]))
    found = estimate(after - before, clusters, resamples=resamples)
    assert found.mean is not None
    drop = -found.mean if better else found.mean
    low, high = found.interval or (0.0, 0.0)
    certain = low > 0 or high < 0
    if better is None:
        outcome, message = "incomparable", (
            "it is unknown whether higher is better; install the metric's package, or choose "
            "others with --metric")
    elif drop > tolerance and found.interval is None:
        outcome, message = "incomparable", (
            f"worse by {drop:.3f}, but one group of identities has no interval; check a run with "
            "more identities")
    elif drop > tolerance and certain:
        outcome, message = "regressed", (
            f"worse by {drop:.3f}, over the tolerance of {tolerance:g}; 0 is outside "
            f"[{low:+.3f}, {high:+.3f}]")
    elif drop > tolerance:
        outcome, message = "held", f"worse by {drop:.3f}, but the interval includes 0"
    elif -drop > tolerance and certain:
        outcome, message = "improved", f"better by {-drop:.3f}"
    else:
        outcome, message = "held", "within the tolerance"
    return [*checks, Check(
        name, outcome, message, reference=float(before[both].mean()),
        run=float(after[both].mean()), change=found.mean, low=found.low, high=found.high,
        tolerance=tolerance, samples=int(both.sum()), clusters=found.clusters,
    )]


def _coverage(
    name: str, shared: list[Any], had: np.ndarray, has: np.ndarray, tolerance: float,
    allow: Collection[str],
) -> Check:
    before, after = float(had.mean()), float(has.mean())
    outcome, message = "held", f"{after:.0%} scored"
    if before - after > tolerance + 1e-12:
        lost = [str(s) for s, a, b in zip(shared, had, has, strict=True) if a and not b]
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        outcome = _lost("coverage", allow)
        message = (f"{before:.0%} were scored, now {after:.0%}; unscored now: "
                   f"{', '.join(lost[:3])}{more}")
    return Check(f"{name} coverage", outcome, message, reference=before, run=after,
                 change=after - before, tolerance=tolerance, samples=len(shared))


def _notes(run: Measurement, reference: Measurement) -> list[str]:
    """What else differs: what is tested, and packages of metrics."""
    notes = []
    for changed in (
        differences(
            reference.identity.model.model_dump(), run.identity.model.model_dump(), "model"),
        differences(reference.scoring.metrics, run.scoring.metrics, "metric packages"),
    ):
        if changed:
            notes.append(f"reference / run: {in_words(changed)}")
    more = len(run.values) - sum(s in reference.values.index for s in run.values.index)
    if more:
        notes.append(f"{more} samples of the run are not in the reference")
    return notes


def parse_tolerances(texts: Collection[str]) -> tuple[float, dict[str, float]]:
    """("0.02", "arcsim=0.03") -> (0.02, {"arcsim": 0.03}); without a plain one: `TOLERANCE`.
    Raises UserError: no number, or a negative one."""
    general, special = TOLERANCE, {}
    for text in texts:
        name, equals, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if not 0 <= value < float("inf"):
            raise UserError(
                f"--tolerance {text} is not a tolerance; use a number of 0 or more, such as 0.01, "
                "or arcsim=0.02."
            )
        if equals:
            special[name] = value
        else:
            general = value
    return general, special
