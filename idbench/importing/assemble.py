"""Makes a suite of what was read: checks faces, draws prompts and pairs, writes the files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from idbench.errors import UserError
from idbench.files import atomic_folder, check_new_folder
from idbench.importing.draw import Kept, Options, Row, draw_people, make_splits
from idbench.importing.faces import (
    Alike,
    Face,
    FaceReader,
    find_alike,
    nearest_cosine,
    open_picture,
    read_embeddings,
    store_picture,
)
from idbench.importing.sources import Person, Source
from idbench.metrics.faces.crops import EMBEDDED
from idbench.suite import write_checksums, write_rows

NAMED = 5
"""Pairs of names that are listed; the rest is counted."""


def import_suite(
    source: Source, target: Path, options: Options, reader: FaceReader,
    step: Callable[[str], None] = lambda name: None,
) -> dict[str, Any]:
    """Check the references of `source` and write a suite into the new folder `target`, complete or
    not at all; `step` is called with each person's name.

    Returns its name, folder, samples by split, number of identities, why others were dropped, and
    notes for the user. Raises UserError: `target` exists, nobody is left, or a split would be
    empty."""
    check_new_folder(target)
    kept, dropped = check_people(source, options, reader, step)
    alike = find_alike({name: one.face for name, one in kept.items()})
    if not source.rows:  # a published layout stays what its makers made
        dropped |= _drop_copies(kept, alike)
        kept, others = draw_people(kept, options)
        dropped |= others
    dropped = {**source.skipped, **dropped}
    if not kept:
        name, reason = next(iter(dropped.items()))
        raise UserError(
            f"No identity of {source.layout} is left: {len(dropped)} were dropped, the first "
            f"({name}) because {reason}; provide images with one face each."
        )
    prompts, splits, lost = make_splits(source, kept, options)
    dropped.update(lost)
    if not splits:
        raise UserError(
            "No sample can be made from what is left; add prompts for one person, or more "
            "people for prompts of two and three."
        )
    name = options.name if source.rows else f"{options.name}-seed{options.seed}"
    with atomic_folder(target) as part:
        _write(part, name, source, kept, prompts, splits, dropped, options, reader)
    return {
        "suite": name, "folder": str(target),
        "splits": {split: len(rows) for split, rows in splits.items()}, "identities": len(kept),
        "dropped": dropped, "notes": _notes(source, kept, alike, options, reader),
    }


def check_people(
    source: Source, options: Options, reader: FaceReader, step: Callable[[str], None]
) -> tuple[dict[str, Kept], dict[str, str]]:
    """The people that are kept, with their reference, and why others are dropped. The reference is
    the first picture with exactly one face (with `several="largest"`, at least one)."""
    training = read_embeddings(options.training, reader) if options.training else None
    kept: dict[str, Kept] = {}
    dropped: dict[str, str] = {}
    for person in source.people:
        found = _reference(person, reader, options.several)
        step(person.name)
        if isinstance(found, str):
            dropped[person.name] = found
            continue
        picture, face = found
        near = None
        if training is not None and face.vector is not None:
            if training.shape[1] != len(face.vector):
                read_embeddings(options.training or Path(), reader, len(face.vector))
            near = nearest_cosine(face.vector, training)
            if not near <= options.maximum_cosine:
                dropped[person.name] = (
                    f"too close to the training set: ArcFace cosine {near:.3f}, more than "
                    f"{options.maximum_cosine:g}"
                )
                continue
        kept[person.name] = Kept(person, picture, face, near)
    return kept, dropped


def _drop_copies(kept: dict[str, Kept], alike: Sequence[Alike]) -> dict[str, str]:
    """Remove the later of two people with one picture; returns the reasons."""
    dropped: dict[str, str] = {}
    for two in alike:
        if two.copy and two.first in kept and two.second in kept:
            del kept[two.second]
            dropped[two.second] = f"its picture is that of {two.first}"
    return dropped


def _reference(person: Person, reader: FaceReader, several: str) -> tuple[Path, Face] | str:
    reasons = []
    for picture in person.pictures:
        try:
            face = reader.read(open_picture(picture))
        except UserError as error:
            reasons.append(str(error).split(";")[0])
            continue
        if face.count == 1 or (face.count > 1 and several == "largest"):
            return picture, face
        reasons.append(
            f"{face.count} faces were found in {picture.name}" if face.count
            else f"no face was found in {picture.name}"
        )
    more = f" (and {len(reasons) - 1} more pictures)" if len(reasons) > 1 else ""
    return reasons[0] + more


def _write(
    folder: Path, name: str, source: Source, kept: Mapping[str, Kept], prompts: Sequence[Row],
    splits: Mapping[str, Sequence[Row]], dropped: Mapping[str, str], options: Options,
    reader: FaceReader,
) -> None:
    (folder / "references").mkdir()
    identities: Row = {}
    published = source.layout in ("consisid", "opens2v")
    files = {r["name"]: folder / r["file"]
             for rows in splits.values() for row in rows for r in row["references"]}
    for one in kept.values():
        if one.person.name not in files:
            continue
        store_picture(one.picture, files[one.person.name], published)
        identities[one.person.name] = {
            "faces": one.face.count, "probability": one.face.probability, "box": one.face.box,
            "detected_by": reader.detector, "nearest_training_cosine": one.nearest,
            "variant": one.person.variant or None,
        }
    for item in source.items:
        if item.name in files:
            store_picture(item.picture, files[item.name], published)
    how = f"drawn by seed {options.seed}" if not source.rows else "as the layout pairs them"
    head = {
        "name": name, "version": options.version,
        "description":
            f"{len(identities)} identities imported from the layout {source.layout}, {how}.",
        "licence": options.licence,
        "changelog": [{"version": options.version, "changes": "Imported by idbench."}],
        "splits": {split: len(rows) for split, rows in splits.items()},
    }
    (folder / "suite.yaml").write_text(
        yaml.safe_dump(head, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
    about = {
        "layout": source.layout, "seed": None if source.rows else options.seed,
        "several_faces": options.several, "detector": reader.detector,
        "recogniser": reader.recogniser, "recogniser_sha256": reader.sha256,
        "training_embeddings": options.training.name if options.training else None,
        "maximum_cosine": options.maximum_cosine if options.training else None,
        "dropped": dict(dropped),
    }
    for file, content in (("identities.json", identities), ("import.json", about)):
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        (folder / file).write_text(text, encoding="utf-8")
    write_rows(folder, prompts, splits)
    write_checksums(folder)


def _notes(
    source: Source, kept: Mapping[str, Kept], alike: Sequence[Alike], options: Options,
    reader: FaceReader,
) -> list[str]:
    notes = []
    categories = len({p.category for p in source.prompts if p.people == 1})
    if not source.rows and categories:
        notes.append(
            f"single: {len(kept)} identities x one prompt of each of {categories} categories "
            f"(the paper: 97 x 9 = 873, its draw unpublished; this one: seed {options.seed})."
        )
    if options.training is None:
        notes.append("No training set was given: no one was dropped for being too close to one.")
    elif reader.recogniser == EMBEDDED:
        notes.append(
            "Similarity to the training set was measured by the embedded ArcFace, which is trained "
            "on avatars: its cosines say little about photographs. Pass an insightface pack with "
            "--pack."
        )
    several = [k.person.name for k in kept.values() if k.face.count > 1]
    if several:
        notes.append(f"The largest of several faces was used for: {', '.join(several)}.")
    left = [str(two) for two in alike if two.first in kept and two.second in kept]
    if left:
        more = f" and {len(left) - NAMED} more" if len(left) > NAMED else ""
        doubt = ", by the embedded ArcFace, whose cosines say little about photographs" \
            if reader.recogniser == EMBEDDED else ""
        notes.append(f"{len(left)} pairs of names may be one person{doubt}: "
                     f"{'; '.join(left[:NAMED])}{more}.")
    return notes
