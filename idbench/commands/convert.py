"""`idbench convert`: released Concat-ID checkpoints to model folders and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from idbench.commands import options as opt
from idbench.output import echo, echo_json
from idbench.released_files import local

if TYPE_CHECKING:
    from idbench.models.concat_id.released_checkpoints import Report

SHOWN = 20


@click.command()
@click.argument("source", type=opt.PATH)
@click.argument("target", type=opt.PATH)
@click.option(
    "--to", type=click.Choice(["sat", "diffusers", "wan"]),
    help="Layout of TARGET. Default: diffusers for a released checkpoint, else its released "
         "layout.",
)
@click.option("--base", type=opt.PATH,
              help="Folder of CogVideoX-5B or Wan2.1-T2V-1.3B in diffusers' layout; provides the "
                   "autoencoder, text encoder and tokenizer.")
@opt.json_option
def convert(source: Path, target: Path, to: str | None, base: Path | None, as_json: bool) -> None:
    """Convert the checkpoint SOURCE to TARGET.

    SOURCE is a released checkpoint (CogVideoX form in SAT's layout, Wan forms in theirs; file or
    folder) or a model folder in diffusers' layout. Every tensor is mapped or listed as refused.
    TARGET is written completely or not at all. SOURCE and --base may be names of `idbench weights
    list`: `idbench convert concat-id/single-identity ours --base cogvideox-5b`.
    """
    from idbench.models.concat_id.released_checkpoints import convert as run

    report = run(local(source), target, to, None if base is None else local(base))
    if as_json:
        echo_json(report.as_json())
    else:
        _print(report, target)


def _print(report: Report, target: Path) -> None:
    echo(f"{report.form} form, {report.from_} to {report.to}: {report.mapped} tensors mapped")
    for title, names in (("kept aside", report.aside), ("refused", report.refused)):
        for name in sorted(names)[:SHOWN]:
            echo(f"{title}: {name} ({names[name]})")
        if len(names) > SHOWN:
            rest = "conversion.json" if target.is_dir() else "--json"
            echo(f"{title}: {len(names) - SHOWN} more, all in {rest}")
    echo(f"written: {target}")
