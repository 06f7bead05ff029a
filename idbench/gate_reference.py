"""Reference files of the gate: the values of one run, small enough to be committed.

    {"schema": 1, "kind": "idbench reference", "idbench": VERSION, "made": TIME, "system": NAME,
     "model": {...}, "suite": {...}, "split": NAME, "seed": N, "scoring": {...},
     "better": {METRIC: true | false | null},
     "columns": ["suite_id", "identities", "category", "prompt_id", "status", METRIC, ...],
     "samples": [[...], ...]}          one line a sample; null: unscored
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from idbench import __version__
from idbench.errors import UserError
from idbench.files import read_json, write_text
from idbench.measurements import ABOUT, Measurement
from idbench.runs import now

SCHEMA = 1
KIND = "idbench reference"
DIGITS = 6
"""Decimals kept of a value: far below any tolerance, and a third of the size."""
LEADING = ("suite_id", "identities", "category", "prompt_id", "status")


def to_json(measured: Measurement) -> dict[str, Any]:
    """`measured` as the JSON value of a reference file."""
    names = measured.metrics
    rows: list[list[Any]] = []
    columns = [measured.values[name].tolist() for name in (*LEADING[1:], *names)]
    for suite_id, *cells in zip(measured.values.index, *columns, strict=True):
        about, values = cells[:len(LEADING) - 1], cells[len(LEADING) - 1:]
        rows.append([
            str(suite_id), list(about[0]), *about[1:],
            *(None if v != v else round(v, DIGITS) for v in values),
        ])
    return {
        "schema": SCHEMA, "kind": KIND, "idbench": measured.idbench or __version__, "made": now(),
        "system": measured.system, "model": dict(measured.model), "suite": dict(measured.suite),
        "split": measured.split, "seed": measured.seed, "scoring": dict(measured.scoring),
        "better": {name: measured.better.get(name) for name in names},
        "columns": [*LEADING, *names], "samples": rows,
    }


def write(path: Path, measured: Measurement) -> None:
    """Write a reference file, atomically, one line a sample.

    Raises:
        UserError: samples are missing in what was measured.
    """
    missing = [sample for sample in measured.planned if sample not in measured.values.index]
    if missing:
        raise UserError(
            f"{measured.source} lacks {len(missing)} of {len(measured.planned)} samples; finish "
            "it before it becomes a reference."
        )
    content = to_json(measured)
    rows = content.pop("samples")
    head = json.dumps(content, indent=1, ensure_ascii=False)
    lines = ",\n  ".join(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
    write_text(path, f'{head[:-2]},\n "samples": [\n  {lines}\n ]\n}}\n')


def read(path: Path) -> Measurement:
    """The measurement in a reference file.

    Raises:
        UserError: no reference file, a damaged one, or one of a newer idbench.
    """
    import pandas as pd

    data = read_json(path)
    if not isinstance(data, dict) or data.get("kind") != KIND:
        raise UserError(
            f"{path} is no reference of idbench; make one with `idbench check RUN --update FILE`."
        )
    schema = data.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise UserError(
            f"{path} was written by a newer idbench (schema {schema}, this one reads up to "
            f"{SCHEMA}); update idbench."
        )
    try:
        frame = pd.DataFrame(data["samples"], columns=data["columns"]).set_index("suite_id")
        frame["identities"] = [tuple(names) for names in frame["identities"]]
        frame.insert(0, "sample", frame.index)
        metrics = [name for name in frame.columns if name not in ABOUT]
        frame = frame.astype({name: "float64" for name in metrics})
        return Measurement(
            system=data["system"], source=str(path), model=data["model"], suite=data["suite"],
            split=data["split"], seed=data["seed"], scoring=data["scoring"],
            better=data["better"], planned=tuple(frame.index), values=frame,
            idbench=data["idbench"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}: {error}); restore it, or make it again "
            "with `idbench check RUN --update FILE`."
        ) from error
