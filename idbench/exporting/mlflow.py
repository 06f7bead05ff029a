"""A run as a run of MLflow: settings as parameters, means with coverage as metrics, files beside.

    idbench export runs/a --to mlflow --out mlruns
    mlflow ui --backend-store-uri sqlite:///mlruns/mlflow.db

The experiment is named after suite, split and protocol, so that what MLflow compares is comparable.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from idbench.exporting.pictures import strips
from idbench.exporting.summary import library, reasons, scalars, settings
from idbench.files import saying_disk_full, write_json, write_text
from idbench.runs import Run

LONGEST = 500
"""Characters of a parameter that every server takes."""


def export(run: Run, target: str, step: int = 0, frames: int = 0) -> str:
    """Log `run` to a tracking folder or server, and return the id of the new MLflow run.

    Args:
        target: a folder (a SQLite file and artifacts in it), or the address of a server.
        step: the step of the metrics, such as that of the checkpoint.
        frames: so many frames of each video as pictures among the artifacts; 0: none.

    Raises:
        UserError: MLflow is not installed, or the run has no scores yet.
    """
    mlflow = library("mlflow", "mlflow")
    numbers = scalars(run)
    client, experiment = _experiment(mlflow, run, target)
    made = client.create_run(
        experiment, run_name=run.name,
        tags={"idbench.run": run.folder.name, "mlflow.source.name": "idbench"},
    ).info.run_id
    try:
        for name, value in settings(run).items():
            client.log_param(made, name, str(value)[:LONGEST])
        for name, value in numbers.items():
            client.log_metric(made, name, value, step=step)
        _files(client, made, run, frames)
    except BaseException:
        client.set_terminated(made, status="FAILED")
        raise
    client.set_terminated(made, status="FINISHED")
    return str(made)


def _experiment(mlflow: Any, run: Run, target: str) -> tuple[Any, str]:
    """A client of `target`, and the id of the experiment there, made where it is new."""
    identity, scoring = run.meta["identity"], run.meta.get("scoring") or {}
    protocol = (scoring.get("protocol") or {}).get("name")
    name = f"idbench {identity['suite']['name']} {identity['split']} {protocol}"
    place = None
    if "://" in target:
        address = target
    else:
        folder = Path(target).resolve()
        with saying_disk_full(folder):
            folder.mkdir(parents=True, exist_ok=True)
        address, place = f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri()
    client = mlflow.MlflowClient(tracking_uri=address)
    found = client.get_experiment_by_name(name)
    if found is not None:
        return client, found.experiment_id
    return client, client.create_experiment(name, artifact_location=place)


def _files(client: Any, made: str, run: Run, frames: int) -> None:
    from PIL import Image

    from idbench.reports import tables

    for name in ("run.json", "scores.parquet", "report.html"):
        if (run.folder / name).is_file():
            client.log_artifact(made, str(run.folder / name))
    with tempfile.TemporaryDirectory() as place:
        write_text(Path(place) / "table.md", tables.render(tables.measured([run]), "md"))
        write_json(Path(place) / "unscored.json", reasons(run))
        for record, picture in strips(run, frames) if frames else ():
            path = Path(place) / "samples" / f"{record.suite_id}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(picture).save(path)
        client.log_artifacts(made, place)
