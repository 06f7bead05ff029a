"""What every export tells of a run: its settings, flat, and its means with coverage."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from idbench.errors import UserError
from idbench.reports import tables
from idbench.runs import Run
from idbench.score_table import long_scores

Setting = str | int | float | bool


def library(name: str, extra: str) -> Any:
    """The module `name`, which the extra `extra` of idbench installs. Raises UserError: it is not
    installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"This export needs {extra} ({error}); install it with `pip install idbench[{extra}]`."
        ) from error


def settings(run: Run) -> dict[str, Setting]:
    """What was run and how it was scored, by dotted names such as `model.settings.steps`."""
    identity, scoring = run.file.identity, run.file.scoring
    parts = {
        "system": run.name, "split": identity.split, "seed": identity.seed,
        "suite": identity.suite.model_dump(), "model": identity.model.model_dump(),
        "protocol": scoring.protocol, "scoring_weights": scoring.weights,
        "idbench": run.file.packages.get("idbench"),
    }
    return _flat(parts)


def scalars(run: Run) -> dict[str, float]:
    """The table's numbers of a run, as METRIC/mean, interval_low, interval_high and coverage;
    without a value only the coverage. Raises UserError: the run has no scores yet."""
    found: dict[str, float] = {}
    for name, estimate in tables.measured([run]).rows[0].estimates.items():
        values = {
            "mean": estimate.mean, "interval_low": estimate.low, "interval_high": estimate.high,
            "coverage": estimate.coverage,
        }
        found |= {f"{name}/{key}": float(v) for key, v in values.items() if v is not None}
    return found


def reasons(run: Run) -> dict[str, int]:
    """Why videos have no value: reason -> number of values of whole videos, most first."""
    frame = long_scores(run)
    whole = frame[frame["identity"].isna() & frame["frame"].isna() & frame["reason"].notna()]
    return {str(reason): int(count) for reason, count in whole["reason"].value_counts().items()}


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Setting]:
    found: dict[str, Setting] = {}
    for key, value in values.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            found |= _flat(value, f"{name}.")
        elif isinstance(value, list | tuple):
            found[name] = ", ".join(map(str, value))
        elif value is not None:
            found[name] = value if isinstance(value, bool | int | float) else str(value)
    return found
