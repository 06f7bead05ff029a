"""The prompt language: short, varied, true to the scene, silent on identity."""

from __future__ import annotations

import numpy as np
import pytest

from idbench.prompts import phrases
from idbench.prompts.avatars.scene import EXPRESSIONS, MOTIONS, Garment, Person, Scene
from idbench.prompts.language import (
    MAXIMUM_TOKENS,
    Description,
    describe,
    description,
    interaction,
    tokens,
    vocabulary,
)
from idbench.prompts.sampling import random_scene

IDENTITY_WORDS = {
    "hair", "beard", "bald", "skin", "nose", "brows", "glasses", "old", "young", "man", "woman",
    "blond", "moustache", "jaw", "tall person", "his", "her",
}


@pytest.fixture(scope="module")
def many() -> list[Description]:
    return [said for _, said in _random(2500, seed=1)]


def _random(count: int, people: int | None = None, seed: int = 0):
    rng = np.random.default_rng(seed)
    for index in range(count):
        scene = random_scene(rng, people or 1 + index % 3)
        yield scene, description(scene, rng)


def test_every_prompt_fits_and_uses_known_words(many: list[Description]) -> None:
    known = set(vocabulary())
    for said in many:
        words = tokens(said.text)
        assert len(words) <= MAXIMUM_TOKENS, said.text
        assert known.issuperset(words), said.text
        assert said.text[0].isupper() and said.text.endswith("."), said.text
        assert "  " not in said.text and " ," not in said.text and ",." not in said.text


def test_the_vocabulary_is_used_and_of_the_size_the_text_encoder_expects(
    many: list[Description],
) -> None:
    assert 250 <= len(vocabulary()) <= 400
    used = {word for said in many for word in tokens(said.text)}
    # Some second forms of rare verbs ("sulking") need a rare frame; most words must occur.
    assert len(used) >= 0.85 * len(vocabulary())


def test_identity_is_never_described() -> None:
    assert not IDENTITY_WORDS & set(vocabulary())


def test_the_same_seed_gives_the_same_prompt_and_others_differ() -> None:
    scene = Scene((Person(10_000, "smile", "nod", Garment("red", "striped", "star")),), "beach")
    texts = [describe(scene, np.random.default_rng(i)) for i in range(200)]
    assert texts == [describe(scene, np.random.default_rng(i)) for i in range(200)]
    assert len(set(texts)) > 150


@pytest.mark.parametrize("people", [1, 2, 3])
def test_without_a_wish_every_attribute_is_sometimes_named_and_sometimes_not(people: int) -> None:
    counts: dict[str, int] = {}
    for _, said in _random(500, people):
        for item in said.mentioned:
            counts[item] = counts.get(item, 0) + 1
    expected = {f"{a}:{i}" for a in ("expression", "motion", "garment") for i in range(people)}
    assert set(counts) == expected | {"background", "light"}
    assert all(20 < n < 450 for n in counts.values()), counts


def test_a_wish_is_followed_exactly() -> None:
    scene = Scene((Person(10_000, "anger", "tilt", Garment("purple", "plain", "none")),),
                  "night sky", "warm")
    for seed in range(100):
        said = description(scene, np.random.default_rng(seed), mention={"expression"})
        assert said.mentioned == {"expression:0"}
        assert not {"purple", "violet", "tilts", "stars", "night"} & set(tokens(said.text))
        both = description(scene, np.random.default_rng(seed), mention=("garment", "background"))
        assert both.mentioned == {"garment:0", "background"}
        assert {"purple", "violet"} & set(tokens(both.text))


@pytest.mark.parametrize("wish", ["hair", "garment:1", "expression:x", "background:0"])
def test_an_unknown_wish_is_refused(wish: str) -> None:
    scene = Scene((Person(10_000),))
    with pytest.raises(ValueError, match="cannot mention"):
        description(scene, np.random.default_rng(0), mention=[wish])


@pytest.mark.parametrize("people", [1, 2, 3])
def test_a_named_garment_shows_its_colour_pattern_and_emblem(people: int) -> None:
    wish = {"garment:0"}
    for scene, _ in _random(300, people):
        said = description(scene, np.random.default_rng(scene.seed), mention=wish)
        words = set(tokens(said.text))
        worn = scene.people[0].garment
        assert words & set(phrases.COLOUR_WORDS[worn.colour])
        if worn.pattern != "plain":
            nouns = phrases.PATTERN_ADJECTIVES[worn.pattern] + phrases.PATTERN_NOUNS[worn.pattern]
            assert words & set(nouns)
        if worn.emblem != "none":
            assert words & {worn.emblem, "round"}


def test_left_and_right_of_a_pair_are_never_swapped() -> None:
    scene = Scene((Person(10_000, garment=Garment("red")), Person(10_001, garment=Garment("blue"))))
    for seed in range(300):
        text = describe(scene, np.random.default_rng(seed), mention=["garment:0", "garment:1"])
        assert text.index("red") < text.index("blue")
        left = min(text.lower().find(w) for w in ("left", "first") if w in text.lower())
        assert left < text.index("red") or "on the left" in text.lower()


def test_what_two_people_do_together_is_read_from_the_scene() -> None:
    def pair(left: dict, right: dict) -> Scene:
        return Scene((Person(10_000, **left), Person(10_001, **right)))

    assert interaction(pair({"motion": "turn right"}, {"motion": "turn left"})) == "facing"
    assert interaction(pair({"motion": "turn left"}, {"motion": "turn right"})) == "apart"
    assert interaction(pair({"expression": "speaking"}, {"expression": "speaking"})) == "talk"
    assert interaction(pair({"expression": "anger"}, {"expression": "anger"})) is None
    assert interaction(Scene((Person(10_000, "laugh"),))) is None


def test_every_phrase_conjugates() -> None:
    groups = [phrases.EXPRESSION_VERBS, phrases.MOTION_VERBS, phrases.INTERACTIONS]
    for verbs in [v for group in groups for v in group.values()]:
        for phrase in verbs:
            assert phrase.removeprefix("slowly ").split(" ")[0] in phrases.VERBS, phrase
    assert set(phrases.EXPRESSION_VERBS) == set(EXPRESSIONS)
    assert set(phrases.MOTION_VERBS) == set(MOTIONS)


def test_random_scenes_are_reproducible_and_have_different_people() -> None:
    one, two = (random_scene(np.random.default_rng(5), 3) for _ in range(2))
    assert one == two
    seeds = range(10_000, 10_004)
    for seed in range(50):
        scene = random_scene(np.random.default_rng(seed), 3, seeds)
        assert len({p.identity for p in scene.people}) == 3


def test_chances_change_how_often_an_attribute_is_named() -> None:
    rng = np.random.default_rng(0)
    named = [description(random_scene(rng, 1), rng, chances={"expression": 0.0, "motion": 1.0})
             for _ in range(60)]
    assert not any("expression:0" in said.mentioned for said in named)
    usual = [description(random_scene(rng, 1), rng) for _ in range(60)]
    assert any("expression:0" in said.mentioned for said in usual)
    assert sum("motion:0" in s.mentioned for s in named) > sum("motion:0" in s.mentioned
                                                              for s in usual)
