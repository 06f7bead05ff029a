"""From readings to findings: rank correlations, AUCs, curves, and claims that hold or fail."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from idbench.metrics import clipdist, viclip
from idbench.metrics.identity_similarity import ARCSIM, CURSIM
from idbench.metrics.validation.experiments import AXES, FACE_METRICS, Preference, Reading
from idbench.metrics.validation.readers import Agreement, Control
from idbench.prompts.sampling import EDITS
from idbench.statistics import Estimate, area_under_curve, estimate

TITLES = {m.name: m.title for m in (ARCSIM, CURSIM, clipdist.METRIC, viclip.METRIC)}
RECOGNISERS = ("arcsim", "cursim")
STABLE = ("yaw", "pitch", "expression")
Table = dict[str, np.ndarray]
"""Values of one metric along one axis by person, by ascending share; NaN where unscored."""


@dataclass(frozen=True)
class Curve:
    """Mean of a metric along an axis: one estimate for each share, over people."""

    metric: str
    axis: str
    shares: tuple[float, ...]
    means: tuple[Estimate, ...]


@dataclass(frozen=True)
class Claim:
    """An expected property of a metric: the measured value (None: nothing could be measured, so it
    does not hold) and the bar for it."""

    metric: str
    text: str
    value: float | None
    bar: float
    at_least: bool

    @property
    def held(self) -> bool:
        if self.value is None:
            return False
        return self.value >= self.bar if self.at_least else self.value <= self.bar


@dataclass(frozen=True)
class Findings:
    """Everything the page shows, with the names of the data.

    Attributes:
        spearman: by metric and axis, the mean over people of Spearman's rho with the share.
        auc: by metric, the AUC of the own identity (any pose and expression) against another's.
        prompt_auc: AUC of true against edited prompts over all clips.
        prefers_true_prompt: by edited attribute, the share of clips that do.
        scored: by metric and axis, the share of readings that have a value.
        controls: what recognisers read of a face, see `readers`.
        agreement_with_dlib: rank correlations on finished runs, see `readers`.
        curves: of every metric of faces along every axis.
    """

    claims: tuple[Claim, ...]
    spearman: dict[str, dict[str, Estimate]]
    auc: dict[str, float | None]
    prompt_auc: float | None
    prefers_true_prompt: dict[str, Estimate]
    scored: dict[str, dict[str, float]]
    controls: tuple[Control, ...]
    agreement_with_dlib: tuple[Agreement, ...]
    curves: tuple[Curve, ...]


def find(
    readings: Sequence[Reading], preferences: Sequence[Preference],
    controls: Sequence[Control] = (), agreements: Sequence[Agreement] = (),
) -> Findings:
    """What was read, and the claims that are made of it."""
    tables = {m: {a: _by_person(readings, m, a) for a in AXES} for m in FACE_METRICS}
    shares = {a: tuple(sorted({r.share for r in readings if r.axis == a})) for a in AXES}
    curves = tuple(
        Curve(m, a, shares[a], _means(table, len(shares[a])))
        for m, of in tables.items() for a, table in of.items()
    )
    spearman = {m: {a: _correlation(table) for a, table in of.items()} for m, of in tables.items()}
    scored = {m: {a: _scored(table) for a, table in of.items()} for m, of in tables.items()}
    auc = {m: _identity_auc(readings, m) for m in FACE_METRICS}
    preferred = {
        e: estimate(
            [float(p.true > p.other) for p in preferences if p.edited == e],
            [p.clip for p in preferences if p.edited == e],
        )
        for e in EDITS
    }
    prompt_auc = area_under_curve([p.true for p in preferences], [p.other for p in preferences])
    # A protocol without some of the metrics makes no claims about them.
    read = {metric for metric, of in tables.items() if any(of.values())}
    read |= {"viclip"} if any(found.n for found in preferred.values()) else set()
    claims = (
        *(c for c in _claims(tables, spearman, auc, preferred) if c.metric in read),
        *claims_of_controls(controls), *claims_of_agreement(agreements),
    )
    return Findings(
        claims, spearman, auc, prompt_auc, preferred, scored, tuple(controls), tuple(agreements),
        curves,
    )


def _claims(
    tables: dict[str, dict[str, Table]], spearman: dict[str, dict[str, Estimate]],
    auc: dict[str, float | None], preferred: dict[str, Estimate],
) -> Iterator[Claim]:
    for metric in RECOGNISERS:
        title, rho = TITLES[metric], spearman[metric]
        yield Claim(metric, f"{title} falls as the identity moves away (Spearman)",
                    rho["identity"].mean, -0.8, False)
        yield Claim(metric, f"{title} falls as the face's shape alone moves (Spearman)",
                    rho["shape"].mean, -0.5, False)
        yield Claim(metric, f"{title} tells own faces from another's (AUC)", auc[metric], 0.95,
                    True)
        fall = _change(tables[metric]["identity"])
        for axis in STABLE:
            moved = _change(tables[metric][axis])
            share = None if not fall or moved is None else moved / fall
            yield Claim(metric, f"{title} stays when only {axis} moves (its change, as a share of "
                        "the fall to another identity)", share, 0.35, False)
    for axis in STABLE:
        yield Claim("clipdist", f"CLIPDist rises with {axis} at a fixed identity (Spearman)",
                    spearman["clipdist"][axis].mean, 0.3, True)
    for name, found in preferred.items():
        yield Claim("viclip", f"ViCLIP prefers the true prompt to one with another {name} (share "
                    "of clips)", found.mean, 0.75, True)


def claims_of_controls(controls: Sequence[Control]) -> Iterator[Claim]:
    """The claims about the embedded recognisers; none about a reader from outside."""
    for metric in RECOGNISERS:
        of = {control.name: control for control in controls if control.reader == metric}
        if not of:
            continue
        title, plain = TITLES[metric], of["nothing"]
        yield Claim(metric, f"{title} does not find a person by all but the face's shape (share "
                    "found, the shape being another's)", of["shape"].right, 0.2, False)
        yield Claim(metric, f"{title} finds a person by the face's shape (share found, all else "
                    "being another's)", of["all but shape"].right, 0.7, True)
        yield Claim(metric, f"{title} tells own faces from others' in grey (AUC)", of["grey"].auc,
                    0.95, True)
        fall = plain.own - plain.other
        for name, text in (("colour balance", "the colour balance"),
                           ("colours", "the colour of skin, hair, eyes and lips")):
            share = (plain.own - of[name].own) / fall if fall > 0 else None
            yield Claim(metric, f"{title} stays when only {text} changes (its fall, as a share of "
                        "the fall to another person)", share, 0.35, False)


def claims_of_agreement(agreements: Sequence[Agreement]) -> Iterator[Claim]:
    """A metric ranks the samples of systems as dlib does."""
    for a in agreements:
        yield Claim(a.metric, f"{TITLES[a.metric]} ranks {a.over} as dlib does (Spearman)", a.rho,
                    0.6, True)


def _change(table: Table) -> float | None:
    """Mean over people of the value at the end of an axis minus that at its start."""
    moved = [v[-1] - v[0] for v in table.values() if np.isfinite(v[[0, -1]]).all()]
    return float(np.mean(moved)) if moved else None


def _by_person(readings: Sequence[Reading], metric: str, axis: str) -> Table:
    here = [r for r in readings if r.metric == metric and r.axis == axis]
    table: dict[str, list[float]] = {}
    for r in sorted(here, key=lambda r: r.share):
        table.setdefault(r.person, []).append(np.nan if r.value is None else r.value)
    return {person: np.array(values) for person, values in table.items()}


def _scored(table: Table) -> float:
    return float(np.isfinite(np.concatenate([*table.values()])).mean()) if table else 0.0


def _means(table: Table, places: int) -> tuple[Estimate, ...]:
    """The mean over people at each place of an axis."""
    return tuple(estimate([v[i] for v in table.values()], list(table)) for i in range(places))


def _correlation(table: Table) -> Estimate:
    """Mean over people of Spearman's rho of the value with the place on the axis."""
    values: list[float | None] = []
    for of_person in table.values():
        good = np.isfinite(of_person)
        if good.sum() < 3 or np.ptp(of_person[good]) == 0:
            values.append(None)
        else:
            values.append(spearmanr(np.flatnonzero(good), of_person[good]).statistic)
    return estimate(values, list(table))


def _identity_auc(readings: Sequence[Reading], metric: str) -> float | None:
    scored = [r for r in readings if r.metric == metric and r.value is not None]
    own = [r.value for r in scored if r.axis in STABLE]
    other = [r.value for r in scored if r.axis == "identity" and r.share == 1.0]
    found = area_under_curve(own, other)  # type: ignore[arg-type]
    return None if found is None else (1 - found if metric == "clipdist" else found)
