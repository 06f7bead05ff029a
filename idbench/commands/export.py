"""`idbench export`: a run for Hugging Face datasets, TensorBoard or MLflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from idbench.commands import options as opt
from idbench.errors import UserError

TARGETS = ("datasets", "tensorboard", "mlflow")


@click.command(short_help="Write a run for Hugging Face datasets, TensorBoard or MLflow.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--to", required=True, type=click.Choice(TARGETS), help="For which tool.")
@click.option(
    "--out", metavar="FOLDER",
    help="Where to write; of mlflow also the address of a server. Default: exports/TO/NAME, with "
         "mlflow exports/mlflow for all runs.",
)
@click.option(
    "--step", type=click.IntRange(min=0), default=0, show_default=True,
    help="Of tensorboard and mlflow: the step of the values, such as that of a checkpoint.",
)
@click.option(
    "--frames", type=click.IntRange(min=0, max=64), default=0, show_default=True,
    help="Of tensorboard and mlflow: so many frames of each video as a picture; 0: none.",
)
@click.option("--check", is_flag=True, help="Of datasets: load what was written, offline.")
@opt.json_option
def export(
    run: Path, to: str, out: str | None, step: int, frames: int, check: bool, as_json: bool
) -> None:
    """Write the scored RUN for another tool.

    \b
    datasets     parquet and videos, for datasets.load_dataset(FOLDER)
    tensorboard  an event file, for tensorboard --logdir FOLDER
    mlflow       parameters, metrics and files in a tracking folder or server

    A value that is missing is missing there too, with its coverage beside, and never 0.
    """
    from idbench.runs import Run

    if to == "datasets" and (step or frames):
        raise UserError("--step and --frames are for tensorboard and mlflow; leave them out.")
    if to != "datasets" and check:
        raise UserError("--check is for datasets; leave it out.")
    opened = Run.open(run)
    name = run.resolve().name
    target = out or str(Path("exports", to, *([] if to == "mlflow" else [name])))
    told: dict[str, Any] = {"run": str(run), "to": to, "out": target}
    if to == "datasets":
        from idbench.exporting import hugging_face

        told["rows"] = hugging_face.export(opened, Path(target))
        if check:
            told["loaded"] = hugging_face.check(Path(target))
    elif to == "tensorboard":
        from idbench.exporting import tensorboard

        told["file"] = str(tensorboard.export(opened, Path(target), step, frames))
    else:
        from idbench.exporting import mlflow

        told["mlflow_run"] = mlflow.export(opened, target, step, frames)
    click.echo(json.dumps(told, indent=2) if as_json else _words(told))


def _words(told: dict[str, Any]) -> str:
    if told["to"] == "datasets":
        rows = ", ".join(f"{count} {part}" for part, count in told["rows"].items())
        loaded = "; loads with datasets" if "loaded" in told else ""
        return f"Dataset: {told['out']}: {rows}{loaded}"
    if told["to"] == "tensorboard":
        return f"TensorBoard: {told['file']}"
    return f"MLflow: run {told['mlflow_run']} in {told['out']}"
