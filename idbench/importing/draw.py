"""Draws prompts for people and pairs of people, and makes the rows of the splits."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from idbench.files import sha256_json
from idbench.importing.faces import Face
from idbench.importing.sources import PEOPLE_SPLITS, Person, Prompt, Source
from idbench.suite import reference_row

SPLIT_OF_ITEM = {"garment": "tryon", "background": "background"}

Row = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """How a suite is made.

    Attributes:
        name: of the suite; the seed is appended to it where something is drawn.
        pairs: pairs (and triples) drawn if the layout gives none; the paper's multi-identity
            evaluation has 14, each with all its prompts.
        people: how many people with a usable picture are drawn, by `seed` (None: all).
        several: `drop` a reference with several faces, or use the `largest`.
        training: file of a training set's embeddings, or None.
        maximum_cosine: an identity nearer than this to the training set is dropped; 0.45 is of
            Concat-ID (arXiv 2503.14151), section 4.
    """

    name: str
    version: str = "1.0"
    licence: str = "not stated"
    seed: int = 0
    pairs: int = 14
    several: str = "drop"
    training: Path | None = None
    maximum_cosine: float = 0.45
    people: int | None = None


@dataclass(frozen=True)
class Kept:
    """A person who is kept, the picture used as the reference, and the face in it."""

    person: Person
    picture: Path
    face: Face
    nearest: float | None


def draw_people(
    kept: Mapping[str, Kept], options: Options
) -> tuple[dict[str, Kept], dict[str, str]]:
    """`options.people` of the people, and the reasons for the others. The order of the draw depends
    on the seed and each name alone."""
    count = options.people or len(kept)
    order = sorted(kept, key=lambda name: sha256_json(["people", options.seed, name]))
    drawn = set(order[:count])
    reason = f"not among the {count} people drawn by seed {options.seed}"
    return (
        {name: one for name, one in kept.items() if name in drawn},
        {name: reason for name in kept if name not in drawn},
    )


def make_splits(
    source: Source, kept: Mapping[str, Kept], options: Options
) -> tuple[list[Row], dict[str, list[Row]], dict[str, str]]:
    """Rows of prompts.jsonl, the rows of each split, and samples that lost a person."""
    rows: dict[str, list[Row]] = {}
    texts: dict[str, Row] = {}
    lost: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    items = {item.name: item for item in source.items}

    def add(split: str, prompt: Prompt, names: Sequence[str], others: Sequence[str]) -> None:
        variant = kept[names[0]].person.variant if len(names) == 1 else ""
        text = prompt.variants.get(variant, prompt.text)
        name = prompt.name if text == prompt.text else f"{prompt.name}-{variant}"
        texts[name] = {"prompt_id": name, "category": prompt.category, "prompt": text, "truth": {}}
        request = (split, text, tuple(names), tuple(others))
        if request in seen:
            lost[f"{prompt.name} of {'+'.join([*names, *others])}"] = (
                f"{seen[request]} has the same text and references")
            return
        seen[request] = prompt.name
        references = [reference_row("face", n) for n in names]
        references += [reference_row(items[i].kind, i) for i in others]
        rows.setdefault(split, []).append(
            {"prompt_id": name, "references": references, "truth": {}}
        )

    by_name = {p.name: p for p in source.prompts}
    for row in source.rows:
        gone = [n for n in row.people if n not in kept]
        if gone:
            lost[row.prompt] = f"its person {gone[0]} was dropped"
            continue
        split = SPLIT_OF_ITEM[items[row.items[0]].kind] if row.items \
            else PEOPLE_SPLITS[len(row.people)]
        add(split, by_name[row.prompt], row.people, row.items)
    if not source.rows:
        alone = [p for p in source.prompts if p.people == 1]
        for name in kept:
            for prompt in draw_prompts(alone, name, options.seed):
                add("single", prompt, [name], ())
        for group in _groups(source, list(kept), options, lost):
            for prompt in (p for p in source.prompts if p.people == len(group)):
                add(PEOPLE_SPLITS[len(group)], prompt, group, ())
        for item in source.items:
            for name in kept:
                for prompt in draw_prompts(alone, f"{name}/{item.name}", options.seed):
                    add(SPLIT_OF_ITEM[item.kind], prompt, [name], [item.name])
    return list(texts.values()), rows, lost


def draw_prompts(prompts: Sequence[Prompt], who: str, seed: int) -> list[Prompt]:
    """One prompt of each category for `who`: depends on the seed, the name and the category
    alone."""
    drawn = []
    for category in dict.fromkeys(p.category for p in prompts):
        of_category = [p for p in prompts if p.category == category]
        number = int(sha256_json(["prompt", seed, who, category])[:15], 16)
        drawn.append(of_category[number % len(of_category)])
    return drawn


def _groups(
    source: Source, names: Sequence[str], options: Options, lost: dict[str, str]
) -> list[tuple[str, ...]]:
    groups: list[tuple[str, ...]] = []
    for group in source.groups:
        gone = [n for n in group if n not in names]
        if gone:
            lost["+".join(group)] = f"its person {gone[0]} was dropped"
        else:
            groups.append(group)
    sizes = () if source.groups else sorted({p.people for p in source.prompts} - {1})
    for size in sizes:
        groups += draw_groups(names, size, options.pairs, options.seed)
    return groups


def draw_groups(names: Sequence[str], size: int, count: int, seed: int) -> list[tuple[str, ...]]:
    """`count` different groups of `size` people, or as many as there are, by the seed; each person
    is in about the same number of groups."""
    rng = np.random.default_rng([seed, size])
    names = sorted(names)
    used: Counter[str] = Counter()
    taken: dict[frozenset[str], tuple[str, ...]] = {}
    every = sum(1 for _ in itertools.islice(itertools.combinations(names, size), count))
    while len(taken) < min(count, every):
        best: tuple[str, ...] = ()
        for _ in range(64):
            # The least used first, in a new random order among equals each time.
            order = sorted(rng.permutation(names), key=lambda n: used[n])
            best = tuple(str(n) for n in order[:size])
            if frozenset(best) not in taken:
                break
        else:
            free = (c for c in itertools.combinations(names, size) if frozenset(c) not in taken)
            best = next(free)
        taken[frozenset(best)] = best
        used.update(best)
    return list(taken.values())
