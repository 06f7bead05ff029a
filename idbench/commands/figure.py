"""`idbench figure`: figures for papers, as PDF, PNG, SVG or WebP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from idbench.commands import options as opt
from idbench.output import echo
from idbench.reports import columns, figures, tables, video_values
from idbench.reports.strip import strip as draw
from idbench.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_common = opt.sharing(
    opt.runs_argument,
    click.option(
        "-o", "--output", type=opt.FILE,
        help="Output file: .pdf, .png, .svg or .webp; without such an ending, PDF and PNG are "
        "written. Default: the figure's name.",
    ),
    click.option(
        "--dpi", type=click.IntRange(40, 1200), default=300,
        help="Pixels per inch, for PNG and WebP.",
    ),
)


@click.group()
def figure() -> None:
    """Draw figures for papers, as PDF and PNG."""


@figure.command(short_help="Identity against editability, with intervals.")
@_common
@click.option("-x", "across", default="arcsim", help="Metric of the x axis.")
@click.option("-y", "up", default="clipdist", help="Metric of the y axis.")
def tradeoff(run: tuple[Path, ...], output: Path | None, dpi: int, across: str, up: str) -> None:
    """One mark per run: the mean of two metrics with 95% intervals, over its videos."""
    runs = _open(run)
    found = video_values.series(runs, tables.measured(runs).rows, across, up)
    titles = {metric: columns.title(metric) for metric in (across, up)}
    _save(figures.tradeoff(found, across, up, titles), output or Path("tradeoff"), dpi)


@figure.command(short_help="References and evenly spaced frames of several systems.")
@_common
@click.option("--samples", type=click.IntRange(1, 50), default=3,
              help="Number of samples, spread evenly over those that all runs have.")
@click.option("--sample", "only", multiple=True, metavar="ID",
              help="Show this sample; give the start of its code in the report. Repeatable.")
@click.option("--frames", type=click.IntRange(1, 16), default=5, help="Frames per video.")
@click.option("--no-prompt", is_flag=True, help="Leave the prompts out.")
def strip(
    run: tuple[Path, ...], output: Path | None, dpi: int, samples: int, only: tuple[str, ...],
    frames: int, no_prompt: bool,
) -> None:
    """For each sample, its references and a row of frames per run.

    Like Figures 4 and 5 of the Concat-ID paper. Runs need not be scored.
    """
    runs = _open(run)
    made = draw(runs, tables.labels(runs), samples=samples, frames=frames, only=only,
                prompts=not no_prompt)
    _save(made, output or Path("strip"), dpi)


@figure.command(short_help="Identity along the videos.")
@_common
@click.option(
    "--metric", "metrics", multiple=True, metavar="NAME",
    help="A per-frame metric, shown in its own panel. Repeatable. Default: arcsim and cursim.",
)
def curves(run: tuple[Path, ...], output: Path | None, dpi: int, metrics: tuple[str, ...]) -> None:
    """The mean over all people of all videos, from the first frame to the last.

    A band shows the middle half of the frames; below is the share of frames scored.
    """
    runs = _open(run)
    tables.check_comparable(runs)
    names = tables.labels(runs)
    panels = {
        columns.title(metric): [(name, video_values.along(one, metric))
                               for name, one in zip(names, runs, strict=True)]
        for metric in metrics or ("arcsim", "cursim")
    }
    _save(figures.over_time(panels, size=(4.2, 3.5)), output or Path("curves"), dpi)


def _open(folders: Sequence[Path]) -> list[Run]:
    return [Run.open(folder) for folder in folders]


def _save(made: Figure, output: Path, dpi: int) -> None:
    for path in figures.save_as(made, output, dpi):
        echo(f"Figure: {path}")
