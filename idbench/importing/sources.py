"""What a suite is made of, and the reader of a user's own files.

It finds a folder for each identity, or CSV / JSON-lines tables:

    FOLDER/NAME/*.jpg                 a folder for each identity (also under FOLDER/identities/)
    FOLDER/references.csv | .jsonl    or a table: name, image[, variant]
    FOLDER/prompts.csv | .jsonl | .txt   prompt[, id, category, people]; .txt: a prompt a line
    FOLDER/pairs.csv | .jsonl         optional: left, right[, third]
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from idbench.errors import UserError
from idbench.names import suggestion
from idbench.table_files import read_rows

PICTURES = (
    ".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".pgm", ".ppm", ".tif", ".tiff", ".avif",
    ".heic", ".heif",
)
TABLES = (".csv", ".tsv", ".jsonl")
PEOPLE_SPLITS = {1: "single", 2: "multi", 3: "multi3"}
"""Split of a sample by the number of its people, when nothing else is referred to."""


@dataclass(frozen=True)
class Person:
    """One identity: a name unique in the suite (letters, digits and `-`), pictures in the order in
    which they are tried as the reference, and the `variant` of prompts that fits them (such as
    `woman`)."""

    name: str
    pictures: tuple[Path, ...]
    variant: str = ""


@dataclass(frozen=True)
class Item:
    """A reference that is no person: `kind` is `garment` or `background`."""

    kind: str
    name: str
    picture: Path


@dataclass(frozen=True)
class Prompt:
    """One prompt for 1 to 3 people; `variants` are wordings by the person's `variant`, else
    `text`."""

    name: str
    category: str
    text: str
    people: int = 1
    variants: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A sample that the layout fixes itself: nothing is drawn."""

    prompt: str
    people: tuple[str, ...]
    items: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """Everything that was read of a layout.

    Attributes:
        rows: samples fixed by the layout; empty if prompts are drawn for people.
        groups: two or three people's names, left to right; empty if pairs are drawn.
        skipped: what was left out, and why, by name.
    """

    layout: str
    people: tuple[Person, ...]
    prompts: tuple[Prompt, ...]
    items: tuple[Item, ...] = ()
    rows: tuple[Row, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)


def read_own(folder: Path) -> Source:
    """A user's own references and prompts; see the module's description. Raises UserError: no
    references, no prompts, a missing picture, or a wrong row."""
    table = find_table(folder, "references")
    items: tuple[Item, ...] = ()
    skipped: dict[str, str] = {}
    if table:
        people, items = _listed(table)
    else:
        people, skipped = _folders(folder)
    if not people:
        loose = len(pictures_in(folder))
        raise UserError(
            (f"{table} names no person: " if table else f"{folder} has no references: ")
            + (f"{loose} images are in it directly, " if loose and not table else "")
            + "make a folder of pictures for each person, or a references.csv with the columns "
            "name and image."
        )
    prompts = _prompts(folder)
    pairs = find_table(folder, "pairs")
    known = [p.name for p in people]
    groups = _groups(pairs, known) if pairs else ()
    return Source("own", tuple(people), prompts, items, groups=groups, skipped=skipped)


def find_table(folder: Path, stem: str) -> Path | None:
    """The file `stem` with one of the endings of `TABLES` in `folder`, if any."""
    return next((p for e in TABLES if (p := folder / f"{stem}{e}").is_file()), None)


def safe_name(text: str) -> str:
    """`text` as a name in a suite: letters of any script, digits and `-`."""
    whole = unicodedata.normalize("NFC", text.strip())
    return re.sub(r"[\W_]+", "-", whole).strip("-") or "unnamed"


def natural(path: Path) -> list[Any]:
    """Sort key that puts `2.jpg` before `10.jpg`."""
    return [(int(p), "") if p.isdigit() else (-1, p.lower()) for p in re.split(r"(\d+)", path.name)]


