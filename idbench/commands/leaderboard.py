"""`idbench leaderboard`: rank runs and submissions; pack and validate submissions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from idbench import submissions
from idbench.commands import options as opt
from idbench.errors import UserError
from idbench.files import check_output, write_json, write_text
from idbench.output import echo, echo_json, show_table
from idbench.reports import columns, ranking


@click.command()
@click.argument("entries", nargs=-1, required=True, type=opt.PATH)
@click.option("-o", "--output", type=opt.FILE,
              help="The page; the data is also written as .json. Default: leaderboard.html.")
@click.option("--metric", default="arcsim", help="Rank by this metric.")
@click.option("--title", default="idbench leaderboard", help="Page title.")
@click.option("--pack", metavar="FOLDER", type=opt.FOLDER,
              help="Make a submission from one run; --set name=..., description, link and licence.")
@click.option("--validate", is_flag=True, help="Only check whether each entry is valid.")
@opt.sharing(
    opt.settings_option("For --pack: what describes the system, such as \"name=My model\"."),
    opt.json_option,
)
def leaderboard(
    entries: tuple[Path, ...], output: Path | None, metric: str, title: str, pack: Path | None,
    validate: bool, settings: tuple[str, ...], as_json: bool,
) -> int:
    """Rank ENTRIES: run folders, reference files, and submissions.

    \b
    idbench leaderboard runs/a runs/b submissions/* -o leaderboard.html
    idbench leaderboard runs/a --pack submissions/a --set "name=My model"
    idbench leaderboard submissions/* --validate

    Only systems with every sample of the split are ranked; the others stand below, with their
    share. Exit code of --validate: 0 if all are valid and whole, else 1.
    """
    if pack:
        if len(entries) != 1:
            raise UserError("Pass exactly one run to pack: idbench leaderboard RUN --pack FOLDER.")
        folder = submissions.pack(entries[0], pack, opt.parse_settings(settings))
        submissions.entry(folder)
        if as_json:
            echo_json({"submission": str(folder)})
        else:
            echo(f"Submission: {folder}")
        return 0
    if settings:
        raise UserError("--set describes a submission; it needs --pack FOLDER.")
    if validate:
        return _validate(entries, as_json)
    target = output or Path("leaderboard.html")
    check_output(target, "leaderboard")
    data = target.with_suffix(".json")
    if data == target:
        raise UserError(f"{target} is the page; its data goes to .json, so end it in .html.")
    check_output(data, "leaderboard's data")
    board = ranking.build([submissions.entry(path) for path in entries], metric)
    write_text(target, ranking.page(board, title))
    write_json(data, board)
    if as_json:
        echo_json(board)
    else:
        for one in board["boards"]:
            echo(f"{one['suite']} {one['split']}, protocol {one['protocol']}:")
            show_table(_ranks(one, metric), "system", "rank", columns.title(metric),
                       "95% interval", "samples")
        echo(f"Leaderboard: {target} and {data}")
    return 0


def _ranks(board: dict[str, Any], metric: str) -> list[list[str]]:
    """A line for each system: name, rank, mean, interval, and how much of the split it has."""
    lines = []
    for row in board["rows"]:
        found = row["metrics"].get(metric, {})
        mean, low, high = (found.get(key) for key in ("mean", "low", "high"))
        share = row["share"]
        whole = share["measured"] >= share["of"]
        lines.append([
            row["name"], "not ranked" if row["rank"] is None else str(row["rank"]),
            "unscored" if mean is None else f"{mean:.3f}",
            "" if low is None or high is None else f"[{low:.3f}, {high:.3f}]",
            str(share["measured"]) if whole else f"{share['measured']} of {share['of']}",
        ])
    return lines


def _validate(paths: tuple[Path, ...], as_json: bool) -> int:
    rows = []
    for path in paths:
        try:
            entry = submissions.entry(path)
            submissions.check_whole(entry.measured)
            name, problem = entry.name, None
        except UserError as error:
            name, problem = None, str(error)
        rows.append({"entry": str(path), "name": name, "problem": problem})
    if as_json:
        echo_json(rows)
    else:
        for row in rows:
            told = f"FAIL  {row['problem']}" if row["problem"] else f"ok    {row['name']}"
            echo(f"{row['entry']}: {told}")
    return 1 if any(row["problem"] for row in rows) else 0
