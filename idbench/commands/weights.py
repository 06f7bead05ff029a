"""`idbench weights`: list, download, check and locate published weights."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from idbench import downloads
from idbench import published_weights as published
from idbench.commands import options as opt
from idbench.errors import UserError
from idbench.output import echo, echo_json, note, show_table
from idbench.released_files import from_catalogue

_names = click.argument("names", nargs=-1, metavar="NAME...")


@click.group()
def weights() -> None:
    """Published weights of metrics and models: what there is, and what of it is on this machine.

    The weights that come with idbench are in `idbench list weights`.
    """


@weights.command("list", short_help="List what can be downloaded, and what is here.")
@opt.json_option
def list_(as_json: bool) -> None:
    """List the catalogue. The column `here` says what is on this machine, unchecked.

    Files are checked against a published sha256, or against the one that was recorded at their
    first download. What no public source states of an entry is listed below the table.
    """
    rows: list[dict[str, Any]] = []
    for name, entry in published.catalogue().items():
        size = entry.archive.bytes if entry.archive else sum(f.bytes or 0 for f in entry.files)
        here = published.find_folder(name) or all(
            published.find_file(name, file) for file in entry.files) and not entry.folder
        rows.append({
            "name": name, "about": entry.about, "MB": round(size / 1e6) if size else None,
            "licence": entry.licence, "terms": entry.terms, "here": bool(here),
            "source": entry.source or f"{entry.hub}@{entry.revision or 'main'}",
            "sha256": "published" if entry.hashed else "recorded",
            "unconfirmed": entry.unconfirmed,
            "files": [file.model_dump() for file in entry.files],
        })
    if as_json:
        echo_json(rows)
        return
    show_table(
        ([row["name"], "yes" if row["here"] else "", str(row["MB"] or ""), row["sha256"],
          row["about"]] for row in rows),
        "name", "here", "MB", "sha256", "about", one_line=True)
    for row in rows:
        if row["unconfirmed"]:
            note(f"Unconfirmed of {row['name']}: {row['unconfirmed']}.")
    note("sha256 recorded: none is published, so the first download records its own. --json has "
         "licences, sources and files.")


@weights.command(short_help="Download weights and check them.")
@_names
@click.option("--from", "folder", type=click.Path(path_type=Path, file_okay=False, exists=True),
              help="Copy from this folder (FOLDER/NAME/FILE) instead of downloading.")
@click.option("--accept-licence", is_flag=True, help="Accept licences without being asked.")
def get(names: tuple[str, ...], folder: Path | None, accept_licence: bool) -> None:
    """Download the weights NAME..., check their sha256, and print where they are.

    `published` gets all that `--weights published` uses. A download that was cut continues where
    it stopped. IDBENCH_MIRROR=ADDRESS takes files from ADDRESS/NAME/FILE.
    """
    if not names:
        raise UserError("Name the weights to get, such as `idbench weights get published`.")
    wanted = published.chosen(names)
    ask = partial(click.confirm, err=True) if sys.stdin.isatty() else None
    for name in wanted:
        downloads.agree(name, accept_licence, ask, " ".join(names))
    for name in wanted:
        echo(f"{name}: {downloads.get(name, folder)}")


@weights.command(short_help="Check the files on this machine.")
@_names
@opt.json_option
def verify(names: tuple[str, ...], as_json: bool) -> int:
    """Print for each file whether it is published, recorded, unknown, damaged or missing.

    Without NAME, all weights that are on this machine are checked. `recorded`: no sha256 is
    published, and the file is as first downloaded.

    Exit codes: 0 all is well, 1 a file is damaged or, if named, missing.
    """
    found = [state for name in published.chosen(names or list(published.catalogue()))
             for state in published.states(name)]
    if not names:
        found = [state for state in found if state.state != "missing"]
    if as_json:
        echo_json([
            {"file": one.name, "state": one.state, "path": str(one.path) if one.path else None,
             "sha256": one.sha256} for one in found])
    else:
        for one in found:
            echo(f"{one.state:9}  {one.name}" + (f"  {one.path}" if one.path else ""))
        if not found:
            echo("No published weights are on this machine; see `idbench weights list`.")
    return int(any(one.state in ("damaged", "missing") for one in found))


@weights.command(short_help="Print where weights are on this machine.")
@click.argument("name")
def path(name: str) -> None:
    """Print the file of NAME, or its folder if it has several files."""
    if name == published.PUBLISHED:
        raise UserError(f"{name} stands for several weights; name one of `idbench weights list`.")
    (name,) = published.chosen([name])
    echo(str(from_catalogue(name)))
