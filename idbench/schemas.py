"""What the files of idbench hold, as pydantic models, exported as JSON Schema.

`idbench list schemas` names them, docs/schemas/ has them (`python -m idbench.schemas FOLDER` writes
them anew). Fields may be added within a version; nothing is renamed or removed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Value = float | None
"""A value, or null: unscored."""


class _Open(BaseModel):
    """Fields of later versions may stand beside those named here."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class SuiteName(_Open):
    name: str
    version: str
    sha256: str


class ModelName(_Open):
    """What generated the videos: everything that changes them."""

    name: str
    variant: str | None = None
    revision: str | None = None
    settings: dict[str, Any] = {}
    weights: dict[str, str] = Field({}, description="sha256 of each weight file, by file name")


class Identity(_Open):
    """What makes a run this run."""

    suite: SuiteName
    split: str
    seed: int
    model: ModelName


class Scoring(_Open):
    """Under what the values were measured."""

    protocol: dict[str, Any] | None = None
    weights: dict[str, str] | None = Field(None, description="sha256 of each scoring network")
    metric_weights: dict[str, str] | None = Field(
        None, description="sha256 of files that metrics read besides the networks, by file name"
    )
    detector: str | None = None
    metrics: dict[str, str] | None = Field(None, description="package and version of each metric")
    reference_notes: dict[str, str] = Field(
        {}, description="person -> what is to be known of a picture with no face or several"
    )


class RunFile(_Open):
    """RUN/run.json: what one run was asked, with what it was made, and how far it is."""

    schema_: int = Field(alias="schema", ge=1)
    status: Literal["running", "finished", "interrupted"]
    command: list[str] = []
    identity: Identity
    samples: dict[str, str] = Field(description="suite's id -> run's id of every planned sample")
    scoring: Scoring | None = None
    packages: dict[str, str] = {}
    hardware: dict[str, Any] = {}
    timings: dict[str, float] = Field({}, description="seconds of each phase")
    counts: dict[str, int] = {}


class ReferenceImage(_Open):
    kind: Literal["face", "garment", "background"]
    name: str
    image: str = Field(description="path inside the run folder")


class SampleFile(_Open):
    """RUN/samples/ID/sample.json: what was asked, and what came out; written last."""

    id: str
    suite_id: str = Field(description="equal in the runs of different models")
    split: str
    prompt_id: str
    prompt: str
    category: str
    references: list[ReferenceImage]
    seed: int
    status: Literal["generated", "failed"]
    reason: str | None = Field(description="why it failed")
    video: str | None
    video_sha256: str | None
    video_bytes: int | None
    shape: list[int] | None = Field(description="frames, height, width, channels")
    fps: float | None
    seconds: float


class ScoreRow(_Open):
    """A row of RUN/scores.parquet: one value, or the reason why there is none."""

    sample: str
    metric: str
    identity: str | None = Field(description="null: of the whole video")
    frame: int | None = Field(description="null: of the whole video")
    value: Value
    status: Literal["scored", "unscored"]
    reason: str | None


class ReferenceFile(_Open):
    """A reference file of the gate, and `results.json` of a submission."""

    schema_: int = Field(alias="schema", ge=1)
    kind: Literal["idbench reference"]
    idbench: str
    made: str
    system: str
    model: ModelName
    suite: SuiteName
    split: str
    seed: int
    scoring: Scoring
    better: dict[str, bool | None] = Field(description="metric -> whether higher is better")
    columns: list[str]
    samples: list[list[Any]] = Field(description="one row a sample, in the order of `columns`")


class SubmissionFile(_Open):
    """submission.json: the manifest of a submission to a leaderboard."""

    schema_: Literal[1] = Field(alias="schema")
    kind: Literal["idbench submission"]
    name: str = Field(min_length=1, max_length=80, description="as the leaderboard shows it")
    description: str = Field("", max_length=500)
    link: str = Field("", max_length=300, pattern=r"^(https://\S+)?$")
    licence: str = Field("", max_length=80)
    files: dict[str, str] = Field(description="sha256 of every other file, by name")


class VideoRow(_Open):
    """A row of `idbench.load(...).videos`: these columns, then one for each metric."""

    run: str
    system: str
    split: str
    sample: str
    suite_id: str
    identities: str = Field(description="names, joined by +")
    category: str
    prompt_id: str
    prompt: str
    status: Literal["generated", "failed"]
    reason: str | None
    seconds: float


class LongRow(ScoreRow):
    """A row of `idbench.load(...).scores`."""

    run: str
    system: str
    split: str
    suite_id: str


MODELS: dict[str, tuple[int, type[BaseModel]]] = {
    "run": (1, RunFile), "sample": (1, SampleFile), "scores": (1, ScoreRow),
    "reference": (1, ReferenceFile), "submission": (1, SubmissionFile),
    "load-videos": (1, VideoRow), "load-scores": (1, LongRow),
}
"""Name -> version and model."""


def json_schema(name: str) -> dict[str, Any]:
    """The JSON Schema of that name (of `MODELS`), with its version."""
    version, model = MODELS[name]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"idbench-{name}-v{version}", **model.model_json_schema(),
    }


def export(folder: Path) -> list[Path]:
    """Write every schema to `folder`/NAME-vVERSION.json."""
    from idbench.files import write_json

    paths = []
    for name, (version, _) in MODELS.items():
        paths.append(Path(folder) / f"{name}-v{version}.json")
        write_json(paths[-1], json_schema(name))
    return paths


if __name__ == "__main__":
    export(Path(sys.argv[1]))
