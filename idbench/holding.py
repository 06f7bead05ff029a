"""Run folders held for writing: begun, resumed, opened again, or merged from parts; whole or one
shard of them."""

from __future__ import annotations

import glob
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from idbench import leftovers, lock, provenance
from idbench.differences import differences, short
from idbench.errors import UserError, encodable
from idbench.files import atomic_path, check_output, real
from idbench.records import Git, Identity, RunFile, ScoringRecord
from idbench.runs import Run, Shard, now
from idbench.score_table import collect
from idbench.timings import Timings
from idbench.types import Sample

OWN_FOLDERS = ("references", "embeddings")
"""What --force leaves behind; nothing in them is ever removed, apart from temporary files."""

_OTHER_VIDEOS = "of other videos, references or prompts"


@contextmanager
def begin(
    folder: Path, identity: Identity, samples: Sequence[Sample], command: Sequence[str] = (),
    timings: Timings | None = None, force: bool = False, shard: Shard | None = None,
    split_size: int | None = None,
) -> Iterator[Run]:
    """Hold `folder` and begin or resume its run; on an error its state is kept.

    Args:
        samples: every planned sample, with its id in the run, in order.
        timings: seconds spent before the folder was opened.
        force: remove what the folder holds of an earlier run.
        shard: hold only this part; other processes may hold others.
        split_size: see `RunFile`.

    Raises UserError: the folder holds another run (says how it differs) or other files, or another
    process uses it.
    """
    planned = {sample.suite_id: sample.id for sample in samples}
    if shard and force:
        raise UserError("--force removes the work of other shards; remove the run folder instead.")
    with locked(folder, shard):
        with lock.briefly(folder) if shard else nullcontext():
            if force:
                check_output(folder / "run.json", "run")
                for name in ("samples", "scores.parquet", "run.json"):
                    path = folder / name
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            if (folder / "run.json").exists():
                run = Run.open(folder)
                check_identity(run, identity)
                before = run.file.samples
                if before and not run.generates and not before.keys() & planned.keys():
                    # Those named now would take the place of all that are there.
                    raise _another_run(run, _OTHER_VIDEOS)
                # A larger limit adds samples; of finished videos those named now are the run.
                planned = {**(before if run.generates else {}), **planned}
            else:
                run = Run(folder, RunFile(
                    status="running", created=now(), identity=identity, samples=planned,
                    git=Git(**provenance.git_state()), packages=provenance.package_versions(),
                    hardware=provenance.hardware(),
                ))
            run.timings.include(timings.as_dict() if timings else {})
            line = ["idbench", *map(encodable, command)]
            run.save(samples=planned, status="running", command=line, split_size=split_size)
        run.shard = shard
        with kept(run):
            yield run


@contextmanager
def reopen(folder: Path, shard: Shard | None = None) -> Iterator[Run]:
    """Hold the run in `folder`, or a shard of it; on an error its state is kept.
    Raises UserError: no run there, or another process uses it."""
    with locked(folder, shard):
        run = Run.open(folder)
        run.shard = shard
        with kept(run):
            yield run


@contextmanager
def kept(run: Run) -> Iterator[None]:
    """On an error, the run is marked as interrupted."""
    try:
        run.check_there()
        yield
    except BaseException:
        # A full disk must not hide behind the failure to write this.
        with suppress(UserError, OSError):
            run.save(status="interrupted")
        raise


@contextmanager
def locked(folder: Path, shard: Shard | None = None) -> Iterator[None]:
    """Hold `folder` for this process, or a shard of it; clears what killed processes left.
    Raises UserError: another process holds it, it is no run folder, or it may not be written."""
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
    with lock.part(folder, shard.name) if shard else lock.exclusive(folder):
        clear_leftovers(folder, everyone=shard is None)
        if shard is None:
            _keep_worker_logs(folder)
        yield


def _keep_worker_logs(folder: Path) -> None:
    """Move what workers of a killed process printed to errors.log."""
    for path in sorted(folder.glob(".worker-*.log")):
        if text := path.read_text(encoding="utf-8", errors="replace").strip():
            with open(folder / "errors.log", "a", encoding="utf-8") as stream:
                stream.write(f"output of {path.stem[1:]}\n{text}\n")
        path.unlink()


def clear_leftovers(folder: Path, everyone: bool = False) -> None:
    """Remove temporary files of dead processes from a run folder; `everyone`: also those of other
    machines, see `leftovers.clear`."""
    leftovers.clear(str(folder))
    for place in (*OWN_FOLDERS, "samples", "samples/*", "embeddings/*"):
        for path in glob.iglob(f"{glob.escape(str(folder))}/{place}"):
            leftovers.clear(path, everyone)


