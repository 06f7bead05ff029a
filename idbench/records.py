"""The files of a run folder: each model here is both what is in memory and what is on disk.

    RUN/run.json                 RunFile
    RUN/samples/ID/sample.json   SampleFile, written last: the sample is finished
    RUN/samples/ID/scores.json   ScoresFile
    RUN/samples/ID/faces.json    FacesFile

Fields may be added within a schema version; nothing is renamed or removed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Len
from pydantic import Field, PrivateAttr, model_validator

from idbench.errors import explained
from idbench.stored import InsidePath, JsonObject, Part, PlainName, Stored
from idbench.types import Model, Reference, Sample, Score


class SuiteName(Part):
    """The suite, or the manifest, that the samples come from."""

    name: str
    version: str
    sha256: str


class ModelName(Part):
    """What generated the videos: everything that changes them."""

    name: str
    variant: str | None = None
    revision: str | None = None
    settings: JsonObject = {}
    weights: dict[str, str] = Field({}, description="sha256 of each weight file, by file name")

    @classmethod
    def of(cls, model: Model) -> ModelName:
        """The model as it describes itself. Raises UserError: it does not, or not in values that
        JSON has."""
        with explained(
            f"The model {getattr(model, 'name', type(model).__name__)} describes itself in values "
            "that cannot be stored", "its settings have to be plain JSON values",
        ):
            return cls.model_validate(json.loads(json.dumps({
                "name": model.name, "variant": getattr(model, "variant", None),
                "revision": model.revision, "settings": dict(model.settings()),
                "weights": dict(model.weight_hashes()),
            }, default=str)))

    @property
    def title(self) -> str:
        """NAME or NAME@VARIANT, as in tables and on the command line."""
        return f"{self.name}@{self.variant}" if self.variant else self.name


class Identity(Part):
    """What identifies a run; none of it may change once the run has started."""

    kind: Literal["generate", "videos"] = Field(
        "generate", description="videos: existing videos were scored"
    )
    suite: SuiteName
    split: str
    seed: int
    seeds: list[int] = Field([], description="where there are several; `seed` is the first")
    model: ModelName

    @property
    def folder_name(self) -> str:
        """Name of the default run folder."""
        seeds = self.seeds or [self.seed]
        seed = f"-seed{'+'.join(map(str, seeds))}" if seeds != [0] else ""
        return f"{self.model.title}-{self.suite.name}-{self.split}{seed}"


class ScoringKey(Part):
    """Everything that has to be equal for values to be comparable."""

    protocol: JsonObject = {}
    weights: dict[str, str] = Field({}, description="sha256 of each scoring network")
    metric_weights: dict[str, str] = Field(
        {}, description="sha256 of other files that metrics read, by file name"
    )
    detector: str | None = None
    opencv: str | None = Field(
        None, description="version of OpenCV, which aligns faces; null: not known"
    )
    metrics: dict[str, str] = Field({}, description="package and version of each metric")

    @model_validator(mode="before")
    @classmethod
    def _migrate(cls, value: Any) -> Any:
        # What was not known was once null, as in submissions that were packed then.
        if isinstance(value, Mapping):
            value = {k: v for k, v in value.items() if v is not None}
        return value

    @property
    def protocol_name(self) -> str | None:
        """The protocol's name; None before anything was scored."""
        name = self.protocol.get("name")
        return None if name is None else str(name)


class ScoringRecord(ScoringKey):
    """What the values of a run were measured with."""

    sha256: str | None = Field(None, description="of everything that affects a score")
    weight_files: dict[str, str] = Field({}, description="sha256 of every file read, by name")
    sources: dict[str, str] = Field({}, description="source of the user's networks")
    notes: list[str] = []
    providers: dict[str, list[str]] = Field({}, description="of onnxruntime, by network")
    reference_notes: dict[str, str] = Field(
        {}, description="person -> note on an image with no face or several"
    )
    prompts_cut: dict[str, float] = Field(
        {}, description="prompt id -> share that ViCLIP reads, of prompts longer than its context"
    )
    devices: list[str] = Field([], description="where networks ran, such as cpu or cuda:0")

    @property
    def key(self) -> ScoringKey:
        """The part that has to be equal for values to be comparable."""
        return ScoringKey(**{name: getattr(self, name) for name in ScoringKey.model_fields})


class Git(Part):
    """The checkout that idbench ran from."""

    revision: str | None = None
    dirty: bool | None = None


class Counts(Part):
    """Samples: planned = generated + failed + not done yet."""

    planned: int | None = None
    generated: int | None = None
    failed: int | None = None


