"""Figures drawn with matplotlib, for the report's page and for papers.

Each function returns a matplotlib `Figure`. `to_svg` turns it into inline SVG whose text stays
text and whose colours are CSS variables of the report; `save` writes it for a paper.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from idbench import pages
from idbench.errors import UserError
from idbench.files import check_output, write_bytes
from idbench.reports.video_values import Points, Series
from idbench.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRADEOFF = ("arcsim", "clipdist")
"""Identity against editability: the axes of the report's first figure."""
INK, MUTED, RULE = "#1d1c1a", "#6d6a63", "#d9d5cc"
SERIES = ("#2c5d8f", "#b4532a", "#3f7a4c", "#7f569b", "#937400", "#2f8088")
"""Distinct in print and for colour-blind readers; markers differ too."""
ENDINGS = (".pdf", ".png", ".svg", ".webp")
MARKERS = ("o", "s", "D", "^", "v", "P")

_VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", RULE: "var(--rule)"} | {
    colour: f"var(--s{index})" for index, colour in enumerate(SERIES)
}
_STYLE = {
    "font.family": "sans-serif", "font.size": 9.0, "svg.fonttype": "none", "pdf.fonttype": 42,
    "svg.hashsalt": "idbench", "text.color": INK, "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED, "xtick.color": MUTED, "ytick.color": MUTED,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
    "xtick.major.size": 0, "ytick.major.size": 0, "figure.facecolor": "none",
    "axes.facecolor": "none", "savefig.facecolor": "none", "legend.frameon": False,
    # Names come from users: a dollar sign in one does not start a formula.
    "text.parse_math": False, "axes.unicode_minus": True,
}


def colour(index: int) -> str:
    """Colour of run `index`."""
    return SERIES[index % len(SERIES)]


def marker(index: int) -> str:
    """Marker of run `index`."""
    return MARKERS[index % len(MARKERS)]


def tradeoff(series: Sequence[Series], x: str, y: str, titles: Mapping[str, str]) -> Figure:
    """Each run's mean of two metrics with 95% intervals, and its single videos behind."""
    with style():
        figure = blank((5.4, 3.7), layout="constrained")
        axes = figure.subplots()
        _grid(axes)
        for index, one in enumerate(series):
            if one.points:
                across, up = np.array(one.points, np.float64).T
                axes.scatter(across, up, s=14, color=colour(index), alpha=0.5, linewidths=0,
                             gid=f"points-{index}")
            a, b = one.estimates.get(x), one.estimates.get(y)
            if a is None or b is None or a.mean is None or b.mean is None:
                continue
            axes.errorbar([a.mean], [b.mean], xerr=bar(a), yerr=bar(b), fmt=marker(index), ms=7,
                          color=colour(index), elinewidth=1.6, capsize=0, label=one.name)
        axes.locator_params(nbins=6)
        axes.set_xlabel(titles[x])
        axes.set_ylabel(titles[y])
        if axes.get_legend_handles_labels()[0]:
            _legend(axes)
        return figure