def pictures_in(folder: Path) -> list[Path]:
    """The image files directly in `folder`, `2.jpg` before `10.jpg`."""
    found = (p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    return sorted((p for p in found if p.suffix.lower() in PICTURES), key=natural)


def required(row: Mapping[str, Any], key: str, where: str) -> str:
    """The text of a field that must be there."""
    value = row.get(key)
    if value is None or not str(value).strip():
        raise UserError(f"{where} has no {key}; fill it in.")
    return str(value).strip()


def distinct(names: Iterable[str], what: str, where: Path) -> None:
    """Refuse two things of one name."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UserError(f"{where} has two {what} named {name!r}; rename one.")
        seen.add(name)


def _folders(folder: Path) -> tuple[list[Person], dict[str, str]]:
    """A person for each folder with pictures; the folders without, with the reason."""
    inside = folder / "identities"
    base = inside if inside.is_dir() else folder
    people, skipped = [], {}
    for one in sorted((p for p in base.iterdir() if p.is_dir()), key=natural):
        if one.name.startswith("."):
            continue
        pictures = pictures_in(one)
        if pictures:
            people.append(Person(safe_name(one.name), tuple(pictures)))
        else:
            skipped[one.name] = f"its folder contains no image ({', '.join(PICTURES[:4])}, ...)"
    distinct((p.name for p in people), "people", base)
    return people, skipped


def _listed(table: Path) -> tuple[list[Person], tuple[Item, ...]]:
    pictures: dict[str, list[Path]] = {}
    variants: dict[str, str] = {}
    items = []
    for where, row in read_rows(table, "table", ("name", "image", "variant", "kind"), others=False):
        image = table.parent / required(row, "image", where)
        if not image.is_file():
            raise UserError(f"{where} names the image {image}, which is missing; check the path.")
        name = safe_name(str(row.get("name") or image.stem))
        kind = str(row.get("kind") or "face")
        if kind in ("garment", "background"):
            items.append(Item(kind, name, image))
        elif kind == "face":
            pictures.setdefault(name, []).append(image)
            variants[name] = str(row.get("variant") or "")
        else:
            raise UserError(
                f"{where} has the kind {kind!r}; known are face, garment and background."
            )
    distinct([*pictures, *(i.name for i in items)], "references", table)
    people = [Person(n, tuple(files), variants[n]) for n, files in pictures.items()]
    return people, tuple(items)


def _prompts(folder: Path) -> tuple[Prompt, ...]:
    plain = folder / "prompts.txt"
    table = find_table(folder, "prompts")
    if table is None and not plain.is_file():
        raise UserError(
            f"{folder} has no prompts: add prompts.csv with the columns prompt and category, or "
            "prompts.txt with one prompt per line."
        )
    rows: list[tuple[str, dict[str, Any]]]
    if table is not None:
        known = ("prompt", "id", "category", "people")
        rows = list(read_rows(table, "table", known, others=False))
    else:
        lines = plain.read_text(encoding="utf-8-sig").splitlines()
        rows = [(f"{plain} line {n}", {"prompt": t}) for n, t in enumerate(lines, 1) if t.strip()]
    made = []
    for number, (where, row) in enumerate(rows, 1):
        people = str(row.get("people") or 1)
        if people not in ("1", "2", "3"):
            raise UserError(f"{where} has {people} people; it must be 1, 2 or 3.")
        name = safe_name(str(row.get("id") or f"p{number:03d}"))
        category = str(row.get("category") or "all").strip()
        made.append(Prompt(name, category, required(row, "prompt", where), int(people)))
    if not made:
        raise UserError(f"{table or plain} has no prompt; add one.")
    distinct((p.name for p in made), "prompts", table or plain)
    return tuple(made)


def _groups(table: Path, known: list[str]) -> tuple[tuple[str, ...], ...]:
    groups = []
    for where, row in read_rows(table, "table", ("left", "right", "third"), others=False):
        names = [safe_name(required(row, key, where)) for key in ("left", "right")]
        names += [safe_name(str(row["third"]))] if row.get("third") else []
        for name in names:
            if name not in known:
                hint = suggestion(name, known, "check the name.")
                raise UserError(f"{where} names {name!r}, who has no reference; {hint}")
        if len(set(names)) < len(names):
            raise UserError(f"{where} names {names[0]!r} twice; name different people.")
        groups.append(tuple(names))
    return tuple(groups)
