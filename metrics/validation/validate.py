"""Everything that `idbench validate-metrics` measures, as one page with its data."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from idbench import __version__, embedded
from idbench.files import check_output, write_json, write_text
from idbench.metrics.identity_similarity import ARCSIM
from idbench.metrics.networks.weight_sources import NETWORKS
from idbench.metrics.protocols import get_protocol
from idbench.metrics.validation.experiments import (
    AXES,
    FACE_METRICS,
    Sizes,
    read_faces,
    read_prompts,
)
from idbench.metrics.validation.findings import RECOGNISERS, TITLES, Curve, Findings, find
from idbench.metrics.validation.readers import agreements, read_controls, read_runs, readers
from idbench.pages import svg, template
from idbench.progress import steps as progress
from idbench.runs import Run
from idbench.statistics import Estimate

AXIS_TITLES = {
    "identity": "identity (everything)", "shape": "identity (bones and flesh alone)",
    "yaw": "head turn, to 25°", "pitch": "nod, to 15°", "expression": "expression",
}
_LINES = {"arcsim": ("#2c5d8f", "o"), "cursim": ("#b4532a", "s"), "clipdist": ("#3f7a4c", "D")}
"""Colour and marker of each metric."""


def validate(
    output: Path, sizes: Sizes, protocol: str, controls: int = 0, runs: Sequence[Path] = (),
    quiet: bool = False,
) -> tuple[Findings, dict[str, Any], Path, Path]:
    """Vary avatars, read them by every metric of `protocol`, and write the page into `output`.
    Returns what was found, as JSON values too, and the page and the JSON file that hold it.

    Args:
        controls: identities whose parts are exchanged; 0: none.
        runs: folders of runs whose videos are also read by dlib.
        quiet: print no progress.
    Raises UserError: an unknown protocol, a folder that holds no run, an output that is in use.
    """
    html, data = output / "validation.html", output / "validation.json"
    for path in (html, data):  # refuse before the long part
        check_output(path, "validation")
    defined = get_protocol(protocol)
    if not defined.defines(ARCSIM):
        controls = 0
    opened = [Run.open(folder) for folder in runs]
    with progress("videos", sum(len(run.sample_ids) for run in opened), quiet) as step:
        seen = read_runs(opened, readers(), step) if opened else {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with progress("faces", sizes.people, quiet) as step:
            readings = read_faces(sizes, folder, defined.name, step)
        with progress("prompts", sizes.clips, quiet) as step:
            preferences = read_prompts(sizes, folder / "cache", defined.name, step)
    with progress("controls", controls, quiet) as step:
        exchanged = read_controls(controls, sizes.seed, readers(), step) if controls else []
    agreed = agreements(seen, RECOGNISERS) if opened else []
    found = find(readings, preferences, exchanged, agreed)
    about = {
        "idbench": __version__, "protocol": defined.name,
        "sizes": {**vars(sizes), "controls": controls}, "runs": [run.name for run in opened],
        "weights": {n: embedded.entry(n)["sha256"] for n in NETWORKS},
    }
    claims = [{**asdict(claim), "held": claim.held} for claim in found.claims]
    values = {"schema": 1, **about, **asdict(found), "claims": claims}
    write_text(html, _page(found, about))
    write_json(data, values)
    return found, values, html, data


def _page(findings: Findings, about: dict[str, Any]) -> str:
    plots = {a: _svg(a, [c for c in findings.curves if c.axis == a]) for a in AXES}
    controls = {
        name: [control for control in findings.controls if control.name == name]
        for name in dict.fromkeys(control.name for control in findings.controls)
    }
    return template(Path(__file__).with_name("page.html"), number=number).render(
        findings=findings, about=about, plots=plots, titles=TITLES, axes=AXES,
        axis_titles=AXIS_TITLES, metrics=FACE_METRICS, controls=controls,
    )


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
            colour, marker = _LINES[curve.metric]
            axes.plot(x, y, color=colour, marker=marker, markersize=4, label=TITLES[curve.metric])
            if all(v is not None for v in (*low, *high)):
                axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.axhline(0, color="#d9d5cc", linewidth=0.8)
        axes.set_ylim(-0.4, 1.08)
        axes.set_xlabel(AXIS_TITLES[axis])
        axes.legend(frameon=False, fontsize=8)
        return svg(figure)
