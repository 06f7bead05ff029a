"""Suites: identities x prompts as versioned data with checksums, read into samples.

A suite is a folder:
    suite.yaml          name, version, description, licence, changelog, splits (name: samples)
    identities.json     what is known of each identity
    prompts.jsonl       {"prompt_id", "category", "prompt", "truth"} a line
    splits/NAME.jsonl   {"prompt_id", "references": [{"kind", "name", "file"}], "truth"} a line
    references/         the images
    CHECKSUMS           sha256 and path of every other file, as `sha256sum` writes it
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar

import pydantic

from idbench import yaml_text
from idbench.errors import UserError
from idbench.files import sha256_file, sha256_json, write_text
from idbench.names import one_of, unknown
from idbench.prompts import SUITES, suite_names
from idbench.records import SuiteName
from idbench.stored import InsidePath, PlainName, validate
from idbench.types import Reference, Sample

Row = TypeVar("Row", bound=pydantic.BaseModel)


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Change(_Strict):
    version: str
    changes: str


class SuiteFile(_Strict):
    """suite.yaml."""

    name: PlainName
    version: str
    description: str
    licence: str
    changelog: list[Change]
    splits: dict[PlainName, int]

    @pydantic.field_validator("version", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        # YAML reads an unquoted 1.0 as a number.
        return str(value) if isinstance(value, int | float) else value


class PromptRow(_Strict):
    """A line of prompts.jsonl."""

    prompt_id: str
    category: str
    prompt: str
    truth: dict[str, Any] = {}


class ReferenceRow(_Strict):
    kind: Literal["face", "garment", "background"]
    name: str
    file: InsidePath


class Identities(pydantic.RootModel[dict[str, dict[str, Any]]]):
    """identities.json: by name, whatever the suite's makers say of each."""


class SplitRow(_Strict):
    """A line of splits/NAME.jsonl."""

    prompt_id: str
    references: list[ReferenceRow] = pydantic.Field(min_length=1)
    truth: dict[str, Any] = {}


@dataclass(frozen=True)
class Suite:
    """One version of a suite: `sha256` of all its files, `splits` with their numbers of samples,
    and `checksums` by path."""

    name: str
    version: str
    sha256: str
    splits: Mapping[str, int]
    folder: Path
    description: str = ""
    licence: str = ""
    checksums: Mapping[str, str] = field(default_factory=dict, repr=False)
    _prompts: Mapping[str, PromptRow] = field(default_factory=dict, repr=False)
    _split_rows: Mapping[str, Sequence[SplitRow]] = field(default_factory=dict, repr=False)

    def samples(self, split: str, limit: int | None = None, seed: int = 0) -> list[Sample]:
        """The samples of `split`; with `limit`, the first `limit` of them.

        The order alternates between sets of references, and goes through their prompts, so that a
        small limit already has many identities. Ids and seeds derive from suite version,
        references, prompt and `seed` alone; the id changes once the model is known
        (`runs.sample_id`). Raises UserError: unknown split, or a wrong row."""
        one_of(f"split of suite {self.name}", split, self.splits)
        rows = _round_robin(self._split_rows[split])
        return [self._sample(split, row, seed) for row in rows[:limit]]

    def size(self, split: str) -> int:
        """How many samples of one seed `split` has, told apart by identities and prompt."""
        return len({
            (row.prompt_id, *(r.name for r in row.references if r.kind == "face"))
            for row in self._split_rows[split]
        })

    @property
    def title(self) -> SuiteName:
        """Name, version and hash, as a run keeps them."""
        return SuiteName(name=self.name, version=self.version, sha256=self.sha256)

    @cached_property
    def identities(self) -> dict[str, dict[str, Any]]:
        """What identities.json says of each identity, by name."""
        path = self.folder / "identities.json"
        return validate(Identities, path.read_bytes(), path).root if path.exists() else {}

    def _sample(self, split: str, row: SplitRow, seed: int) -> Sample:
        path = _split_file(self.folder, split)
        prompt = self._prompts.get(row.prompt_id)
        if prompt is None:
            raise UserError(
                f"{path} names the prompt {row.prompt_id!r}, which is not in prompts.jsonl; "
                "add it or correct the row."
            )
        part = {
            "suite": self.name,
            "version": self.version,
            "references": [[r.kind, r.name] for r in row.references],
            "prompt": prompt.prompt,
            "seed": seed,
        }
        digest = sha256_json(part)
        references = tuple(
            Reference(r.kind, r.name, self._file(r.file, path)) for r in row.references
        )
        return Sample(
            id=digest[:16],
            suite_id=digest[:16],
            split=split,
            prompt_id=row.prompt_id,
            prompt=prompt.prompt,
            category=prompt.category,
            references=references,
            # Other digits than the id's, below 2**31 as every generator takes it.
            seed=int(digest[16:32], 16) % 2**31,
            truth={**prompt.truth, **row.truth},
        )

    def _file(self, name: str, named_by: Path) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise UserError(f"{named_by} names {name}, which is missing; restore the suite.")
        return path