class RunFile(Stored):
    """RUN/run.json: the request, how it was made, and its progress."""

    FIX: ClassVar[str] = "restore the file, or remove its folder and run again"

    status: Literal["running", "finished", "interrupted"]
    command: list[str] = []
    created: str | None = None
    updated: str | None = None
    identity: Identity
    samples: dict[str, PlainName] = Field(
        description="id in the suite -> id in the run, of every sample"
    )
    split_size: int | None = Field(
        None, description="samples of the whole split, of one seed, told apart by identities and "
                          "prompt; null: not known, or videos of no suite"
    )
    scoring: ScoringRecord = ScoringRecord()
    git: Git = Git()
    packages: dict[str, str] = {}
    hardware: JsonObject = {}
    engine: JsonObject = Field({}, description="name, device and workers of the last start")
    timings: dict[str, float] = Field({}, description="seconds of each phase")
    counts: Counts = Counts()
    peak_memory_gb: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _migrate(cls, value: Any) -> Any:
        # `request`, of schema 1's first runs, is no longer needed.
        if isinstance(value, Mapping):
            value = {k: v for k, v in value.items() if k != "request"}
        return value


class ReferenceImage(Part):
    kind: Literal["face", "garment", "background"]
    name: str
    image: InsidePath = Field(description="path inside the run folder")
    more: list[InsidePath] = Field([], description="further photographs of the same person")

    @property
    def images(self) -> tuple[str, ...]:
        """Every photograph's path inside the run folder."""
        return (self.image, *self.more)


class SampleFile(Stored):
    """RUN/samples/ID/sample.json: the request and its outcome."""

    id: str
    suite_id: str = Field(description="equal in the runs of different models")
    split: str
    prompt_id: str
    prompt: str
    category: str
    references: list[ReferenceImage]
    seed: int
    truth: JsonObject = {}
    status: Literal["generated", "failed"]
    reason: str | None = Field(description="why it failed")
    video_name: PlainName | None = Field(alias="video", description="in the sample's folder")
    video_sha256: str | None
    video_bytes: int | None
    shape: tuple[int, ...] | None = Field(description="frames, height, width, channels")
    fps: float | None
    seconds: float = Field(description="generation time")
    notes: list[str] = Field([], description="deviations from the request")
    source: str | None = Field(None, description="the user's path of a finished video")
    finished: str | None = None

    _run: Path = PrivateAttr(Path())

    @classmethod
    def of(cls, sample: Sample, run: Path, **outcome: Any) -> SampleFile:
        """The record of `sample`, whose references are in the run folder `run`."""
        return cls(
            id=sample.id, suite_id=sample.suite_id, split=sample.split,
            prompt_id=sample.prompt_id, prompt=sample.prompt, category=sample.category,
            references=[
                ReferenceImage.model_validate({
                    "kind": r.kind, "name": r.name, "image": r.image.relative_to(run).as_posix(),
                    "more": [path.relative_to(run).as_posix() for path in r.more],
                })
                for r in sample.references
            ],
            seed=sample.seed, truth=dict(sample.truth), **outcome,
        )

    @cached_property
    def sample(self) -> Sample:
        """The request; its images are in the run folder."""
        return Sample(
            id=self.id, suite_id=self.suite_id, split=self.split, prompt_id=self.prompt_id,
            prompt=self.prompt, category=self.category, seed=self.seed, truth=self.truth,
            references=tuple(
                Reference(r.kind, r.name, self._run / r.image, tuple(self._run / m for m in r.more))
                for r in self.references
            ),
        )

    @property
    def identities(self) -> tuple[str, ...]:
        """Names of the people, in the order of the references."""
        return tuple(r.name for r in self.references if r.kind == "face")

    @property
    def video(self) -> Path | None:
        """The video file (None: failed)."""
        name = self.video_name
        return None if name is None else self._run / "samples" / self.id / name


Row = tuple[str, str | None, int | None, float | None, str | None]
"""metric, identity, frame, value, reason: as in `idbench.types.Score`."""


class ScoresFile(Stored):
    """RUN/samples/ID/scores.json: the scores of one sample."""

    INDENT: ClassVar[int | None] = None

    key: str = Field(description="sha256 of everything except the video that affects a score")
    video_sha256: str | None
    failed: bool = Field(False, description="scoring failed and will be retried")
    scores: list[Row]

    @classmethod
    def of(cls, scores: list[Score], **about: Any) -> ScoresFile:
        """The file of one sample's scores."""
        rows = [(s.metric, s.identity, s.frame, s.value, s.reason) for s in scores]
        return cls(scores=rows, **about)

Box = Annotated[list[float], Len(4, 4)]
Point = Annotated[list[float], Len(2, 2)]


class FrameFaces(Part):
    """The faces found in one sampled frame."""

    frame: int
    boxes: list[Box] = Field(description="left, top, right, bottom, in pixels of the frame")
    landmarks: list[list[Point]]
    assignment: dict[str, int] = Field(description="identity -> index of its face")
    retried: bool = False


class FacesFile(Stored):
    """RUN/samples/ID/faces.json: boxes and matching, for the report."""

    INDENT: ClassVar[int | None] = None

    frames: list[FrameFaces] = []

    @model_validator(mode="before")
    @classmethod
    def _migrate(cls, value: Any) -> Any:
        return {"frames": value} if isinstance(value, list) else value  # as first written

class ScoreRow(Part):
    """A row of RUN/scores.parquet: one value, or the reason why there is none."""

    sample: str
    metric: str
    identity: str | None = Field(description="null: the whole video")
    frame: int | None = Field(description="null: the whole video")
    value: float | None
    status: Literal["scored", "unscored"]
    reason: str | None
