"""Where measurements are read from: run folders, reference files, bundles and submissions.

A reference file of the gate has the values of one run, small enough to be committed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from idbench import __version__, bundles
from idbench.errors import UserError
from idbench.measurements import Measurement, metric_names, of_run
from idbench.names import ABOUT
from idbench.records import Identity, ModelName, ScoringKey, SuiteName
from idbench.runs import Run, now
from idbench.stored import Stored

DIGITS = 6
"""Decimals kept of a value: far below any tolerance, and a third of the size."""
LEADING = ("suite_id", *ABOUT[1:])

_ROW = TypeAdapter(
    tuple[tuple[str, list[str], str, str, Literal["generated", "failed"]], list[float | None]],
    config=ConfigDict(strict=True),
)


class ReferenceFile(Stored):
    """A reference file of the gate, and `results.json` of a submission."""

    FIX: ClassVar[str] = "restore it, or make it again with `idbench check RUN --update FILE`"

    kind: Literal["idbench reference"] = "idbench reference"
    idbench: str
    made: str
    system: str
    model: ModelName
    suite: SuiteName
    split: str
    seed: int
    split_size: int | None = Field(
        None, description="samples of the suite's whole split; null: not known"
    )
    scoring: ScoringKey
    better: dict[str, bool | None] = Field(description="metric -> whether higher is better")
    columns: list[str] = Field(description="suite_id, identities, category, prompt_id, status, "
                                           "then the metrics")
    samples: list[list[str | list[str] | float | None]] = Field(
        description="one row a sample, in the order of `columns`; null: unscored"
    )

    @model_validator(mode="after")
    def _rows_fit(self) -> Self:
        if tuple(self.columns[:len(LEADING)]) != LEADING or (
                len(set(self.columns)) < len(self.columns) or "sample" in self.columns):
            raise ValueError("the columns are not those of a reference")
        for number, row in enumerate(self.samples):
            try:
                _ROW.validate_python((tuple(row[:len(LEADING)]), row[len(LEADING):]))
            except ValidationError as error:
                raise ValueError(f"row {number} of samples: {error.errors()[0]['msg']}") from error
            if len(row) != len(self.columns):
                raise ValueError(f"row {number} of samples has another number of columns")
        if len({row[0] for row in self.samples}) < len(self.samples):  # type: ignore[arg-type]
            raise ValueError("a sample is there twice")
        return self

    @classmethod
    def of(cls, measured: Measurement) -> ReferenceFile:
        """The reference file of what was measured."""
        names, identity = measured.metrics, measured.identity
        rows = [
            [suite_id, list(people), category, prompt_id, status,
             *(None if v != v else round(v, DIGITS) for v in values)]
            for suite_id, people, category, prompt_id, status, *values in
            measured.values[[*LEADING[1:], *names]].itertuples(name=None)
        ]
        return cls(
            idbench=measured.idbench or __version__, made=now(), system=measured.system,
            model=identity.model, suite=identity.suite, split=identity.split, seed=identity.seed,
            scoring=measured.scoring, better={name: measured.better.get(name) for name in names},
            split_size=measured.split_size, columns=[*LEADING, *names], samples=rows,
        )

    def measurement(self, source: str) -> Measurement:
        """What was measured; `source` says where it was read."""
        import pandas as pd

        frame = pd.DataFrame(self.samples, columns=self.columns).set_index("suite_id")
        frame["identities"] = [tuple(names) for names in frame["identities"]]
        frame.insert(0, "sample", frame.index)
        identity = Identity(
            model=self.model, suite=self.suite, split=self.split, seed=self.seed)
        return Measurement(
            system=self.system, source=source, identity=identity, scoring=self.scoring,
            better=self.better, planned=tuple(frame.index), idbench=self.idbench,
            values=frame.astype(dict.fromkeys(metric_names(frame), "float64")),
            split_size=self.split_size,
        )

    def json_text(self) -> str:
        """One line a sample, so that a change is readable in a diff."""
        content = self.model_dump()
        rows = content.pop("samples")
        head = json.dumps(content, indent=1, ensure_ascii=False)
        lines = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in rows)
        return f'{head[:-2]},\n "samples": [\n  {lines}\n ]\n}}\n'


def read(path: Path) -> Measurement:
    """What was measured, of a run folder, a reference file, cached embeddings, or a submission.
    Raises UserError: there is nothing of the kind, or it is damaged or of a newer idbench."""
    path = Path(path)
    if path.is_dir() and not (path / "run.json").is_file():
        files = [path / name for name in ("results.json", "reference.json")]
        path = next((file for file in files if file.is_file()), path)
    if not path.is_file():
        return of_run(Run.open(path))
    if path.suffix == ".zip":
        return bundles.read(path)
    return ReferenceFile.read(path).measurement(str(path))


def write_reference(path: Path, measured: Measurement) -> None:
    """Write a reference file, atomically. Raises UserError: samples are missing in what was
    measured."""
    if measured.missing:
        raise UserError(
            f"{measured.source} lacks {len(measured.missing)} of {len(measured.planned)} samples; "
            "finish the run first."
        )
    ReferenceFile.of(measured).write(path)