def check_identity(run: Run, identity: Identity, other: str = "") -> None:
    """Raise UserError, saying what differs, if `run` is not the run of `identity`. `other` begins
    the sentence about an existing folder of `identity`."""
    before = run.file.identity
    if not before.suite.sha256:  # of videos without a manifest, before their references counted
        before = before.model_copy(update={"suite": identity.suite})
    found = differences(before.model_dump(), identity.model_dump())
    if found:
        where, old, new = found[0]
        if before.seeds != identity.seeds and where in ("seed", "seeds"):
            old, new = (",".join(map(str, i.seeds or [i.seed])) for i in (before, identity))
            where = "--seeds"
        if other:
            raise UserError(
                f"{other} run than {run.folder} (its {where} is {short(new)}, not {short(old)}); "
                "merge parts of one run."
            )
        told = f"its {where} is {short(old)}, not {short(new)}"
        raise _another_run(run, _OTHER_VIDEOS if where == "suite sha256" else told)


def _another_run(run: Run, told: str) -> UserError:
    return UserError(
        f"{run.folder} contains another run ({told}); choose another folder with --out, or "
        "replace that run with --force."
    )


def merge(folders: Sequence[Path], out: Path) -> Run:
    """Copy what is finished in the runs of `folders` into the run folder `out`, new or a part of
    the same run. Of a sample in several runs, the first that did not fail is taken. Raises
    UserError: no run, parts of different runs, or runs scored in different ways."""
    if real(out) in map(real, folders):
        raise UserError(f"{out} is one of the runs to merge; choose another folder with -o.")
    parts = [Run.open(folder) for folder in folders]
    for part in parts[1:]:
        check_identity(parts[0], part.file.identity, f"{part.folder} is part of another")
    with locked(out):
        if (out / "run.json").exists():
            run = Run.open(out)
            check_identity(run, parts[0].file.identity)
        else:
            run = Run(out, RunFile(
                status="running", created=now(), identity=parts[0].file.identity, samples={}))
        scoring = _scoring([run, *parts])
        planned = {k: v for part in (run, *parts) for k, v in part.file.samples.items()}
        for part in parts:
            run.timings.include(part.file.timings)
        first = parts[0].file
        run.save(
            samples=planned, status="running", scoring=scoring, git=first.git,
            packages=first.packages, hardware=first.hardware, command=first.command,
            split_size=max((part.file.split_size or 0 for part in parts), default=0) or None,
        )
        with kept(run):
            for part in parts:
                _copy_part(part, run)
            if scoring.sha256:
                collect(run)
            run.close({
                "name": "merge", "runs": [part.folder.name for part in parts],
                "engines": [part.file.engine for part in parts],
            })
    return run


def combined(parts: Sequence[ScoringRecord]) -> dict[str, Any]:
    """Of what parts of one scoring were measured with, the fields that may differ."""
    return {
        "notes": list(dict.fromkeys(note for part in parts for note in part.notes)),
        "providers": {k: v for part in parts for k, v in part.providers.items()},
        "reference_notes": {k: v for part in parts for k, v in part.reference_notes.items()},
        "prompts_cut": {k: v for part in parts for k, v in part.prompts_cut.items()},
        "devices": sorted({device for part in parts for device in part.devices}),
    }


def _scoring(runs: Sequence[Run]) -> ScoringRecord:
    """What the scored ones of `runs` were measured with. Raises UserError: they were measured in
    different ways."""
    scored = [run for run in runs if run.file.scoring.sha256]
    if not scored:
        return ScoringRecord()
    first = scored[0].file.scoring
    for run in scored[1:]:
        if run.file.scoring.key != first.key:
            raise UserError(
                f"{run.folder} and {scored[0].folder} are scored in different ways; rescore both "
                "with the same `idbench score` command."
            )
    return first.model_copy(update=combined([run.file.scoring for run in scored]))


def _copy_part(part: Run, run: Run) -> None:
    for place in ("references/*", "embeddings/*/*"):
        for path in sorted(part.folder.glob(place)):
            if path.is_file() and not path.name.startswith("."):
                _copy_file(path, run.folder / path.relative_to(part.folder))
    for record in part.records():
        before = run.record(record.id)
        better = before is None or (before.status == "failed" and record.status == "generated")
        if better or (before and before.video_sha256 == record.video_sha256):
            for name in (record.video_name, "faces.json", "scores.json", "sample.json"):
                source = part.path(record.id, name or "")
                if source.is_file():
                    _copy_file(source, run.path(record.id, source.name), replace=better)
    if (part.folder / "errors.log").is_file():
        run.log_text((part.folder / "errors.log").read_text(encoding="utf-8"))


def _copy_file(source: Path, target: Path, replace: bool = False) -> None:
    if replace or not target.exists():
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
