"""`idbench report`: one HTML page with videos, references and scores."""

from __future__ import annotations

from pathlib import Path

import click

from idbench.commands import options as opt
from idbench.files import disk_errors, real
from idbench.output import echo
from idbench.reports import report_page, tables
from idbench.runs import Run


@click.command()
@opt.runs_argument
@click.option("-o", "--output", type=opt.FILE,
              help="The page. Default: report.html in the (first) run folder.")
@click.option(
    "--videos", type=click.Choice(("auto", "embed", "link")), default="auto",
    help="Embed the videos in the page, or link to them; auto: embed if together they are under "
    "11 MB.",
)
def report(run: tuple[Path, ...], output: Path | None, videos: str) -> None:
    """Build the HTML report of one or more runs and print its path."""
    runs = [Run.open(folder) for folder in run]
    tables.check_comparable(runs)
    target = output or runs[0].folder / "report.html"
    with disk_errors(target):
        embed = {"auto": None, "embed": True, "link": False}[videos]
        report_page.build_report([one.folder for one in runs], target, embed)
    echo(f"Report: {real(target)}")
