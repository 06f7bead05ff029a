"""RUN/scores.parquet as tables. Reading imports no network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from idbench.errors import UserError
from idbench.files import atomic_path
from idbench.records import Row, ScoresFile
from idbench.runs import Run

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow

COLUMNS = {"sample": "string", "metric": "string", "identity": "string", "frame": "Int64",
           "value": "float64", "status": "string", "reason": "string"}
"""Of scores.parquet, with pandas' types."""


OTHERWISE = "the video is missing, and it was scored under another protocol or by other networks"


def collect(run: Run) -> Path:
    """Write scores.parquet (`COLUMNS`) of all scored samples; returns its path. Samples whose
    scores were not measured as run.json says are unscored."""
    import pandas as pd
    import pyarrow
    import pyarrow.parquet

    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for sample in run.sample_ids:
        if rows := _rows(run, sample):
            metrics, identities, frames, values, reasons = zip(*rows, strict=True)
            status = ("scored" if reason is None else "unscored" for reason in reasons)
            of_sample = ([sample] * len(rows), metrics, identities, frames, values, status, reasons)
            for column, part in zip(columns.values(), of_sample, strict=True):
                column.extend(part)
    # Pandas reads its own types from it; to make the table by pandas takes ten times as long.
    empty = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()})
    schema = pyarrow.Schema.from_pandas(empty, preserve_index=False)
    table = pyarrow.table(
        [pyarrow.array(columns[of.name], of.type) for of in schema], schema=schema
    )
    target = run.folder / "scores.parquet"
    with atomic_path(target) as temporary:
        pyarrow.parquet.write_table(table, temporary)
    return target


def _rows(run: Run, sample: str) -> list[Row]:
    path, scoring = run.path(sample, "scores.json"), run.file.scoring
    if not path.is_file():
        return []
    stored = ScoresFile.read(path)
    if stored.key != scoring.sha256:
        return [(metric, None, None, None, OTHERWISE) for metric in scoring.metrics]
    return stored.scores


def long_scores(run: Run) -> pd.DataFrame:
    """All scores, one row a value: `COLUMNS`. Raises UserError: the run has no scores yet, or its
    table of scores is damaged."""
    return _read(run).to_pandas()


def wide_scores(run: Run) -> pd.DataFrame:
    """Values of whole videos: one row per sample, one float64 column per metric, NaN: unscored.
    Raises UserError: the run has no scores yet, or its table of scores is damaged."""
    import pyarrow.compute as pc

    table = _read(run)
    whole = pc.and_(pc.is_null(table["identity"]), pc.is_null(table["frame"]))
    frame = table.select(["sample", "metric", "value"]).filter(whole).to_pandas()
    frame = frame.drop_duplicates(["sample", "metric"])
    wide = frame.pivot(index="sample", columns="metric", values="value").astype("float64")
    wide.columns = [str(name) for name in wide.columns]
    return wide


def _read(run: Run) -> pyarrow.Table:
    """scores.parquet, with the columns and kinds of values that it must have."""
    import pyarrow
    import pyarrow.compute as pc
    import pyarrow.parquet

    path = run.folder / "scores.parquet"
    if not path.is_file():
        raise UserError(
            f"{run.folder} has no scores yet; score it with `idbench score {run.folder}`."
        )
    try:
        table = pyarrow.parquet.read_table(path)
        wanted = {"frame": pyarrow.int64(), "value": pyarrow.float64()}
        table = table.select(list(COLUMNS)).cast(pyarrow.schema([
            table.schema.field(name).with_type(wanted.get(name, pyarrow.string()))
            for name in COLUMNS
        ])).replace_schema_metadata(table.schema.metadata)
        if pc.any(pc.is_inf(table["value"])).as_py():
            raise ValueError("a value is infinite")
        return table
    except (OSError, KeyError, ValueError, pyarrow.ArrowException) as error:
        text = " ".join(str(error).split())[:100]
        raise UserError(
            f"{path} is damaged ({text}); rescore it with `idbench score {run.folder}`."
        ) from error
