"""Joins run folders that hold parts of the same run, such as those of `--shard`, into one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from idbench import holding
from idbench.errors import UserError
from idbench.files import atomic_path, real
from idbench.records import RunFile, ScoringRecord
from idbench.runs import Run, now
from idbench.scores import collect
from idbench.timings import Timings


def merge(folders: Sequence[Path], out: Path) -> Run:
    """Copy what is finished in the runs of `folders` into the run folder `out`, new or a part of
    the same run. Of a sample in several runs, the first that did not fail is taken. Raises
    UserError: no run, parts of different runs, or runs scored in different ways."""
    if real(out) in map(real, folders):
        raise UserError(f"{out} is one of the runs to merge; choose another folder with -o.")
    parts = [Run.open(folder) for folder in folders]
    for part in parts[1:]:
        holding.check_identity(parts[0], part.file.identity, f"{part.folder} is part of another")
    with holding.locked(out):
        if (out / "run.json").exists():
            run = Run.open(out)
            holding.check_identity(run, parts[0].file.identity)
        else:
            run = Run(out, RunFile(
                status="running", created=now(), identity=parts[0].file.identity, samples={}))
        scoring = _scoring([run, *parts])
        planned = {k: v for part in (run, *parts) for k, v in part.file.samples.items()}
        timings = Timings(run.file.timings)
        for part in parts:
            timings.include(part.file.timings)
        run.timings = timings
        first = parts[0].file
        run.save(
            samples=planned, status="running", scoring=scoring, git=first.git,
            packages=first.packages, hardware=first.hardware, command=first.command,
            split_size=max((part.file.split_size or 0 for part in parts), default=0) or None,
        )
        with holding.kept(run):
            for part in parts:
                _copy(part, run)
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


def _copy(part: Run, run: Run) -> None:
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
