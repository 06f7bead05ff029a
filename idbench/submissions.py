"""Submissions to a leaderboard: a small folder with a manifest and the values of one run.

    SUBMISSION/submission.json     name, description, link, licence, sha256 of the other file
    SUBMISSION/results.json        a reference file of the gate: values, protocol, weights, suite
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from idbench.errors import UserError
from idbench.files import atomic_folder, sha256_file
from idbench.measured_files import read, write_reference
from idbench.measurements import Measurement, metric_of, share_of_suite
from idbench.names import one_of
from idbench.stored import Stored, validate

MANIFEST = "submission.json"
RESULTS = "results.json"
ABOUT = ("name", "description", "link", "licence")
"""What a submitter may say about a system."""


class Submission(Stored):
    """submission.json: the manifest of a submission to a leaderboard."""

    FIX: ClassVar[str] = "pack it again with `idbench leaderboard RUN --pack FOLDER`"

    kind: Literal["idbench submission"] = "idbench submission"
    name: str = Field(min_length=1, max_length=80, description="as the leaderboard shows it")
    description: str = Field("", max_length=500)
    link: str = Field("", max_length=300, pattern=r"^(https://\S+)?$")
    licence: str = Field("", max_length=80)
    files: dict[str, str] = Field(description="sha256 of every other file, by name")


@dataclass(frozen=True)
class Entry:
    """One system in a leaderboard: what was measured, and what its makers say of it."""

    name: str
    measured: Measurement
    description: str = ""
    link: str = ""
    licence: str = ""
    submitted: bool = False


def pack(run: Path, folder: Path, about: Mapping[str, Any]) -> Path:
    """Make a submission of a run; returns its folder. `about`: values of `ABOUT`; default name: the
    model's. Raises UserError, and writes nothing: a part of the split is missing, values are
    implausible, the folder holds other files, or `about` is wrong."""
    for key in about:
        one_of("field of a submission", key, ABOUT)
    measured = read(run)
    others = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    if any(name not in (RESULTS, MANIFEST) for name in others):
        raise UserError(f"{folder} contains other files ({others[0]}); choose a new folder.")
    check_whole(measured)
    _plausible(measured)
    told = {"name": measured.system, **{key: str(value) for key, value in about.items()}}
    manifest = validate(Submission, {**told, "files": {}}, f"The manifest of {folder}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as temporary:
        write_reference(temporary / RESULTS, measured)
        manifest.files[RESULTS] = sha256_file(temporary / RESULTS)
        manifest.write(temporary / MANIFEST)
        for name in others:  # an earlier submission gives way
            (folder / name).unlink()
    return folder


def entry(path: Path) -> Entry:
    """A run folder, a reference file, or a submission, validated. Raises UserError: a manifest or
    values that do not hold; says which."""
    path = Path(path)
    if not (path / MANIFEST).is_file():
        measured = read(path)
        return Entry(measured.system, measured)
    manifest = Submission.read(path / MANIFEST)
    for name, digest in manifest.files.items():
        # A name with a folder in it would read outside of the submission.
        if Path(name).name != name or not (path / name).is_file():
            raise UserError(f"{path} lacks the file {name} of its manifest; pack it again.")
        if sha256_file(path / name) != digest:
            raise UserError(
                f"{path / name} was changed after it was packed (another sha256); pack it again "
                "with `idbench leaderboard RUN --pack FOLDER`."
            )
    if RESULTS not in manifest.files:
        raise UserError(f"The manifest of {path} does not name {RESULTS}; pack it again.")
    measured = read(path / RESULTS)
    _plausible(measured)
    return Entry(
        manifest.name, measured, manifest.description, manifest.link, manifest.licence, True)


def check_whole(measured: Measurement) -> None:
    """Raise UserError where samples of the split are missing, or failed and have no value."""
    share = share_of_suite(measured)
    if not share.whole:
        raise UserError(
            f"{measured.source} has {share.measured} of the {share.of} samples of "
            f"{measured.identity.split}; run the whole split, without --limit."
        )


def _plausible(measured: Measurement) -> None:
    """Raise UserError where a value lies outside of its metric's range."""
    for name in measured.metrics:
        metric = metric_of(name)
        values = measured.values[name].dropna()
        if metric is not None and len(values):
            low, high = metric.range
            if values.min() < low - 1e-6 or values.max() > high + 1e-6:
                raise UserError(
                    f"{measured.source} has values of {name} outside {low:g}..{high:g}; score the "
                    "videos again with `idbench score RUN`."
                )