def _legend(axes: Axes) -> None:
    """The names of the runs above the axes, where they hide no mark."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), fontsize=8.5, borderaxespad=0,
                ncols=legend_columns(axes.get_legend_handles_labels()[1]))


def legend_columns(names: Sequence[str]) -> int:
    """How many names of runs stand side by side: four, or fewer where they are long."""
    return max(1, min(4, len(names), 70 // (max(map(len, names)) + 6)))


def by_category(
    categories: Mapping[str, Sequence[Mapping[str, Estimate]]], metrics: Sequence[str],
    titles: Mapping[str, str],
) -> Figure:
    """A panel for each metric: the mean and 95% interval of each category, one mark per run."""
    names = list(categories)
    with style():
        height = 0.75 + len(names) * (0.24 + 0.12 * max(len(v) for v in categories.values()))
        figure = blank((9.6, height), layout="constrained")
        panels = figure.subplots(1, len(metrics), squeeze=False)[0]
        for column, (axes, metric) in enumerate(zip(panels, metrics, strict=True)):
            _grid(axes, "x")
            for row, name in enumerate(names):
                of_runs = categories[name]
                for index, estimates in enumerate(of_runs):
                    found = estimates.get(metric)
                    if found is None or found.mean is None:
                        continue
                    shift = (index - (len(of_runs) - 1) / 2) / (len(of_runs) + 2)
                    axes.errorbar([found.mean], [row + shift], xerr=bar(found), ms=5,
                                  fmt=marker(index), color=colour(index),
                                  elinewidth=1.5, capsize=0)
            axes.set_ylim(len(names) - 0.45, -0.55)
            axes.set_yticks(range(len(names)), names if column == 0 else [""] * len(names))
            axes.tick_params(axis="y", labelsize=9.5, labelcolor=INK)
            axes.set_title(titles[metric], fontsize=9.5, color=INK, loc="left")
            axes.locator_params(axis="x", nbins=4)
            axes.spines["left"].set_visible(False)
        figure.get_layout_engine().set(wspace=0.06)  # type: ignore[union-attr, call-arg]
        return figure


def over_time(
    panels: Mapping[str, Sequence[tuple[str, Points]]], bins: int = 9,
    size: tuple[float, float] = (5.4, 4.0),
) -> Figure:
    """Mean of per-frame metrics along the videos with the middle half of the frames, and below the
    share scored: without it, a system whose faces vanish would look good.

    Args:
        panels: title of a metric -> for each run its name and points: (place in the video 0..1,
            value or None where the frame is unscored).
        size: inches of one panel.
    """
    with style():
        figure = blank((size[0] * len(panels), size[1]), layout="constrained")
        axes = figure.subplots(2, len(panels), squeeze=False, sharex=True, height_ratios=[3.2, 1])
        for (upper, lower), (title, series) in zip(axes.T, panels.items(), strict=True):
            _grid(upper)
            _grid(lower)
            for index, (name, points) in enumerate(series):
                if points:
                    _along(upper, lower, points, bins, index, name)
            upper.set_ylabel(title)
            lower.set_ylim(-0.06, 1.06)
            lower.set_yticks([0, 1], ["0%", "100%"])
            lower.set_ylabel("frames\nscored")
            lower.set_xticks([0, 0.5, 1], ["first frame", "middle", "last frame"])
        figure.align_ylabels()
        if len(axes[0, 0].get_legend_handles_labels()[0]) > 1:
            _legend(axes[0, 0])
        return figure


def _along(upper: Axes, lower: Axes, points: Points, bins: int, index: int, name: str) -> None:
    place = np.array([p for p, _ in points], np.float64)
    value = np.array([np.nan if v is None else v for _, v in points], np.float64)
    bin_of = np.minimum((place * bins).astype(int), bins - 1)
    groups = [bin_of == b for b in range(bins) if (bin_of == b).any()]
    x = [float(place[group].mean()) for group in groups]
    known = [value[group & ~np.isnan(value)] for group in groups]
    quartiles = np.array([np.percentile(of, [25, 75]) if of.size else (np.nan, np.nan)
                          for of in known]).T
    look: dict[str, Any] = {"color": colour(index), "marker": marker(index), "linewidth": 1.6}
    upper.fill_between(x, *quartiles, color=colour(index), alpha=0.14, linewidth=0)
    upper.plot(x, [float(of.mean()) if of.size else np.nan for of in known], ms=4, label=name,
               **look)
    share = [of.size / group.sum() for of, group in zip(known, groups, strict=True)]
    lower.plot(x, share, ms=3, **look)


def to_svg(figure: Figure, description: str) -> str:
    """Inline SVG: as wide as its container, in the page's colours, with a text alternative."""
    with _saving():
        svg = pages.svg(figure)
    for hexadecimal, variable in _VARIABLES.items():
        svg = svg.replace(hexadecimal, variable)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Ids must not clash with those of the page or of another figure.
    number = int(hashlib.sha256(description.encode()).hexdigest()[:12], 16) % 10**8
    svg = re.sub(r'\bid="', f'id="f{number}-', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>f{number}-", svg)
    for side in ("height", "width"):
        svg = re.sub(rf'(<svg[^>]*?) {side}="[^"]*"', r"\1", svg, count=1)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1)


@contextmanager
def _saving() -> Iterator[None]:
    with style(), warnings.catch_warnings():
        # Text stays text, so it does not matter that matplotlib's own font lacks a glyph.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def style():  # type: ignore[no-untyped-def]
    """A context in which matplotlib draws in this module's look."""
    import matplotlib

    return matplotlib.rc_context(_STYLE)


def blank(size: tuple[float, float], layout: str | None = None) -> Figure:
    """An empty figure made without pyplot, which would need a window system and global state."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout=layout)  # type: ignore[arg-type]
    FigureCanvasSVG(figure)
    return figure


def save(figure: Figure, path: Path, dpi: int = 300) -> None:
    """Write a figure for a paper atomically: .pdf, .svg, .png or .webp, on white, with TrueType
    fonts and no date, so that equal figures are equal files."""
    kind = path.suffix.lower().removeprefix(".")
    maker = "idbench figure"  # by which `check_output` knows it again
    metadata = {
        "pdf": {"CreationDate": None, "Creator": maker}, "svg": {"Date": None, "Creator": maker},
        "png": {"Software": maker},
    }.get(kind)
    # matplotlib takes no metadata for WebP; Pillow does.
    extra: dict[str, Any] = {"pil_kwargs": {"xmp": maker.encode()}} if kind == "webp" else {}
    made = io.BytesIO()  # on a full disk, matplotlib raises errors of its own
    with _saving():
        figure.savefig(made, format=kind, dpi=dpi, facecolor="white", metadata=metadata,
                       bbox_inches="tight", pad_inches=0.03, **extra)
    write_bytes(path, made.getvalue())


def save_as(figure: Figure, output: Path, dpi: int = 300) -> list[Path]:
    """Write a figure in the format of `output`'s ending; without one as PDF and PNG. Raises
    UserError: an unknown ending, or a file that is no figure of idbench."""
    if not output.name:
        check_output(output, "figure")
    if output.suffix.lower() in ENDINGS:
        paths = [output]
    elif output.suffix and output.suffix[1:].isalpha():
        raise UserError(f"{output} ends in {output.suffix}; a figure can be {', '.join(ENDINGS)}.")
    else:
        paths = [output.with_name(output.name + ending) for ending in (".pdf", ".png")]
    for path in paths:
        check_output(path, "figure")
    for path in paths:
        save(figure, path, dpi)
    return paths


def _grid(axes: Axes, which: Literal["both", "x"] = "both") -> None:
    axes.grid(axis=which, color=RULE, linewidth=0.5)
    axes.set_axisbelow(True)


def bar(found: Estimate) -> np.ndarray:
    """Lengths below and above the mean (2, 1), for matplotlib's error bars."""
    if found.interval is None or found.mean is None:
        return np.zeros((2, 1))
    low, high = found.interval
    return np.maximum([[found.mean - low], [high - found.mean]], 0.0)
