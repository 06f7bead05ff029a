"""The grammar of the prompt language: verb forms, lists, articles, punctuation."""

from __future__ import annotations

import re
from collections.abc import Collection

import numpy as np

from idbench.prompts import phrases


def pick(rng: np.random.Generator, options: Collection[str]) -> str:
    """One of the options."""
    return list(options)[int(rng.integers(len(options)))]


def join(verbs: list[str], rng: np.random.Generator, form: int) -> str:
    """Verb phrases in base (0), third person (1) or -ing (2) form, joined."""
    if len(verbs) == 2 and form < 2 and rng.random() < 0.35:
        return f"{_conjugate(verbs[0], form)} while {_conjugate(verbs[1], 2)}"
    return " and ".join(_conjugate(v, form) for v in verbs)


def _conjugate(phrase: str, form: int) -> str:
    if form == 0:
        return phrase
    words = phrase.split(" ")
    at = 1 if words[0] == "slowly" else 0
    words[at] = phrases.VERBS[words[at]][form - 1]
    return " ".join(words)


def plural(phrase: str) -> str:
    """A verb phrase of several people."""
    return phrase.format(head="their heads", eyes="their eyes")


def listed(parts: list[str], rng: np.random.Generator) -> str:
    """Clauses as a list: "a , b and c"."""
    if len(parts) < 2:
        return "".join(parts)
    last = pick(rng, (" and ", " , and ", " while ", " , "))
    return " , ".join(parts[:-1]) + last + parts[-1]


def with_article(text: str) -> str:
    """With "a" or "an" before it."""
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def finish(text: str) -> str:
    """The text with the usual spaces, punctuation and capitals."""
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"(?:[,:;] )*([,.:;])(?= |$)", lambda m: m.group(1), text)
    text = re.sub(r" ([,.:;])", r"\1", text)
    return re.sub(r"(^|\. )([a-z])", lambda m: m.group(1) + m.group(2).upper(), text)
