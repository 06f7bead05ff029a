"""`idbench study`: a blind human study of pairs of videos."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from idbench.commands import options as opt
from idbench.errors import UserError
from idbench.files import disk_errors, real
from idbench.lock import exclusive
from idbench.output import console, echo, echo_json
from idbench.reports import figures, study_page, study_score, table_output, tables, terminal
from idbench.reports.study_build import build as build_study
from idbench.reports.study_files import Study, check_name
from idbench.reports.study_page import StudyServer
from idbench.runs import Run

_study = click.argument("study", type=opt.PATH)


@click.group()
def study() -> None:
    """Let people compare the videos of two or more runs blind, and score their votes."""


@study.command(short_help="Make a study of two or more runs.")
@opt.runs_argument
@click.option("-o", "--output", type=opt.PATH, default=Path("study"), help="Folder of the study.")
@click.option("--pairs", type=opt.COUNT, default=100, help="Maximum number of pairs per voter.")
@click.option("--ties", is_flag=True, help='Allow "no difference" as an answer.')
@opt.seed_option
def build(run: tuple[Path, ...], output: Path, pairs: int, ties: bool, seed: int) -> None:
    """Make a study in a new folder from the samples that have a video in every RUN."""
    runs = [Run.open(folder) for folder in run]
    with disk_errors(output):
        made = build_study(runs, tables.labels(runs), output, pairs=pairs, seed=seed, ties=ties)
    echo(
        f"Study: {output}: {len(made.pairs)} pairs of {len(made.samples)} samples by "
        f"{len(made.systems)} systems. Vote with: idbench study serve {output}"
    )


@study.command(short_help="Show a study on this machine and collect votes.")
@_study
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default=False,
              help="Default: any free port.")
@click.option("--voter", metavar="NAME", help="Name of the voter. Default: the page asks.")
@click.option("--open", "open_browser", is_flag=True, help="Open the page in the browser.")
def serve(study: Path, port: int, voter: str | None, open_browser: bool) -> None:
    """Show a study on this machine until Ctrl-C; other machines cannot reach it.

    Each answer is saved to STUDY/votes/NAME.json at once. Voters can resume later.
    """
    found = Study.open(study)
    query = f"?voter={check_name(voter)}" if voter else ""
    # Two servers of one study would overwrite each other's votes.
    with exclusive(study / "votes"), StudyServer(found, port) as server:
        echo(f"Vote at {server.address}{query} (Ctrl-C to stop)")
        if open_browser:
            import webbrowser

            webbrowser.open(f"{server.address}{query}")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            echo("Stopped. The votes are saved.")


@study.command(short_help="Write a study as one page for a remote voter.")
@_study
@click.option("--voter", metavar="NAME", required=True, help="The voter of the page.")
@click.option("-o", "--output", type=opt.FILE, help="The page. Default: NAME.html.")
def page(study: Path, voter: str, output: Path | None) -> None:
    """Write one self-contained page that opens from disk, without a server.

    The page stores answers in the browser and offers them as a file for STUDY/votes.
    """
    target = output or Path(f"{voter}.html")
    study_page.write(Study.open(study), voter, target)
    echo(f"Page: {target} ({target.stat().st_size / 1e6:.1f} MB)")


@study.command(short_help="Compute preference rates, agreement and strengths.")
@click.argument("votes", nargs=-1, required=True, type=opt.PATH)
@click.option("--study", "folder", type=opt.PATH,
              help="The study folder, if VOTES are files outside it.")
@click.option(
    "-o", "--output", type=opt.FILE,
    help="Also draw bars to this file (.pdf, .png, .svg, .webp; without an ending, PDF and PNG).",
)
@opt.json_option
def score(votes: tuple[Path, ...], folder: Path | None, output: Path | None, as_json: bool) -> None:
    """Score VOTES: a study folder (all of its votes), or single files."""
    place, files = _files(votes, folder)
    result = study_score.score(Study.open(place), files)
    if as_json:
        echo_json(asdict(result))
    elif sys.stdout.isatty():
        terminal.show_parts(study_score.parts(result), console())
    else:
        echo(table_output.render_parts(study_score.parts(result), "md"))
    if output:
        for path in figures.save_as(study_score.bars(result), output):
            echo(f"Figure: {path}", err=as_json)


def _files(votes: Sequence[Path], folder: Path | None) -> tuple[Path, list[Path]]:
    """The study's folder and the files of votes."""
    files: list[Path] = []
    studies: list[Path] = []
    for path in votes:
        if path.is_dir():
            studies.append(path.parent if path.name == "votes" else path)
            inside = (studies[-1] / "votes").glob("*.json")
            files += sorted(p for p in inside if not p.name.startswith("."))
        else:
            studies.append(real(path).parent.parent)
            files.append(path)
    if folder is None and not votes[0].is_dir() and not (studies[0] / "study.json").is_file():
        raise UserError(f"{votes[0]} is not inside a study; pass its folder with --study.")
    return folder or studies[0], files
