"""`idbench export`: a run for Hugging Face datasets or TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from idbench.commands import options as opt
from idbench.errors import UserError
from idbench.exporting import hugging_face, tensorboard
from idbench.files import real
from idbench.output import echo, echo_json
from idbench.runs import Run


@click.command()
@click.argument("run", type=opt.PATH)
@click.option(
    "--to", required=True, type=click.Choice(("datasets", "tensorboard")), help="Target tool."
)
@click.option("--out", metavar="FOLDER", type=opt.PATH,
              help="Output folder. Default: exports/TO/NAME.")
@click.option("--step", type=click.IntRange(0, 2**62), default=0,
              help="tensorboard only: step of the values, such as that of a checkpoint.")
@click.option("--frames", type=click.IntRange(min=0, max=64), default=0,
              help="tensorboard only: frames of each video to write as one image; 0: none.")
@click.option("--check", is_flag=True, help="datasets only: check that the export loads, offline.")
@opt.json_option
def export(
    run: Path, to: str, out: Path | None, step: int, frames: int, check: bool, as_json: bool
) -> None:
    """Export the scored RUN to another tool.

    \b
    datasets     parquet and videos, for datasets.load_dataset(FOLDER)
    tensorboard  an event file, for tensorboard --logdir FOLDER

    A missing value stays missing, with its coverage; it is never 0.
    """
    if to == "datasets" and (step or frames):
        raise UserError("--step and --frames are for tensorboard; leave them out.")
    if to != "datasets" and check:
        raise UserError("--check is for datasets; leave it out.")
    opened = Run.open(run)
    target = out or Path("exports", to, real(run).name)
    told: dict[str, Any] = {"run": str(run), "to": to, "out": str(target)}
    if to == "datasets":
        told["rows"] = hugging_face.export(opened, target)
        if check:
            told["loaded"] = hugging_face.check(target)
    else:
        told["file"] = str(tensorboard.export(opened, target, step, frames))
    if as_json:
        echo_json(told)
    elif to == "datasets":
        rows = ", ".join(f"{count} {part}" for part, count in told["rows"].items())
        echo(f"Dataset: {target}: {rows}{'; loads with datasets' if check else ''}")
    else:
        echo(f"TensorBoard: {told['file']}")
