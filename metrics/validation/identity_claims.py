"""What ArcSim and CurSim must do on controls, and beside dlib, to be read as identity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from idbench.metrics.validation.agreement import Agreement
from idbench.metrics.validation.controls import Control
from idbench.metrics.validation.findings import TITLES, Claim, Findings

METRICS = ("arcsim", "cursim")


def with_identity(
    findings: Findings, controls: Sequence[Control], agreements: Sequence[Agreement]
) -> Findings:
    """`findings` with controls and agreements, and the claims about them."""
    more = (*claims_of_controls(controls), *claims_of_agreement(agreements))
    return replace(
        findings, claims=(*findings.claims, *more), controls=tuple(controls),
        agreements=tuple(agreements),
    )


def claims_of_controls(controls: Sequence[Control]) -> list[Claim]:
    """The claims about the embedded recognisers; none about a reader from outside."""
    by_reader: dict[str, dict[str, Control]] = {}
    for control in controls:
        by_reader.setdefault(control.reader, {})[control.name] = control
    return [
        claim for metric in METRICS if metric in by_reader
        for claim in _claims(metric, by_reader[metric])
    ]


def _claims(metric: str, of: dict[str, Control]) -> Iterator[Claim]:
    title, plain = TITLES[metric], of["nothing"]
    yield Claim(
        metric, f"{title} does not find a person by all but the face's shape (share found, the "
        "shape being another's)", of["shape"].right, 0.2, False,
    )
    yield Claim(
        metric, f"{title} finds a person by the face's shape (share found, all else being "
        "another's)", of["all but shape"].right, 0.7, True,
    )
    yield Claim(
        metric, f"{title} tells own faces from others' in grey (AUC)", of["grey"].auc, 0.95, True
    )
    fall = plain.own - plain.other
    for name, text in (("colour balance", "the colour balance"),
                       ("colours", "the colour of skin, hair, eyes and lips")):
        share = (plain.own - of[name].own) / fall if fall > 0 else None
        yield Claim(
            metric, f"{title} stays when only {text} changes (its fall, as a share of the fall to "
            "another person)", share, 0.35, False,
        )


def claims_of_agreement(agreements: Sequence[Agreement]) -> list[Claim]:
    """A metric ranks the samples of systems as dlib does."""
    return [
        Claim(a.metric, f"{TITLES[a.metric]} ranks {a.over} as dlib does (Spearman)", a.rho, 0.6,
              True)
        for a in agreements
    ]
