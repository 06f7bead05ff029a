"""`idbench table`: runs in one table, followed by published rows."""

from __future__ import annotations

from pathlib import Path

import click

from idbench.commands import options as opt
from idbench.commands.outcome import print_tables, usual_form
from idbench.errors import UserError
from idbench.names import unknown
from idbench.output import note
from idbench.reports import paper as papers
from idbench.reports import paper_output, published, tables
from idbench.runs import Run
from idbench.score_table import wide_scores

FORMATS = ("terminal", *tables.FORMATS)


@click.command()
@click.argument("run", nargs=-1, type=opt.PATH)
@click.option(
    "--compare", metavar="NAME",
    help="A system or run of the table: show the others' paired differences from it. Or a "
         "published system: also print its published rows.",
)
@click.option(
    "--paper", type=click.IntRange(1, 3),
    help="This table of the Concat-ID paper: its rows measured by the runs, the published ones, "
         "and whether the published orders hold.",
)
@click.option("--format", "form", type=click.Choice(FORMATS),
              help="Default: terminal on a terminal, else md. csv and json have full precision.")
@opt.json_option
def table(
    run: tuple[Path, ...], compare: str | None, paper: int | None, form: str | None, as_json: bool
) -> None:
    """Print the table of runs; without RUN, of all scored runs under runs/.

    Runs of different suites, protocols or versions never share a table: passed together they are
    refused, found under runs/ they get separate tables. A damaged one there is left out.
    """
    form = "json" if as_json else form or usual_form()
    if run:
        groups = [[Run.open(folder) for folder in run]]
    else:
        groups = _groups(sorted(p.parent for p in Path("runs").glob("*/run.json")))
    if paper is not None:
        _show_paper(paper, groups, compare, form)
        return
    beside = _published(groups, compare)
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
    print_tables(made, form)


def _show_paper(paper: int, groups: list[list[Run]], compare: str | None, form: str) -> None:
    """Print a table of the paper. Raises UserError: `compare` is given too."""
    if compare is not None:
        raise UserError("--paper compares as the paper does; leave out --compare, or --paper.")
    if not groups:
        note("No scored run under runs/: published rows only.")
    paper_output.print_tables(papers.build(paper, groups), form)


def _published(groups: list[list[Run]], compare: str | None) -> list[published.PublishedTable]:
    """The published tables with the compared system. Raises UserError: `compare` names neither a
    run nor a published system."""
    runs = [one for group in groups for one in group]
    if compare is None:
        return []
    if compare in published.systems():
        return published.comparison(compare)
    if not any(tables.matching(group, compare) for group in groups):
        raise unknown(
            "run or published system", compare, {*tables.labels(runs), *published.systems()})
    return []


def _groups(folders: list[Path]) -> list[list[Run]]:
    """The scored runs, those of one table together; what cannot be read is left out."""
    groups: list[list[Run]] = []
    for folder in folders:
        try:
            one = Run.open(folder)
            if (folder / "scores.parquet").is_file():
                wide_scores(one)
                group = next((of for of in groups if not tables.unlike(of[0], one)), None)
                if group is None:
                    groups.append([one])
                else:
                    group.append(one)
        except (UserError, OSError) as error:
            note(f"Left out: {error}")
    return groups
