"""Run folders: what one run was asked, with what it was made, and everything it made.

    RUN/run.json                 what was asked, versions, hardware, protocol, weight hashes, times
    RUN/samples/ID/video.mp4     the video
    RUN/samples/ID/sample.json   what was asked and what came out; written last: it is finished
    RUN/samples/ID/scores.json   the scores of this sample, and under which protocol
    RUN/samples/ID/faces.json    boxes and assignment of each sampled frame, for the report
    RUN/references/              the reference images, so that the folder stands alone
    RUN/embeddings/              the embedding cache
    RUN/scores.parquet           all scores, long form
    RUN/errors.log               tracebacks of samples that failed
Every write is atomic. Paths inside the folder are relative to it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from idbench import lock
from idbench.errors import UserError
from idbench.files import (
    atomic_path,
    read_json,
    saying_disk_full,
    sha256_file,
    sha256_json,
    write_json,
)
from idbench.types import Reference, Sample, Video

SCHEMA = 1
"""Version of run.json and sample.json. Older ones stay readable."""


@dataclass(frozen=True)
class Record:
    """One finished sample of a run.

    Attributes:
        sample: what was asked; its id is the run's, its images lie in the run folder.
        suite_id: the suite's part of the id: equal in the runs of different models.
        status: "generated" or "failed".
        reason: why it failed.
        video: the video file (None when failed).
        seconds: time to generate it.
    """

    sample: Sample
    suite_id: str
    status: str
    reason: str | None
    video: Path | None
    video_sha256: str | None
    seconds: float
    shape: tuple[int, ...] | None
    fps: float | None


def sample_id(suite_id: str, model: Mapping[str, Any]) -> str:
    """The id of a run's sample: the suite's part and all of the model that changes the video."""
    part = {k: model.get(k) for k in ("name", "variant", "revision", "settings", "weights")}
    return sha256_json([suite_id, part])[:16]


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Run:
    """A run folder. Opened for reading by anyone, written by the one process that locks it."""

    def __init__(self, folder: Path, meta: dict[str, Any]) -> None:
        self.folder = Path(folder)
        self.meta = meta

    @classmethod
    def open(cls, folder: Path) -> Run:
        """The run in `folder`.

        Raises:
            UserError: no run there, or one of a newer idbench.
        """
        folder = Path(folder)
        if not (folder / "run.json").is_file():
            raise UserError(
                f"{folder} holds no run (no run.json); name a folder that `idbench run` or "
                "`idbench score` made."
            )
        meta = read_json(folder / "run.json")
        schema = meta.get("schema") if isinstance(meta, dict) else None
        if not isinstance(schema, int) or schema > SCHEMA:
            raise UserError(
                f"{folder} was written by a newer idbench (schema {schema}, this one reads up to "
                f"{SCHEMA}); update idbench."
            )
        return cls(folder, meta)

    @property
    def name(self) -> str:
        """The model's name with its variant, as tables show it."""
        model = self.meta["identity"]["model"]
        return f"{model['name']}@{model['variant']}" if model.get("variant") else model["name"]

    @property
    def generates(self) -> bool:
        """Whether a model made the videos here; else they came finished."""
        return self.meta["identity"]["kind"] == "generate"

    @property
    def sample_ids(self) -> list[str]:
        """Ids of all planned samples, in the suite's order."""
        return list(self.meta["samples"].values())

    def save(self, **changes: Any) -> None:
        """Change fields of run.json and write it."""
        self.meta.update(changes, updated=now())
        write_json(self.folder / "run.json", self.meta)

    def path(self, sample: str, name: str = "") -> Path:
        """The folder of a sample, or a file in it."""
        return Path(os.path.join(self.folder, "samples", sample, name))  # thousands of times

    def record(self, sample: str) -> Record | None:
        """The finished sample, or None when it is not finished."""
        data = self.sample_file(sample)
        if data is None:
            return None
        video = self.path(sample, data["video"]) if data["video"] else None
        references = tuple(
            Reference(r["kind"], r["name"], self.folder / r["image"]) for r in data["references"]
        )
        made = Sample(
            id=data["id"], split=data["split"], prompt_id=data["prompt_id"],
            prompt=data["prompt"], category=data["category"], references=references,
            seed=data["seed"], truth=data["truth"],
        )
        shape = tuple(data["shape"]) if data["shape"] else None
        return Record(
            made, data["suite_id"], data["status"], data["reason"], video,
            data["video_sha256"], data["seconds"], shape, data["fps"],
        )

    def sample_file(self, sample: str) -> dict[str, Any] | None:
        """What sample.json of a finished sample holds, or None when it is not finished."""
        folder = os.path.join(self.folder, "samples", sample)
        path = os.path.join(folder, "sample.json")
        try:
            with open(path, "rb") as stream:
                data = json.loads(stream.read())
        except FileNotFoundError:
            return None
        except ValueError:
            data = read_json(Path(path))  # says what is wrong
        if data["video"]:
            # A video removed or cut by hand is not finished any more.
            try:
                if os.stat(os.path.join(folder, data["video"])).st_size != data["video_bytes"]:
                    return None
            except OSError:
                return None
        return data

    def records(self) -> list[Record]:
        """All finished samples, in the suite's order."""
        found = (self.record(sample) for sample in self.sample_ids)
        return [record for record in found if record is not None]

    def localise(self, sample: Sample) -> Sample:
        """`sample` with its reference images copied into the run folder."""
        return replace(
            sample, references=tuple(self._copy(reference) for reference in sample.references)
        )

    def finish(
        self, sample: Sample, suite_id: str, *, video: Path | None, reason: str | None = None,
        seconds: float = 0.0, content: Video | None = None, source: str | None = None,
    ) -> None:
        """Write sample.json: from now on the sample is finished.

        Args:
            video: the written video, inside the sample's folder (None: failed).
            reason: why it failed.
            content: the frames, for their shape and rate.
            source: the user's path of a finished video.
        """
        local = self.localise(sample)
        write_json(self.path(sample.id, "sample.json"), {
            "schema": SCHEMA,
            "id": sample.id,
            "suite_id": suite_id,
            "split": sample.split,
            "prompt_id": sample.prompt_id,
            "prompt": sample.prompt,
            "category": sample.category,
            "references": [
                {
                    "kind": r.kind, "name": r.name,
                    "image": r.image.relative_to(self.folder).as_posix(),
                }
                for r in local.references
            ],
            "seed": sample.seed,
            "truth": dict(sample.truth),
            "status": "failed" if video is None else "generated",
            "reason": reason,
            "video": None if video is None else video.name,
            "video_sha256": None if video is None else sha256_file(video),
            "video_bytes": None if video is None else video.stat().st_size,
            "shape": None if content is None else list(content.frames.shape),
            "fps": None if content is None else content.fps,
            "seconds": round(seconds, 3),
            "notes": [] if content is None else list(content.notes),
            "source": source,
            "finished": now(),
        })

    def log_error(self, sample: str, text: str) -> None:
        """Append a traceback to errors.log."""
        path = self.folder / "errors.log"
        with saying_disk_full(path), open(path, "a", encoding="utf-8") as stream:
            stream.write(f"{now()} sample {sample}\n{text}\n")

    def _copy(self, reference: Reference) -> Reference:
        folder = self.folder / "references"
        if reference.image.parent == folder:
            return reference
        try:
            data = reference.image.read_bytes()
        except OSError as error:
            raise UserError(
                f"The reference image {reference.image} cannot be read ({error.strerror}); check "
                "the path."
            ) from error
        digest = hashlib.sha256(data).hexdigest()[:12]
        path = folder / f"{digest}{reference.image.suffix.lower()}"
        if not path.exists():
            with atomic_path(path) as temporary:
                temporary.write_bytes(data)
        return replace(reference, image=path)


