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
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from idbench import lock, provenance
from idbench.differences import differences, short
from idbench.errors import UserError
from idbench.files import atomic_path, saying_disk_full, sha256_file, sha256_json
from idbench.outputs import check_output
from idbench.records import Counts, Git, Identity, ModelName, RunFile, SampleFile
from idbench.timings import Timings
from idbench.types import Reference, Sample, Video

OWN_FOLDERS = ("references", "embeddings")
"""What --force leaves behind; nothing in them is ever removed."""


def sample_id(suite_id: str, model: ModelName) -> str:
    """The id of a run's sample: the suite's part and all of the model that changes the video."""
    part = {k: getattr(model, k) for k in ("name", "variant", "revision", "settings", "weights")}
    return sha256_json([suite_id, part])[:16]


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Run:
    """A run folder. Anyone may read it; the process that holds it (`begin`) writes it.

    Attributes:
        file: run.json.
        timings: seconds of each phase, those of earlier starts included.
        damaged: sample id -> what is wrong with its sample.json, of the records read so far.
    """

    def __init__(self, folder: Path, file: RunFile) -> None:
        self.folder, self.file = Path(folder), file
        self.timings = Timings(file.timings)
        self.damaged: dict[str, str] = {}

    @classmethod
    def open(cls, folder: Path) -> Run:
        """The run in `folder`.

        Raises:
            UserError: no run there, a damaged one, or one of a newer idbench.
        """
        path = Path(folder) / "run.json"
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
        """Change fields of run.json and write it."""
        for name, value in {**changes, "timings": self.timings.as_dict(), "updated": now()}.items():
            setattr(self.file, name, value)
        self.file.write(self.folder / "run.json")

    def path(self, sample: str, name: str = "") -> Path:
        """The folder of a sample, or a file in it."""
        return Path(os.path.join(self.folder, "samples", sample, name))  # thousands of times

    def record(self, sample: str) -> SampleFile | None:
        """The finished sample, or None when it is not finished.

        A damaged record, and one whose video was removed or cut by hand, is not finished.
        """
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
        """`sample` with its reference images copied into the run folder.

        A later change of the originals then changes nothing.
        """
        return replace(sample, references=tuple(map(self._copy, sample.references)))

    def finish(
        self, sample: Sample, *, video: Path | None, reason: str | None = None,
        seconds: float = 0.0, content: Video | None = None, source: str | None = None,
    ) -> None:
        """Write sample.json: from now on the sample is finished.

        Args:
            sample: an adopted sample.
            video: the written video, inside the sample's folder (None: failed).
            reason: why it failed.
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

    def close(self) -> None:
        """Write the final state: status, counts, hardware, times, memory."""
        records = self.records()
        failed = sum(record.status == "failed" for record in records)
        planned = len(self.sample_ids)
        peak = max(filter(None, [provenance.peak_memory_gb(), self.file.peak_memory_gb]),
                   default=None)
        self.save(
            status="finished" if len(records) == planned else "interrupted",
            counts=Counts(planned=planned, generated=len(records) - failed, failed=failed),
            hardware={**self.file.hardware, **provenance.hardware()}, peak_memory_gb=peak,
        )

    def log_error(self, sample: str, text: str) -> None:
        """Append a traceback to errors.log."""
        path = self.folder / "errors.log"
        with saying_disk_full(path), open(path, "a", encoding="utf-8") as stream:
            stream.write(f"{now()} sample {sample}\n{text}\n")

    def _copy(self, reference: Reference) -> Reference:
        image, *more = map(self._copy_image, reference.images)
        return replace(reference, image=image, more=tuple(more))

    def _copy_image(self, image: Path) -> Path:
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
            with atomic_path(path) as temporary:
                temporary.write_bytes(data)
        return path


@contextmanager
def begin(
    folder: Path, identity: Identity, samples: Sequence[Sample], command: Sequence[str] = (),
    timings: Timings | None = None, force: bool = False,
) -> Iterator[Run]:
    """Hold `folder` and begin its run, or go on with it; on an error its state is kept.

    Args:
        identity: everything that makes it this run.
        samples: every planned sample, with its id in the run, in order.
        command: the arguments of the command line.
        timings: seconds spent before the folder was opened.
        force: begin anew: what the folder holds of an earlier run is removed.

    Raises:
        UserError: the folder holds another run (says in what it differs), other files, or
            another process uses it.
    """
    planned = {sample.suite_id: sample.id for sample in samples}
    with locked(folder):
        if force:
            check_output(folder / "run.json", "run")
            for name in ("samples", "scores.parquet", "run.json"):
                _remove(folder / name)
        if (folder / "run.json").exists():
            run = Run.open(folder)
            check_identity(run, identity)
            # A larger limit adds samples; of finished videos exactly those named now are the run.
            planned = {**(run.file.samples if run.generates else {}), **planned}
        else:
            run = Run(folder, RunFile(
                status="running", created=now(), identity=identity, samples=planned,
                git=Git(**provenance.git_state()), packages=provenance.package_versions(),
                hardware=provenance.hardware(),
            ))
        run.timings.include(timings.as_dict() if timings else {})
        run.save(samples=planned, status="running", command=["idbench", *command])
        with _kept(run):
            yield run


@contextmanager
def reopen(folder: Path) -> Iterator[Run]:
    """Hold the run in `folder`, whatever made it; on an error its state is kept.

    Raises:
        UserError: no run there, or another process uses it.
    """
    with locked(folder):
        run = Run.open(folder)
        with _kept(run):
            yield run


@contextmanager
def _kept(run: Run) -> Iterator[None]:
    try:
        yield
    except BaseException:
        # A full disk must not hide behind the failure to write this.
        with suppress(UserError, OSError):
            run.save(status="interrupted")
        raise


@contextmanager
def locked(folder: Path) -> Iterator[Path]:
    """Hold `folder` for this process alone; makes it, and clears what a killed process left.

    Raises:
        UserError: another process holds it, it is no run folder, or it may not be written.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; choose a folder with --out.")
    if folder.is_dir() and not (folder / "run.json").exists():
        foreign = [
            p.name for p in folder.iterdir()
            if p.name not in OWN_FOLDERS and not p.name.startswith(".")
        ]
        if foreign:
            raise UserError(
                f"{folder} contains other files ({foreign[0]}) and no run; choose a new or empty "
                "folder with --out."
            )
    with lock.exclusive(folder):
        for leftover in [*folder.glob(".*.part*"), *folder.glob("*/.*.part*"),
                         *folder.glob("samples/*/.*.part*")]:
            leftover.unlink(missing_ok=True)
        yield folder


def check_identity(run: Run, identity: Identity) -> None:
    """Refuse to go on with another run.

    Raises:
        UserError: says in what they differ.
    """
    before = run.file.identity
    if not before.suite.sha256:  # of videos without a manifest, before their references counted
        before = before.model_copy(update={"suite": identity.suite})
    found = differences(before.model_dump(), identity.model_dump())
    if found:
        where, old, new = found[0]
        raise UserError(
            f"{run.folder} contains another run (its {where} is {short(old)}, not "
            f"{short(new)}); choose another folder with --out, or replace that run with --force."
        )


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
