"""The HTML report: one self-contained page of one or more runs.

The page needs no network and opens from disk. Prompts, names and reasons are hostile input:
the templates escape everything, and a content security policy lets only the page's own script
run. Without JavaScript the first page of samples can still be read and played.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

from markupsafe import Markup

from idbench import __version__, pages
from idbench.files import check_output, write_text
from idbench.measurements import metric_of
from idbench.reports import columns, figures, published, report_data, tables, video_values
from idbench.reports.columns import number
from idbench.runs import Run
from idbench.statistics import Estimate

PAGE_SIZE = 48
"""Samples shown at a time, few enough for browsers to lay out, sort and play without lag."""


def build_report(run_folders: Sequence[Path], output: Path, embed: bool | None = None) -> Path:
    """Write the report of runs to `output`, atomically; the first one leads.

    `embed`: whether videos go into the page or are linked; None: embedded if under 11 MB together.
    Raises UserError: no run, no scores, runs that cannot share a table, or `output` is something
    else."""
    output = Path(output)
    check_output(output, "report")
    runs = [Run.open(folder) for folder in run_folders]
    measured = tables.measured(runs)
    report = report_data.read(runs, output, embed)
    page = pages.template(
        pages.TEMPLATES / "report.html", number=number, interval=interval, short=short,
        percent=columns.percent, plain=plain,
        seconds=lambda v: f"{v:.1f} s" if v < 120 else f"{v / 60:.1f} min",
    )
    write_text(output, page.render(_context(report, measured)))
    return output


def _context(report: report_data.ReportData, measured: tables.Tables) -> dict[str, Any]:
    titles = {m: _minus(columns.plain_title(m)) for m in report.metrics}
    arrows = {m: columns.title(m)[-1] for m in report.metrics if columns.title(m)[-1] in "↑↓"}
    low, high = _curve_range(report)
    shown, points = _figures(report, measured, titles)
    return {
        **pages.inline("report"),
        "media_source": "data:" if report.embedded else "data: file: 'self'",
        "report": report, "measured": measured, "titles": titles, "arrows": arrows,
        "lower_is_better": [m for m, arrow in arrows.items() if arrow == "↓"],
        "explained": [_explained(m) for m in report.metrics],
        "figures": shown, "points": points, "published": published.published_tables(),
        "published_title": columns.published_title,
        "methods": [_method(run, label) for run, label in
                    zip(report.runs, report.labels, strict=True)],
        "spans": _spans(report), "curve_low": low, "curve_high": high,
        "curve_path": lambda values: curve_path(values, low, high),
        "zero": (high - 0) / (high - low) * 100 if low < 0 < high else None,
        "dots": dots, "splits": list(dict.fromkeys(c.split for c in report.cards)),
        "category_names": list(dict.fromkeys(c.category for c in report.cards)),
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "version": __version__,
        "as_json": json.dumps, "sort_values": sort_values, "reasons_of": reasons_of,
        "page_size": PAGE_SIZE,
    }


def interval(found: Estimate) -> str:
    """The 95 % interval, or nothing where there is none."""
    return " to ".join(map(number, found.interval or ()))


def short(text: str, length: int = 12) -> str:
    """The beginning of a hash."""
    return text if len(text) <= length else text[:length] + "…"


def plain(value: Any) -> str:
    """A setting as a person reads it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(v) for v in value)
    return "–" if value is None else str(value)


def curve_path(values: Sequence[float | None], low: float, high: float) -> tuple[str, str]:
    """SVG paths of a curve in a box of 100 x 100: its line, broken at gaps, and its dots."""
    line, points, pen_down = [], [], False
    for index, value in enumerate(values):
        if value is None:
            pen_down = False
            continue
        x = 100 * (index + 0.5) / len(values)
        y = 100 * (high - value) / (high - low)
        line.append(f"{'L' if pen_down else 'M'}{x:.2f} {y:.2f}")
        points.append(f"M{x:.2f} {y:.2f}h0")
        pen_down = True
    return "".join(line), "".join(points)


def dots(values: Sequence[float], low: float, high: float) -> list[float]:
    """Places of values between `low` and `high` in percent."""
    width = max(high - low, 1e-9)
    return [round(100 * (v - low) / width, 1) for v in values]


def sort_values(card: report_data.CardView) -> str:
    """JSON of a card's values by metric, each [run, value], for the page's script."""
    found: dict[str, list[tuple[int, float]]] = {}
    for take in card.takes:
        for metric, value in take.values.items():
            if value.value is not None:
                found.setdefault(metric, []).append((take.run, round(value.value, 6)))
    return json.dumps(found)


