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
Every write is atomic. Paths inside the folder are relative to it. `idbench.records` has the files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from idbench import lock, provenance
from idbench.errors import UserError
from idbench.files import DiskError, disk_errors, sha256_file, sha256_json, write_bytes
from idbench.records import Counts, ModelName, RunFile, SampleFile
from idbench.timings import Timings
from idbench.types import Sample, Video

T = TypeVar("T")


def sample_id(suite_id: str, model: ModelName) -> str:
    """The id of a run's sample: the suite's part and all of the model that changes the video."""
    part = {k: getattr(model, k) for k in ("name", "variant", "revision", "settings", "weights")}
    return sha256_json([suite_id, part])[:16]


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Shard:
    """A part of a run for one of several processes, `--shard I/N`: items `index`, `index + count`,
    `index + 2 count`, ... of a list."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str | None) -> Shard | None:
        """The shard of "I/N", I from 0 to N - 1; None of None. Raises UserError: anything else."""
        if text is None:
            return None
        index, _, count = text.partition("/")
        if all(part.isascii() and part.isdigit() and len(part) < 7 for part in (index, count)):
            shard = cls(int(index), int(count))
            if shard.index < shard.count:
                return shard
        raise UserError(
            f"--shard {text[:40]} must be I/N with I from 0 to N - 1, such as 0/4 for the first "
            "of four."
        )

    @property
    def name(self) -> str:
        """As in the names of its locks."""
        return f"shard-{self.index}-of-{self.count}"

    def of(self, items: Sequence[T]) -> list[T]:
        """The shard's items."""
        return list(items[self.index :: self.count])


