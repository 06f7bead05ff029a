"""The words of the prompt language, for each attribute of an avatar scene, and its grammar.

Verb phrases are written in their base form ("turn {head} left"); `VERBS` gives the other
two forms of their first word. `{head}` and `{eyes}` become "the head", "their head" or, for
several people, "their heads". Every string in the tables feeds the vocabulary of the text
encoder, so a word that appears in none of them is unknown to the embedded models.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import numpy as np

VERBS: dict[str, tuple[str, str]] = {
    "burst": ("bursts", "bursting"),
    "chat": ("chats", "chatting"), "chuckle": ("chuckles", "chuckling"),
    "close": ("closes", "closing"), "face": ("faces", "facing"), "frown": ("frowns", "frowning"),
    "gasp": ("gasps", "gasping"), "giggle": ("giggles", "giggling"), "give": ("gives", "giving"),
    "glance": ("glances", "glancing"), "grin": ("grins", "grinning"), "have": ("has", "having"),
    "hold": ("holds", "holding"), "keep": ("keeps", "keeping"), "laugh": ("laughs", "laughing"),
    "lean": ("leans", "leaning"), "look": ("looks", "looking"),
    "make": ("makes", "making"), "move": ("moves", "moving"), "nod": ("nods", "nodding"),
    "pose": ("poses", "posing"), "remain": ("remains", "remaining"),
    "rest": ("rests", "resting"), "say": ("says", "saying"), "scowl": ("scowls", "scowling"),
    "seem": ("seems", "seeming"), "shake": ("shakes", "shaking"), "share": ("shares", "sharing"),
    "show": ("shows", "showing"), "sit": ("sits", "sitting"), "smile": ("smiles", "smiling"),
    "speak": ("speaks", "speaking"), "stand": ("stands", "standing"), "stay": ("stays", "staying"),
    "sulk": ("sulks", "sulking"), "swing": ("swings", "swinging"),
    "talk": ("talks", "talking"), "tell": ("tells", "telling"), "tilt": ("tilts", "tilting"),
    "turn": ("turns", "turning"), "wait": ("waits", "waiting"), "wear": ("wears", "wearing"),
}

EXPRESSION_VERBS: dict[str, tuple[str, ...]] = {
    "neutral": ("look calm", "keep a neutral face", "keep a straight face", "look relaxed",
                "show no emotion", "have a neutral expression", "remain calm", "seem quiet"),
    "smile": ("smile", "smile warmly", "smile gently", "give a smile", "smile at the camera",
              "grin", "have a friendly smile", "look happy", "show a gentle smile"),
    "laugh": ("laugh", "laugh out loud", "laugh happily", "burst out laughing",
              "chuckle with joy", "giggle", "laugh at a joke", "have a good laugh"),
    "surprise": ("look surprised", "look amazed", "gasp", "gasp in surprise", "look astonished",
                 "make a surprised face", "show great surprise", "seem shocked"),
    "sadness": ("look sad", "frown sadly", "look unhappy", "make a sad face", "seem sad",
                "have a sad expression", "look very sad", "sulk"),
    "anger": ("look angry", "frown angrily", "scowl", "look furious", "make an angry face",
              "seem annoyed", "have an angry expression", "look mad"),
    "eyes closed": ("keep {eyes} closed", "close {eyes}", "hold {eyes} shut", "keep {eyes} shut",
                    "rest with closed eyes", "close both eyes"),
    "speaking": ("talk", "speak", "say something", "tell a story", "talk to the camera",
                 "speak to the viewer", "say a few words", "chat"),
}
EXPRESSION_ADJECTIVES: dict[str, tuple[str, ...]] = {
    "neutral": ("calm", "relaxed", "quiet"), "smile": ("smiling", "happy", "grinning", "cheerful"),
    "laugh": ("laughing", "giggling", "chuckling"),
    "surprise": ("surprised", "amazed", "astonished", "shocked"),
    "sadness": ("sad", "unhappy", "gloomy"), "anger": ("angry", "furious", "annoyed", "scowling"),
    "eyes closed": (), "speaking": ("talking", "speaking", "chatting"),
}
EXPRESSION_WITH: dict[str, tuple[str, ...]] = {
    "neutral": ("with a neutral face", "with a neutral expression", "with a calm expression"),
    "smile": ("with a smile", "with a friendly smile", "with a happy face", "with a gentle smile"),
    "laugh": ("with a big laugh", "with a happy laugh", "with loud laughter"),
    "surprise": ("with a surprised face", "with a look of surprise", "with wide open eyes"),
    "sadness": ("with a sad face", "with a sad look", "with a gloomy expression"),
    "anger": ("with an angry face", "with an angry look", "with a furious expression"),
    "eyes closed": ("with closed eyes", "with eyes closed", "with both eyes shut"),
    "speaking": ("with the mouth moving in speech", "in the middle of a speech"),
}

MOTION_VERBS: dict[str, tuple[str, ...]] = {
    "still": ("keep still", "hold still", "stay still", "hold {head} still", "keep {head} still",
              "look straight at the camera", "face the camera", "remain still"),
    "turn left": ("turn left", "turn {head} to the left", "look to the left", "turn to the left",
                  "turn {head} left", "look left", "slowly turn left", "glance left"),
    "turn right": ("turn right", "turn {head} to the right", "look to the right",
                   "turn to the right", "turn {head} right", "look right", "slowly turn right",
                   "glance right"),
    "nod": ("nod", "nod slowly", "nod in agreement", "nod {head}", "nod yes", "slowly nod",
            "move {head} up and down"),
    "shake": ("shake {head}", "shake {head} slowly", "shake {head} from side to side",
              "shake {head} to say no", "swing {head} from side to side"),
    "tilt": ("tilt {head}", "tilt {head} to one side", "lean {head} to one side",
             "tilt {head} gently", "slowly tilt {head}", "tilt {head} sideways"),
}

INTERACTIONS: dict[str, tuple[str, ...]] = {
    "talk": ("talk to each other", "chat with each other", "have a conversation",
             "speak to each other", "tell each other a story"),
    "laugh": ("laugh together", "share a laugh", "share a joke and laugh", "laugh with each other"),
    "smile": ("smile together", "share a smile", "smile at the same time", "smile with each other"),
    "nod": ("nod together", "nod in agreement", "nod at the same time"),
    "facing": ("turn to each other", "look at each other", "turn and face each other",
               "turn {head} to each other"),
    "apart": ("turn away from each other", "look away from each other",
              "look in opposite directions"),
}
"""What two people do together; `language.interaction` says which scenes mean which."""

GARMENT_NOUNS = ("shirt", "sweater", "top", "jumper", "pullover")
COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "white": ("white",), "black": ("black",), "grey": ("grey", "gray"), "red": ("red",),
    "orange": ("orange",), "yellow": ("yellow",), "green": ("green",), "blue": ("blue",),
    "purple": ("purple", "violet"), "pink": ("pink",),
}
PATTERN_ADJECTIVES: dict[str, tuple[str, ...]] = {
    "plain": ("", "", "plain"), "striped": ("striped",), "checked": ("checked", "checkered"),
    "dotted": ("dotted", "spotted"),
}
PATTERN_NOUNS: dict[str, tuple[str, ...]] = {
    "plain": (), "striped": ("stripes",), "checked": ("checks", "squares"),
    "dotted": ("dots", "spots"),
}
EMBLEMS: dict[str, tuple[str, ...]] = {
    "none": (), "star": ("a star", "a big star"), "heart": ("a heart", "a big heart"),
    "circle": ("a circle", "a round emblem", "a big circle"),
}
EMBLEM_PLACES = ("", "", "", "on the chest", "on the front", "on it", "printed on it")

BACKGROUNDS: dict[str, tuple[str, ...]] = {
    "studio": ("in a studio", "in a photo studio", "before a plain studio wall",
               "against a plain backdrop", "inside a studio"),
    "park": ("in a park", "in a green park", "among the trees of a park", "outdoors in a park",
             "in front of trees and grass"),
    "beach": ("on a beach", "at the beach", "by the sea", "on the sand by the sea",
              "on a sunny beach"),
    "city": ("in the city", "on a city street", "in front of tall buildings", "in a big city",
             "before the houses of a city"),
    "library": ("in a library", "in front of shelves of books", "among books in a library",
                "in a quiet library", "before a bookshelf"),
    "kitchen": ("in a kitchen", "in the kitchen at home", "inside a kitchen",
                "in a bright kitchen", "before the kitchen cupboards"),
    "mountains": ("in the mountains", "in front of mountains", "before high mountains",
                  "in a mountain landscape", "with mountains behind"),
    "night sky": ("under the night sky", "under a starry sky", "at night under the stars",
                  "outdoors at night", "below the moon and stars"),
    "snow": ("in the snow", "in a snowy landscape", "on a snowy winter day", "outdoors in snow",
             "in a white winter field"),
}
LIGHTS: dict[str, tuple[str, ...]] = {
    "soft": ("in soft light", "under soft even light", "softly lit", "with gentle light"),
    "left": ("lit from the left", "with light from the left", "with a lamp on the left"),
    "right": ("lit from the right", "with light from the right", "with a lamp on the right"),
    "warm": ("in warm light", "in a warm glow", "in warm evening light", "lit by a warm lamp"),
}

SUBJECTS = ("a person", "someone", "a person", "the person", "one person", "this person")
STANCES = ("stand", "stand", "sit", "wait", "pose", "stay")
"""What a person does where no other verb is said. Says nothing that can be seen."""
WEARING = ("in {g}", "wearing {g}", "dressed in {g}", "who wears {g}")
VIDEO_OF = ("a video of", "a short video of", "a portrait of", "a close portrait of", "a clip of",
            "a short clip showing", "a film of", "a close view of", "footage of")

PEOPLE = {2: ("two people", "two persons", "a pair of people", "two friends"),
          3: ("three people", "three persons", "a group of three", "three friends")}
STANDING_TOGETHER = ("", "", "side by side", "together", "next to each other", "in a row")
POSITIONS: dict[str, tuple[str, ...]] = {
    "left": ("the person on the left", "the left person", "the one on the left",
             "the first person"),
    "middle": ("the person in the middle", "the middle person", "the one in the middle",
               "the person between them", "the second person"),
    "right": ("the person on the right", "the right person", "the one on the right",
              "the last person", "the other person"),
}
SHORT_POSITIONS = {"left": "the left one", "middle": "the middle one", "right": "the right one"}
PREPOSED_POSITIONS: dict[str, tuple[str, ...]] = {
    "left": ("on the left , {n}", "on the left {n}", "to the left , {n}"),
    "middle": ("in the middle {n}", "in the center {n}", "between them {n}"),
    "right": ("on the right {n}", "to the right {n}", "beside them {n}"),
}
EVERYBODY = {2: ("both", "both people", "both of them", "the two"),
             3: ("all three", "all of them", "everybody", "the three")}
GLUE = ("and", "while", "they", "is wearing", "is dressed in", ",", ".", ":", ";", "an",
        "the head", "their heads", "the eyes", "a person", "with")
"""What `language` puts between the phrases; `language.vocabulary` reads it."""


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
    words[at] = VERBS[words[at]][form - 1]
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
