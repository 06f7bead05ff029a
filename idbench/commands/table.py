"""`idbench table`: runs in one table, followed by published rows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from idbench.commands import options as opt
from idbench.errors import UserError
from idbench.names import unknown
from idbench.output import echo, note
from idbench.reports import published, tables
from idbench.runs import Run

if TYPE_CHECKING:
    from idbench.reports.published import PublishedTable
    from idbench.runs import Run

FORMATS = ("terminal", "md", "csv", "json", "latex", "html")


@click.command(short_help="Print the table of runs, with published results.")
@click.argument("run", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--compare", metavar="NAME",
    help="A system or run of the table: show the others' paired differences from it. Or a "
         "published system: also print its published rows.",
)
@click.option(
    "--paper", type=click.IntRange(1, 3), help="Also print this table of the Concat-ID paper."
)
@click.option(
    "--format", "form", type=click.Choice(FORMATS),
    help="Default: terminal on a terminal, else md. csv and json have full precision.",
)
@opt.json_option
def table(
    run: tuple[Path, ...], compare: str | None, paper: int | None, form: str | None, as_json: bool
) -> None:
    """Print the table of runs; without RUN, of all scored runs under runs/.

    Runs of different suites, protocols or versions never share a table: passed together they are
    refused, found under runs/ they get separate tables.
    """
    form = "json" if as_json else form or ("terminal" if sys.stdout.isatty() else "md")
    if run:
        groups = [[Run.open(folder) for folder in run]]
    else:
        groups = _groups([Run.open(p.parent) for p in sorted(Path("runs").glob("*/run.json"))])
    beside = _published(groups, compare, paper)
    if not groups and not beside:
        raise UserError(
            "There is no scored run under runs/; make one with `idbench run --model concat_id "
            "--split multi`, or pass a run folder."
        )
    if not groups:
        note("No scored run under runs/: published rows only.")
        groups = [[]]
    made = []
    for number, group in enumerate(groups, 1):
        # The published rows come once, after the last table.
        rows = beside if number == len(groups) else ()
        found = compare is not None and tables.matching(group, compare)
        made.append(tables.measured(group, rows, compare if found else None))
    if form == "terminal":
        from rich.console import Console

        from idbench.reports import table_output

        for one in made:
            table_output.show(one, Console(highlight=False))
        return
    texts = [tables.render(one, form) for one in made]
    if form == "json":
        echo(texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]")
    else:
        echo("\n\n".join(texts))


def _published(
    groups: list[list[Run]], compare: str | None, paper: int | None
) -> list[PublishedTable]:
    """The published tables to print: those with the compared system, those of the paper's table.

    Raises:
        UserError: `compare` names neither a run nor a published system.
    """
    runs = [one for group in groups for one in group]
    if compare is None or compare in published.systems():
        asked = compare is not None or paper is not None
        return published.comparison(compare, paper) if asked else []
    if not any(tables.matching(group, compare) for group in groups):
        raise unknown(
            "run or published system", compare, {*tables.labels(runs), *published.systems()})
    return published.comparison(None, paper) if paper is not None else []


def _groups(runs: list[Run]) -> list[list[Run]]:
    found: dict[str, list[Run]] = {}
    for one in runs:
        if (one.folder / "scores.parquet").is_file():
            found.setdefault(tables.comparability(one), []).append(one)
    return list(found.values())