@contextmanager
def locked(folder: Path) -> Iterator[Path]:
    """Hold `folder` for this process alone; makes it, and clears what a killed process left.

    Raises:
        UserError: another process holds it, it is no run folder, or it may not be written.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder with --out.")
    if folder.is_dir() and not (folder / "run.json").exists():
        foreign = [
            p.name for p in folder.iterdir()
            if p.name not in ("samples", "references", "embeddings") and not p.name.startswith(".")
        ]
        if foreign:
            raise UserError(
                f"{folder} holds other files ({foreign[0]}) and no run; name a new or an empty "
                "folder with --out."
            )
    with lock.exclusive(folder):
        for leftover in [*folder.glob(".*.part*"), *folder.glob("*/.*.part*"),
                         *folder.glob("samples/*/.*.part*")]:
            leftover.unlink(missing_ok=True)
        yield folder


def start(
    folder: Path, *, identity: Mapping[str, Any], request: Mapping[str, Any],
    samples: Sequence[tuple[str, str]], command: Sequence[str],
) -> Run:
    """Begin the run in `folder`, or go on with it.

    Args:
        identity: everything that makes it this run: suite, split, seed, model.
        request: what was asked on the command line, to recognise a repeated call cheaply.
        command: the arguments of the command line.
        samples: (suite id, sample id) of every planned sample, in order.

    Raises:
        UserError: the folder holds another run; says in what it differs.
    """
    from idbench import provenance

    if (folder / "run.json").exists():
        run = Run.open(folder)
        difference = first_difference(run.meta["identity"], identity)
        if difference:
            raise UserError(
                f"{folder} holds another run ({difference}); name another folder with --out, or "
                "remove that one."
            )
        # A larger limit adds samples; of finished videos exactly those named now are the run.
        planned = {**(run.meta["samples"] if run.generates else {}), **dict(samples)}
        run.save(samples=planned, request=dict(request), status="running",
                 command=["idbench", *command])
        return run
    run = Run(folder, {
        "schema": SCHEMA,
        "status": "running",
        "command": ["idbench", *command],
        "created": now(),
        "request": dict(request),
        "identity": dict(identity),
        "samples": dict(samples),
        "scoring": None,
        "git": provenance.git_state(),
        "packages": provenance.package_versions(),
        "hardware": provenance.hardware(),
        "timings": {},
        "counts": {},
    })
    run.save()
    return run


def first_difference(old: Any, new: Any, where: str = "") -> str | None:
    """The first difference of two JSON values in words, or None when they are equal."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(k for k in new if k not in old)]:
            found = first_difference(old.get(key), new.get(key), f"{where} {key}".strip())
            if found:
                return found
        return None
    if old == new:
        return None
    return f"its {where} is {_short(old)}, asked for is {_short(new)}"


def copy_video(source: Path, target: Path) -> None:
    """Copy a finished video into a run folder, atomically."""
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}..."
