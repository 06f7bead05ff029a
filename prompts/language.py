"""From an avatar scene to an English prompt, in many paraphrases.

A description never mentions a person's face, hair or other traits of identity: those come from
the reference. It mentions a chosen or random part of the scene, so that models trained with it
learn prompts that leave things open.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from idbench.prompts import phrases
from idbench.prompts.avatars.scene import Garment, Person, Scene
from idbench.prompts.phrases import finish, join, listed, pick, plural, with_article

MAXIMUM_TOKENS = 30
"""Words and punctuation marks of a prompt; the tokenizer of the embedded scale keeps 32."""
PERSON_ATTRIBUTES = ("expression", "motion", "garment")
SCENE_ATTRIBUTES = ("background", "light")

SPOKEN = {"speaking": "talk", "laugh": "laugh", "smile": "smile"}
"""What two people do together by an expression that they share."""
_PROBABILITY = {"expression": 0.75, "motion": 0.65, "garment": 0.7, "background": 0.75,
                "light": 0.25}
_TOKEN = re.compile(r"[a-z0-9]+|[^\sa-z0-9]")


@dataclass(frozen=True)
class Description:
    """A prompt and what it mentions: "background", "light", and "expression:0", "motion:0",
    "garment:0" with the index of the person from the left."""

    text: str
    mentioned: frozenset[str]


def tokens(text: str) -> list[str]:
    """Lower-case words and single punctuation marks: the units of the text encoder."""
    return _TOKEN.findall(text.lower())


@cache
def vocabulary() -> tuple[str, ...]:
    """Every token that `describe` can write, sorted."""
    texts = _strings([value for name, value in vars(phrases).items() if name.isupper()])
    found = {word for text in texts for word in tokens(re.sub(r"\{\w+\}", " ", text))}
    return tuple(sorted(found))


def describe(
    scene: Scene, rng: np.random.Generator, mention: Collection[str] | None = None,
    chances: Mapping[str, float] | None = None,
) -> str:
    """A prompt for the scene: at most `MAXIMUM_TOKENS` tokens. See `description`."""
    return description(scene, rng, mention, chances).text


def description(
    scene: Scene, rng: np.random.Generator, mention: Collection[str] | None = None,
    chances: Mapping[str, float] | None = None,
) -> Description:
    """A prompt for the scene and what it mentions.

    `mention` lists what to mention: "background", "light", "expression", "motion" and "garment"
    (of every person), or "garment:1" (of the second person from the left). Without it a
    random part is mentioned; `chances` replaces how likely an attribute is ("expression": 0.5).
    What does not fit in `MAXIMUM_TOKENS` is left out.

    Raises ValueError: `mention` has an unknown attribute.
    """
    likely = {**_PROBABILITY, **(chances or {})}
    named = _draw(scene, rng, likely) if mention is None else _expand(scene, mention)
    while True:
        for _ in range(4):
            text = finish(_write(scene, named, rng))
            if len(tokens(text)) <= MAXIMUM_TOKENS:
                return Description(text, frozenset(named))
        named = set(named) - {pick(rng, sorted(named))}


def interaction(scene: Scene) -> str | None:
    """What two people of a scene do together (a key of `phrases.INTERACTIONS`), or None."""
    if len(scene.people) != 2:
        return None
    left, right = scene.people
    turns = {("turn right", "turn left"): "facing", ("turn left", "turn right"): "apart"}
    if (left.motion, right.motion) in turns:
        return turns[left.motion, right.motion]
    if left.expression == right.expression and left.expression in SPOKEN:
        return SPOKEN[left.expression]
    return "nod" if left.motion == right.motion == "nod" else None


def garment_phrase(garment: Garment, rng: np.random.Generator) -> str:
    """A garment with its article: "a red striped shirt with a star on the chest"."""
    colour = pick(rng, phrases.COLOUR_WORDS[garment.colour])
    noun = pick(rng, phrases.GARMENT_NOUNS)
    with_parts: list[str] = []
    adjectives = [colour]
    if garment.pattern != "plain" and rng.random() < 0.3:
        with_parts.append(pick(rng, phrases.PATTERN_NOUNS[garment.pattern]))
    else:
        adjectives.append(pick(rng, phrases.PATTERN_ADJECTIVES[garment.pattern]))
        if rng.random() < 0.4:
            adjectives.reverse()
    if garment.emblem != "none":
        emblem = pick(rng, phrases.EMBLEMS[garment.emblem])
        with_parts.append(f"{emblem} {pick(rng, phrases.EMBLEM_PLACES)}")
    text = with_article(" ".join([*adjectives, noun]).strip())
    return f"{text} with {' and '.join(with_parts)}" if with_parts else text


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
        return
    if value is phrases.VERBS:
        yield from value
    for item in value.values() if isinstance(value, dict) else value:
        yield from _strings(item)


def _draw(scene: Scene, rng: np.random.Generator, likely: Mapping[str, float]) -> set[str]:
    named = {a for a in SCENE_ATTRIBUTES if rng.random() < likely[a]}
    for index, person in enumerate(scene.people):
        for attribute in PERSON_ATTRIBUTES:
            # People rarely say that nothing happens, so a model must not depend on it.
            default = getattr(person, attribute) in ("neutral", "still")
            if rng.random() < likely[attribute] * (0.6 if default else 1.0):
                named.add(f"{attribute}:{index}")
    return named


def _expand(scene: Scene, mention: Collection[str]) -> set[str]:
    people = range(len(scene.people))
    named: set[str] = set()
    for item in mention:
        attribute, _, index = item.partition(":")
        if item in SCENE_ATTRIBUTES:
            named.add(item)
        elif item in PERSON_ATTRIBUTES:
            named.update(f"{item}:{i}" for i in people)
        elif attribute in PERSON_ATTRIBUTES and index in {str(i) for i in people}:
            named.add(item)
        else:
            raise ValueError(f"cannot mention {item!r} of a scene of {len(people)} people")
    return named


def _write(scene: Scene, named: Collection[str], rng: np.random.Generator) -> str:
    """One try at a text, tokens apart by spaces, without capitals and full of spare spaces."""
    place = pick(rng, phrases.BACKGROUNDS[scene.background]) if "background" in named else ""
    light = pick(rng, phrases.LIGHTS[scene.light]) if "light" in named else ""
    light = f", {light}" if light else ""
    if len(scene.people) == 1:
        return _write_one(scene.people[0], _of_person(named, 0), place, light, rng)
    return _write_many(scene, named, place, light, rng)


def _of_person(named: Collection[str], index: int) -> frozenset[str]:
    """The attributes that are mentioned of one person."""
    return frozenset(a for a in PERSON_ATTRIBUTES if f"{a}:{index}" in named)


def _write_one(
    person: Person, said: frozenset[str], place: str, light: str, rng: np.random.Generator
) -> str:
    style = rng.random()
    if style < 0.25:  # a noun phrase: "a video of a smiling person in a park"
        what = _noun_phrase(person, said, rng)
        return f"{pick(rng, phrases.VIDEO_OF)} {what} {place} {light} ."
    if style < 0.4:  # two sentences: the person first, then what they do
        verbs = _verbs(person, said, rng)
        if verbs:
            first = _clause(person, said & {"garment"}, rng)
            return f"{first} {place} {light} . they {join(verbs, rng, 0)} ."
    clause = _clause(person, said, rng)
    if place and style < 0.65:
        return f"{place} , {clause} {light} ."
    return f"{clause} {place} {light} ."


def _write_many(
    scene: Scene, named: Collection[str], place: str, light: str, rng: np.random.Generator
) -> str:
    count = len(scene.people)
    together = interaction(scene)
    named = set(named)
    opening = ""
    if together and rng.random() < 0.7:
        attribute = "expression" if together in SPOKEN.values() else "motion"
        pair = {f"{attribute}:0", f"{attribute}:1"}
        if pair <= named:
            named -= pair
            opening = plural(pick(rng, phrases.INTERACTIONS[together]))
    everybody = ""
    for attribute, table in (("expression", phrases.EXPRESSION_VERBS),
                             ("motion", phrases.MOTION_VERBS)):
        every = {f"{attribute}:{i}" for i in range(count)}
        values = {getattr(p, attribute) for p in scene.people}
        if not opening and len(values) == 1 and every <= named and rng.random() < 0.7:
            named -= every
            opening = plural(pick(rng, table[values.pop()]))
            everybody = pick(rng, phrases.EVERYBODY[count])
    positions = ("left", "right") if count == 2 else ("left", "middle", "right")
    parts = [_positioned(person, position, said, count, rng)
             for i, (person, position) in enumerate(zip(scene.people, positions, strict=True))
             if (said := _of_person(named, i))]
    people = everybody or pick(rng, phrases.PEOPLE[count])
    beside = "" if opening else pick(rng, phrases.STANDING_TOGETHER)
    if not parts or opening or rng.random() < 0.4:
        stance = opening or pick(rng, phrases.STANCES) + " " + beside
        mark = pick(rng, (" .", " :", " ;")) if parts else ""
        return f"{people} {stance} {place} {light} {mark} {listed(parts, rng)} ."
    if place and rng.random() < 0.5:
        return f"{place} , {listed(parts, rng)} {light} ."
    return f"{listed(parts, rng)} {', ' + place if place else ''} {light} ."


def _positioned(
    person: Person, position: str, said: frozenset[str], count: int, rng: np.random.Generator
) -> str:
    style = rng.random()
    if style < 0.25:
        clause = _clause(person, said, rng, subject="a person")
        return pick(rng, phrases.PREPOSED_POSITIONS[position]).format(n=clause)
    subject = pick(rng, phrases.POSITIONS[position])
    if style < 0.5 or count == 3:
        subject = phrases.SHORT_POSITIONS[position]
    return _clause(person, said, rng, subject=subject)


def _clause(
    person: Person, said: frozenset[str], rng: np.random.Generator, subject: str | None = None
) -> str:
    """Subject and finite verb: "a person in a red shirt smiles and turns left"."""
    wears = "garment" in said
    garment = garment_phrase(person.garment, rng) if wears else ""
    if subject is None:
        subject = pick(rng, phrases.SUBJECTS)
        adjectives = phrases.EXPRESSION_ADJECTIVES[person.expression]
        if subject.endswith("person") and "expression" in said and rng.random() < 0.25 \
                and adjectives:
            said -= {"expression"}
            article, _, noun = subject.partition(" ")
            noun = f"{pick(rng, adjectives)} {noun}"
            subject = with_article(noun) if article == "a" else f"{article} {noun}"
    verbs = _verbs(person, said, rng)
    if not verbs and wears:
        return f"{subject} {pick(rng, ('wears', 'is wearing', 'is dressed in'))} {garment}"
    if not verbs:
        verbs = [pick(rng, phrases.STANCES)]
    predicate = join(verbs, rng, 1)
    if wears and rng.random() < 0.6:
        return f"{subject} {pick(rng, phrases.WEARING).format(g=garment)} {predicate}"
    if wears:
        return f"{subject} {predicate} {pick(rng, ('in', ', wearing'))} {garment}"
    return f"{subject} {predicate}"


def _noun_phrase(person: Person, said: frozenset[str], rng: np.random.Generator) -> str:
    """Without a finite verb: "a happy person in a red shirt, turning left"."""
    noun, tail = "a person", ""
    if "expression" in said and rng.random() < 0.6:
        adjectives = phrases.EXPRESSION_ADJECTIVES[person.expression]
        said -= {"expression"}
        if adjectives and rng.random() < 0.6:
            noun = with_article(f"{pick(rng, adjectives)} person")
        else:
            tail = pick(rng, phrases.EXPRESSION_WITH[person.expression])
    if "garment" in said:
        wearing = pick(rng, phrases.WEARING).format(g=garment_phrase(person.garment, rng))
        noun = f"{noun} {wearing}"
    verbs = _verbs(person, said, rng)
    return f"{noun} {tail} {join(verbs, rng, 2) if verbs else ''}"


def _verbs(person: Person, said: frozenset[str], rng: np.random.Generator) -> list[str]:
    verbs = []
    if "expression" in said:
        verbs.append(pick(rng, phrases.EXPRESSION_VERBS[person.expression]))
    if "motion" in said:
        verbs.append(pick(rng, phrases.MOTION_VERBS[person.motion]))
    if rng.random() < 0.35:
        verbs.reverse()
    return [v.format(head=pick(rng, ("the head", "their head")),
                     eyes=pick(rng, ("the eyes", "their eyes"))) for v in verbs]
