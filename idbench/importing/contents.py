"""What a reader of a layout finds: people, other references, prompts, and who is with whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

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
    variants: tuple[tuple[str, str], ...] = ()

    def wording(self, variant: str) -> str:
        """The text for a person of that variant."""
        return dict(self.variants).get(variant, self.text)


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
