"""`idbench table`: runs in one table, and apart from them the published rows."""

from __future__ import annotations

from pathlib import Path

import click

from idbench.commands import options as opt
from idbench.errors import UserError

FORMATS = ("md", "csv", "json", "latex", "html")


@click.command(short_help="Print the table of runs, with the published rows beside it.")
@click.argument("run", nargs=-1, type=click.Path(path_type=Path))
@click.option("--compare", metavar="SYSTEM", help="Also print the published rows with this system.")
@click.option(
    "--paper", type=click.IntRange(1, 3), help="Also print this table of the Concat-ID paper."
)
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="md", show_default=True,
    help="csv and json hold the full numbers.",
)
@opt.json_option
def table(
    run: tuple[Path, ...], compare: str | None, paper: int | None, form: str, as_json: bool
) -> None:
    """Print the table of runs; without RUN, of every scored run under runs/.

    Runs of different suites or protocols never stand in one table: named together they are
    refused, found under runs/ they get a table each.
    """
    from idbench.reports import published, tables
    from idbench.runs import Run

    asked = compare is not None or paper is not None
    beside = published.comparison(compare, paper) if asked else []
    form = "json" if as_json else form
    if run:
        groups = [[Run.open(folder) for folder in run]]
    else:
        groups = _groups([Run.open(p.parent) for p in sorted(Path("runs").glob("*/run.json"))])
    if not groups and not beside:
        raise UserError(
            "There is no scored run under runs/; make one with `idbench run --model concat_id "
            "--split multi`, or name a run folder."
        )
    if not groups:
        click.echo("No scored run under runs/: published rows only.", err=True)
        groups = [[]]
    made = [
        # The published rows come once, after the last table.
        tables.measured(group, beside if number == len(groups) else ())
        for number, group in enumerate(groups, 1)
    ]
    if form == "json":
        texts = [tables.render(one, form) for one in made]
        click.echo(texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]")
    else:
        click.echo("\n\n".join(tables.render(one, form) for one in made))


def _groups(runs: list) -> list[list]:
    from idbench.reports import tables

    found: dict[str, list] = {}
    for one in runs:
        if (one.folder / "scores.parquet").is_file():
            found.setdefault(tables.comparability(one), []).append(one)
    return list(found.values())