class Run:
    """A run folder. Anyone may read it; the process that holds it (`holding.begin`) writes it.

    Attributes:
        timings: seconds of each phase, including earlier starts.
        damaged: sample id -> what is wrong with its sample.json, of the records read so far.
        logged: texts for errors.log, returned instead of written (None: written).
        shard: the part that this process holds (None: all of it).
    """

    def __init__(self, folder: Path, file: RunFile) -> None:
        self.folder, self.file = Path(folder), file
        self.shard: Shard | None = None
        self.timings = Timings(file.timings)
        self.damaged: dict[str, str] = {}
        self.logged: list[str] | None = None
        self._place: tuple[int, int] | None = None

    @classmethod
    def open(cls, folder: Path) -> Run:
        """The run in `folder`. Raises UserError: no run there, a damaged one, or one of a newer
        idbench."""
        path = Path(folder) / "run.json"
        if not Path(folder).exists():
            raise UserError(f"{folder} contains no run: there is no such path; check it.")
        if not path.is_file():
            raise UserError(
                f"{folder} contains no run (no run.json); pass a folder written by `idbench run` "
                "or `idbench score`."
            )
        return cls(Path(folder), RunFile.read(path))

    @property
    def name(self) -> str:
        """The model's name with its variant, as tables show it."""
        return self.file.identity.model.title

    @property
    def split(self) -> str:
        """The split of the suite."""
        return self.file.identity.split

    @property
    def generates(self) -> bool:
        """Whether a model made the videos here; else they came finished."""
        return self.file.identity.kind == "generate"

    @property
    def sample_ids(self) -> list[str]:
        """Ids of all planned samples, in the suite's order."""
        return list(self.file.samples.values())

    def save(self, **changes: Any) -> None:
        """Change fields of run.json and write it; of what other shards wrote, all else stays."""
        if self._place:
            self.check_there()
        with self.changing():
            self.reread()
            times = self.timings.as_dict()
            for name, value in {**changes, "timings": times, "updated": now()}.items():
                setattr(self.file, name, value)
            self.file.write(self.folder / "run.json")

    def reread(self) -> RunFile:
        """`file`, with what other shards wrote meanwhile."""
        if self.shard:
            before, self.file = self.file, RunFile.read(self.folder / "run.json")
            self.timings.rebase(before.timings, self.file.timings)
        return self.file

    def changing(self) -> AbstractContextManager[None]:
        """While it lasts, no other shard changes what they share."""
        return lock.briefly(self.folder) if self.shard else nullcontext()

    def check_there(self) -> None:
        """Raise DiskError if the folder is gone or another one, such as after a network drive was
        unmounted."""
        try:
            found = os.stat(self.folder)
            place = found.st_dev, found.st_ino
            there = os.path.exists(self.folder / "run.json")
        except OSError:
            place, there = (0, 0), False
        self._place = self._place or place
        if not there or place != self._place:
            raise DiskError(
                f"The run folder {self.folder} is not there any more; check its disk or network "
                "folder and run the same command again: finished work is kept."
            )

    def path(self, sample: str, name: str = "") -> Path:
        """The folder of a sample, or a file in it."""
        return Path(os.path.join(self.folder, "samples", sample, name))  # thousands of times

    def record(self, sample: str) -> SampleFile | None:
        """The finished sample, or None. A damaged record, and one whose video was removed or cut,
        is not finished."""
        path = self.path(sample, "sample.json")
        if not os.path.exists(path):
            return None
        try:
            record = SampleFile.read(path)
            if record.id != sample:
                raise UserError(f"{path} belongs to another sample, {record.id}; remove it.")
        except UserError as error:
            self.damaged[sample] = str(error)
            return None
        record._run = self.folder
        if record.video_name is not None:
            try:
                if os.stat(self.path(sample, record.video_name)).st_size != record.video_bytes:
                    return None
            except OSError:
                return None
        return record

    def records(self) -> list[SampleFile]:
        """All finished samples, in the suite's order."""
        found = map(self.record, self.sample_ids)
        return [record for record in found if record is not None]

    def adopt(self, sample: Sample) -> Sample:
        """`sample` with its reference images copied into the run folder, so that later changes of
        the originals have no effect."""
        return replace(sample, references=tuple(r.moved(self._copy) for r in sample.references))

    def finish(
        self, sample: Sample, *, video: Path | None, reason: str | None = None,
        seconds: float = 0.0, content: Video | None = None, source: str | None = None,
    ) -> None:
        """Write sample.json: from now on the sample is finished.

        Args:
            sample: an adopted sample.
            video: the written video in the sample's folder (None: failed, for `reason`).
            content: the frames, for their shape and rate.
            source: the user's path of a finished video.
        """
        SampleFile.of(
            sample, self.folder,
            status="failed" if video is None else "generated", reason=reason,
            video_name=None if video is None else video.name,
            video_sha256=None if video is None else sha256_file(video),
            video_bytes=None if video is None else video.stat().st_size,
            shape=None if content is None else tuple(content.frames.shape),
            fps=None if content is None else float(content.fps), seconds=round(seconds, 3),
            notes=[] if content is None else list(content.notes), source=source, finished=now(),
        ).write(self.path(sample.id, "sample.json"))

    def fail(self, record: SampleFile, reason: str) -> None:
        """Turn a finished sample into a failed one: its video turned out to be unreadable."""
        record.status, record.reason = "failed", reason
        record.write(self.path(record.id, "sample.json"))

    def close(self, engine: Mapping[str, Any] | None = None) -> None:
        """Write the final state: status, counts, engine, hardware, times, memory."""
        records = self.records()
        failed = sum(record.status == "failed" for record in records)
        planned = len(self.sample_ids)
        unfinished: Literal["running", "interrupted"] = "interrupted"
        if self.shard and set(lock.held_parts(self.folder)) - {self.shard.name}:
            unfinished = "running"
        peak = max(filter(None, [provenance.peak_memory_gb(), self.file.peak_memory_gb]),
                   default=None)
        self.save(
            status="finished" if len(records) == planned else unfinished,
            counts=Counts(planned=planned, generated=len(records) - failed, failed=failed),
            hardware={**self.file.hardware, **provenance.hardware()}, peak_memory_gb=peak,
            engine=dict(engine or self.file.engine),
        )

    def log_error(self, sample: str, text: str) -> None:
        """Append a traceback to errors.log."""
        self.log_text(f"{now()} sample {sample}\n{text}\n")

    def log_text(self, text: str) -> None:
        """Append `text` to errors.log."""
        if self.logged is not None:
            self.logged.append(text)
            return
        path = self.folder / "errors.log"
        with disk_errors(path), open(
                path, "a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)

    def _copy(self, image: Path) -> Path:
        folder = self.folder / "references"
        if image.parent == folder:
            return image
        try:
            data = image.read_bytes()
        except OSError as error:
            raise UserError(
                f"The reference image {image} cannot be read ({error.strerror}); check the path."
            ) from error
        digest = hashlib.sha256(data).hexdigest()[:12]
        path = folder / f"{digest}{image.suffix.lower()}"
        if not path.exists():
            write_bytes(path, data)
        return path
