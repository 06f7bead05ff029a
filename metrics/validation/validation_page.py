"""The page and the JSON of a validation: claims, tables, curves as SVG, in one file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from idbench.files import check_output, write_json, write_text
from idbench.metrics.validation.controls import Control
from idbench.metrics.validation.experiments import AXES, EDITED, FACE_METRICS
from idbench.metrics.validation.findings import TITLES, Curve, Findings
from idbench.pages import svg, template
from idbench.statistics import Estimate

AXIS_TITLES = {
    "identity": "identity (everything)", "shape": "identity (bones and flesh alone)",
    "yaw": "head turn, to 25°", "pitch": "nod, to 15°", "expression": "expression",
}
_COLOURS = {"arcsim": "#2c5d8f", "cursim": "#b4532a", "clipdist": "#3f7a4c"}
_MARKERS = {"arcsim": "o", "cursim": "s", "clipdist": "D"}


def as_json(findings: Findings, about: dict[str, Any]) -> dict[str, Any]:
    """Findings as JSON values."""
    return {
        "schema": 1,
        **about,
        "claims": [{**asdict(c), "held": c.held} for c in findings.claims],
        "spearman": {
            m: {a: asdict(findings.correlations[m, a]) for a in AXES} for m in FACE_METRICS
        },
        "auc": findings.aucs,
        "prompt_auc": findings.prompt_auc,
        "prefers_true_prompt": {e: asdict(findings.preferences[e]) for e in EDITED},
        "scored": {m: {a: findings.scored[m, a] for a in AXES} for m in FACE_METRICS},
        "controls": [asdict(control) for control in findings.controls],
        "agreement_with_dlib": [asdict(agreement) for agreement in findings.agreements],
        "curves": [
            {"metric": c.metric, "axis": c.axis, "shares": list(c.shares),
             "means": [asdict(m) for m in c.means]}
            for c in findings.curves
        ],
    }


def paths(folder: Path) -> tuple[Path, Path]:
    """The page and the data inside `folder`. Raises UserError: one of them exists and is something
    else."""
    found = folder / "validation.html", folder / "validation.json"
    for path in found:
        check_output(path, "validation")
    return found


def write(folder: Path, findings: Findings, about: dict[str, Any]) -> tuple[Path, Path]:
    """Write validation.html and validation.json into `folder`; returns their paths."""
    plots = {a: _svg(a, [c for c in findings.curves if c.axis == a]) for a in AXES}
    page = template(Path(__file__).with_name("page.html"), number=number).render(
        findings=findings, about=about, plots=plots, titles=TITLES, axes=AXES,
        axis_titles=AXIS_TITLES, metrics=FACE_METRICS, controls=_by_name(findings),
    )
    html, data = paths(folder)
    write_text(html, page)
    write_json(data, as_json(findings, about))
    return html, data


def _by_name(findings: Findings) -> dict[str, list[Control]]:
    """The controls of every reader, by what was exchanged or degraded."""
    found: dict[str, list[Control]] = {}
    for control in findings.controls:
        found.setdefault(control.name, []).append(control)
    return found


def number(value: float | Estimate | None) -> str:
    """Three decimals, with the interval of an estimate; a dash for what was not measured."""
    if isinstance(value, Estimate):
        if value.mean is None:
            return "–"
        if value.low is None or value.high is None:
            return f"{value.mean:.3f}"
        return f"{value.mean:.3f} ({value.low:.3f} to {value.high:.3f})"
    return "–" if value is None else f"{value:.3f}"


def _svg(axis: str, curves: list[Curve]) -> str:
    import matplotlib

    # The figure is made without pyplot: no global state, no window.
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "font.size": 9, "svg.hashsalt": axis,
                                "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(3.6, 2.6), layout="constrained")
        axes = figure.subplots()
        for curve in curves:
            points = [
                (s, m.mean, m.low, m.high)
                for s, m in zip(curve.shares, curve.means, strict=True) if m.mean is not None
            ]
            if not points:
                continue
            x, y, low, high = zip(*points, strict=True)
            colour = _COLOURS[curve.metric]
            axes.plot(x, y, color=colour, marker=_MARKERS[curve.metric], markersize=4,
                      label=TITLES[curve.metric])
            if all(v is not None for v in (*low, *high)):
                axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.axhline(0, color="#d9d5cc", linewidth=0.8)
        axes.set_ylim(-0.4, 1.08)
        axes.set_xlabel(AXIS_TITLES[axis])
        axes.legend(frameon=False, fontsize=8)
        return svg(figure)
