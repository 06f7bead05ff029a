"""`idbench suites check`: checksums and rows of a suite, and one face on each reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from idbench.errors import UserError
from idbench.suite import Suite, load_suite
from idbench.types import Reference


@dataclass(frozen=True)
class Checked:
    """The result of a check.

    Attributes:
        samples: split -> number of samples, all of which could be read.
        references: how many different pictures were looked at.
        faults: one sentence for each fault.
    """

    suite: Suite
    samples: dict[str, int]
    references: int
    faults: tuple[str, ...]


def check_suite(
    name_or_path: str, faces: bool = True, pack: Path | None = None,
    step: Callable[[str], None] = lambda name: None,
) -> Checked:
    """Read all samples and pictures of a suite; with `faces`, look for one face on each portrait.

    Raises:
        UserError: a checksum, a row or a file of the suite is wrong.
    """
    from idbench.importing.faces import FaceReader, open_picture

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
    for path, reference in sorted(pictures.items()):
        step(path.name)
        try:
            picture = open_picture(path)
        except UserError as error:
            faults.append(str(error).split(";")[0])
            continue
        if reader is None or reference.kind != "face":
            continue
        count = len(reader.detect(picture))
        if count != 1:
            found = f"{count} faces were found" if count else "no face was found"
            faults.append(f"{found} in {path.relative_to(suite.folder).as_posix()}")
    return Checked(
        suite, {s: len(rows) for s, rows in samples.items()}, len(pictures),
        tuple(dict.fromkeys(faults)),
    )
