"""`idbench suites check`: checksums and rows of a suite, and one face on each reference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from idbench.errors import UserError
from idbench.importing.lookalikes import find_alike
from idbench.suite import Suite, load_suite
from idbench.types import Reference


@dataclass(frozen=True)
class Checked:
    """The result of a check: number of samples by split and of pictures, faults, and warnings about
    names that may be one person."""

    suite: Suite
    samples: dict[str, int]
    references: int
    faults: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def check_suite(name_or_path: str, faces: bool = True, pack: Path | None = None) -> Checked:
    """Read all samples and pictures of a suite; with `faces`, look for one face on each portrait.
    Raises UserError: a checksum, a row or a file of the suite is wrong."""
    from idbench.importing.faces import Face, FaceReader, open_picture

    folder = Path(name_or_path)
    if folder.is_dir() and not (folder / "suite.yaml").is_file():
        raise UserError(
            f"{folder} is not a suite: it has no suite.yaml. Make one of it with `idbench suites "
            f"import {folder}`, and check that."
        )
    suite = load_suite(name_or_path)
    samples = {split: suite.samples(split) for split in suite.splits}
    pictures: dict[Path, Reference] = {}
    faults: list[str] = []
    for split, of_split in samples.items():
        for sample in of_split:
            pictures.update((r.image, r) for r in sample.references)
            if not sample.prompt.strip():
                faults.append(f"{split}: the prompt {sample.prompt_id} is empty")
            if len(set(sample.identities)) < len(sample.identities):
                faults.append(f"{split}: {sample.prompt_id} names one person twice")
            if not sample.identities:
                faults.append(f"{split}: {sample.prompt_id} has no face reference")
    reader = FaceReader(pack) if faces else None
    people: dict[str, Face] = {}
    for path, reference in sorted(pictures.items()):
        try:
            picture = open_picture(path)
        except UserError as error:
            faults.append(str(error).split(";")[0])
            continue
        if reader is None or reference.kind != "face":
            continue
        face = reader.read(picture)
        people.setdefault(reference.name, face)
        count = face.count
        if count != 1:
            found = f"{count} faces were found" if count else "no face was found"
            faults.append(f"{found} in {path.relative_to(suite.folder).as_posix()}")
    seen = {name: face for name, face in people.items() if face.hash is not None}
    alike = find_alike(
        list(seen), [face.vector for face in seen.values()],
        [face.hash for face in seen.values() if face.hash is not None],
    )
    faults += [str(two) for two in alike if two.copy]
    return Checked(
        suite, {s: len(rows) for s, rows in samples.items()}, len(pictures),
        tuple(dict.fromkeys(faults)), tuple(str(two) for two in alike if not two.copy),
    )