def load_suite(name_or_path: str | Path) -> Suite:
    """The installed suite of that name, or the one in that folder, with checksums verified.
    Raises UserError: unknown suite, an unknown field, a file that is not as its checksum says."""
    text = str(name_or_path)
    installed = suite_names()
    if text in installed:
        folder = SUITES / text
    elif (Path(text) / "suite.yaml").is_file():
        folder = Path(text)
    elif Path(text).is_dir():
        raise UserError(f"The folder {text} contains no suite.yaml; pass the folder of a suite.")
    elif len(Path(text).parts) > 1:
        raise UserError(
            f"There is no folder {text}; check the path. `idbench suites get` and `suites import` "
            "make suites.")
    else:
        raise unknown("suite", text, installed)
    about = folder / "suite.yaml"
    head = validate(SuiteFile, yaml_text.read(about, str(about)), about)
    checksums = _verify(folder)
    listed = _rows(folder / "prompts.jsonl", PromptRow, lambda row: row.prompt_id)
    prompts = {row.prompt_id: row for row in listed}
    splits = {
        split: _rows(_split_file(folder, split), SplitRow, lambda row: _request(row, prompts))
        for split in head.splits
    }
    for split, count in head.splits.items():
        if len(splits[split]) != count:
            raise UserError(
                f"{about} says that the split {split!r} has {count} samples, "
                f"splits/{split}.jsonl has {len(splits[split])}; correct one of them."
            )
    return Suite(
        name=head.name, version=head.version, sha256=sha256_json(sorted(checksums.items())),
        splits=head.splits, folder=folder, description=head.description, licence=head.licence,
        checksums=checksums, _prompts=prompts, _split_rows=splits,
    )


def reference_row(kind: str, name: str) -> dict[str, str]:
    """A reference as a row of a split names it, with the file in which a suite made here has it."""
    file = name if kind == "face" else f"{kind}_{name}"
    return {"kind": kind, "name": name, "file": f"references/{file}.png"}


def write_rows(
    folder: Path, prompts: Sequence[Mapping[str, Any]],
    splits: Mapping[str, Sequence[Mapping[str, Any]]],
) -> None:
    """Write prompts.jsonl and splits/NAME.jsonl of a suite's folder."""
    (folder / "splits").mkdir(exist_ok=True)
    for name, rows in {"prompts": prompts, **{f"splits/{n}": r for n, r in splits.items()}}.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def write_checksums(folder: Path) -> None:
    """Write CHECKSUMS of a suite's folder: sha256 and path of every other file."""
    lines = [f"{sha256_file(folder / name)}  {name}\n" for name in sorted(_files(folder))]
    write_text(folder / "CHECKSUMS", "".join(lines))


def _verify(folder: Path) -> dict[str, str]:
    """Check every file against CHECKSUMS; the sha256 of each file by path."""
    path = folder / "CHECKSUMS"
    seal = (
        f'python -c "from pathlib import Path; from idbench.suite import write_checksums; '
        f"write_checksums(Path('{folder}'))\""
    )
    if not path.is_file():
        raise UserError(f"The suite {folder} has no CHECKSUMS; write it with: {seal}")
    listed: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition(" ")
        listed[str(PurePosixPath(name.strip().removeprefix("*")))] = digest
    for name, digest in listed.items():
        file = folder / name
        if not file.is_file():
            raise UserError(f"The suite file {file} is missing; restore it or reinstall idbench.")
        actual = sha256_file(file)
        if actual != digest:
            raise UserError(
                f"The suite file {file} is not the published one: its sha256 is {actual}, "
                f"CHECKSUMS says {digest}; restore it, or, for your own suite, write new "
                f"checksums: {seal}"
            )
    extra = sorted(_files(folder) - set(listed))
    if extra:
        raise UserError(
            f"The suite {folder} has a file without a checksum, {extra[0]}; remove it or write new "
            f"checksums: {seal}"
        )
    return listed


def _files(folder: Path) -> set[str]:
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    return {
        n for n in found
        if n != "CHECKSUMS" and "__pycache__" not in n and not n.split("/")[-1].startswith(".")
    }


def _split_file(folder: Path, split: str) -> Path:
    return folder / "splits" / f"{split}.jsonl"


def _round_robin(rows: Sequence[SplitRow]) -> list[SplitRow]:
    """One row of each set of references in turn, each set starting one prompt further on."""
    groups: dict[tuple[str, ...], list[SplitRow]] = {}
    for row in rows:
        groups.setdefault(tuple(r.name for r in row.references), []).append(row)
    turned = [
        group[k % len(group):] + group[: k % len(group)]
        for k, group in enumerate(groups.values())
    ]
    longest = max((len(group) for group in turned), default=0)
    return [group[i] for i in range(longest) for group in turned if i < len(group)]


def _request(row: SplitRow, prompts: Mapping[str, PromptRow]) -> Hashable:
    """What makes a row another sample than the other rows of its split."""
    prompt = prompts.get(row.prompt_id)
    text = row.prompt_id if prompt is None else prompt.prompt
    return text, tuple((r.kind, r.name) for r in row.references)


def _rows(path: Path, kind: type[Row], told_apart: Callable[[Row], Hashable]) -> list[Row]:
    """The rows of a JSON Lines file. Raises UserError: two rows are the same sample or prompt."""
    if not path.is_file():
        raise UserError(f"The suite file {path} is missing; restore it or reinstall idbench.")
    lines = path.read_bytes().split(b"\n")
    rows = [validate(kind, line, f"{path} line {number}")
            for number, line in enumerate(lines, 1) if line.strip()]
    first: dict[Hashable, int] = {}
    for number, row in enumerate(rows, 1):
        before = first.setdefault(told_apart(row), number)
        if before != number:
            what = "prompt_id" if kind is PromptRow else "sample"
            raise UserError(
                f"{path} has the same {what} in rows {before} and {number}; remove or change one."
            )
    return rows