def reasons_of(take: report_data.TakeView) -> list[str]:
    """Why a video, though it is there, was not scored, beyond what its people's lines say."""
    found = [take.problem] if take.video and take.problem else []
    people = {v.reason for person in take.people for v in person.values.values() if v.reason}
    for value in take.values.values():
        reason = value.reason
        if reason and take.video and not any(reason.endswith(told) for told in people):
            found.append(reason)
    return list(dict.fromkeys(found))


def _curve_range(report: report_data.ReportData) -> tuple[float, float]:
    """One range of all per-frame curves, so that they can be compared: whole tenths."""
    values = [v for take in report.takes for person in take.people
              for curve in person.curves.values() for v in curve.values() if v is not None]
    if not values:
        return 0.0, 1.0
    low = min(0.0, math.floor(min(values) * 10) / 10)
    return low, max(math.ceil(max(values) * 10) / 10, low + 0.1)


def _spans(report: report_data.ReportData) -> dict[str, tuple[float, float]]:
    """Smallest and largest video-level value of each metric."""
    known: dict[str, list[float]] = {metric: [] for metric in report.metrics}
    for take in report.takes:
        for metric, value in take.values.items():
            if value.value is not None:
                known[metric].append(value.value)
    return {metric: (min(values), max(values)) for metric, values in known.items() if values}


def _figures(
    report: report_data.ReportData, measured: tables.Tables, titles: Mapping[str, str]
) -> tuple[dict[str, Markup], list[list[str]]]:
    """The figures, and for each run the cards of the points of the first one, in its order."""
    shown = columns.headline(report.metrics)
    arrowed = {m: columns.title(m) for m in report.metrics}
    made: dict[str, tuple[Any, str]] = {}
    points: list[list[str]] = []
    if set(figures.TRADEOFF) <= set(shown):
        found = video_values.series(report.runs, measured.rows, *figures.TRADEOFF)
        points = [[f"s-{key}" for key in one.keys] for one in found]
        made["tradeoff"] = (
            figures.tradeoff(found, *figures.TRADEOFF, arrowed),
            "Identity against editability: ArcSim and CLIPDist, mean and 95% interval")
    if shown and report.categories:
        made["categories"] = (figures.by_category(report.categories, shown, arrowed),
                              "Mean and 95% interval of each metric in each prompt category")
    for identity in columns.about(report.metrics, "identity")[:1]:
        along = [(label, _along(report, run, identity)) for run, label in enumerate(report.labels)]
        if any(values for _, values in along):
            made["time"] = (
                figures.over_time({titles[identity]: along}),
                f"{titles[identity]} along the videos: mean, middle half of the frames, share of "
                "frames scored")
    return {name: Markup(figures.to_svg(*figure)) for name, figure in made.items()}, points


def _along(report: report_data.ReportData, run: int, metric: str) -> video_values.Points:
    """The curves of all people of a run as places along their videos."""
    return [
        (frame / max(*curve, 1), value)
        for take in report.takes if take.run == run
        for person in take.people if (curve := person.curves.get(metric))
        for frame, value in curve.items()
    ]


def _minus(title: str) -> str:
    """A metric's title with a minus in place of the hyphen that a terminal shows."""
    return title.replace(" - ", " − ")


def _explained(name: str) -> dict[str, Any]:
    metric = metric_of(name)
    return {
        "title": _minus(columns.title(name)),
        "formula": getattr(metric, "formula", "from another package"),
        "range": getattr(metric, "range", None), "source": getattr(metric, "source", ""),
    }


def _method(run: Run, label: str) -> dict[str, Any]:
    """How a run was made, as plain pairs."""
    file = run.file
    scoring, model, revision = file.scoring, file.identity.model, file.git.revision
    command = list(file.command)
    if command:
        command[0] = PurePath(command[0]).name
    return {
        "label": label, "suite": file.identity.suite.model_dump(), "split": run.split,
        "command": shlex.join(command), "created": _when(file.created),
        "status": file.status, "counts": file.counts.model_dump(exclude_none=True),
        "revision": "not a checkout" if not revision else
        revision + (" with uncommitted changes" if file.git.dirty else ""),
        "protocol": _flat(scoring.protocol),
        "settings": _flat({"revision": model.revision, **model.settings}),
        "model_weights": model.weights,
        "metric_weights": scoring.weight_files,
        "packages": file.packages, "hardware": _flat(file.hardware),
        "peak_memory_gb": file.peak_memory_gb,
        "timings": {k: v for k, v in file.timings.items() if v},
    }


def _when(text: str | None) -> str:
    """A time of run.json as people write it; what is no time stays as it is."""
    try:
        return datetime.fromisoformat(text or "").strftime("%Y-%m-%d %H:%M %Z")
    except ValueError:
        return text or "unknown"


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (name, text) pairs: `detection, height`."""
    pairs: list[tuple[str, str]] = []
    for key, value in mapping.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{key}, ")
        else:
            pairs.append((name, plain(value)))
    return pairs
