"""Attribute accuracy: does the video show what the prompt's truth says? For avatars.

For each person and attribute that the truth states, 1 when what is read of the video is what was
asked for, else 0; the value of a video is the mean over all of them. How each is read, over the
closed vocabulary of avatar scenes:

- head motion: from the five landmarks of the person's matched faces over time (`head_motion`);
- expression: a small network on the aligned crop (`expression_reader`), mean over frames;
- background: CLIP as zero-shot, the mean embedding of the sampled frames against
  the mean embedding of sentences that name each background;
- colour of the garment: the same, of the part of the frame that is nearest to the person. Pattern
  and emblem are not read: the embedded CLIP is too weak for them.

A reader makes mistakes of its own: docs/beyond.md says how often each is right on true renders,
which is the highest value that a perfect model gets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from idbench import embedded
from idbench.metrics.base import Embeddings, Metric, make_score, over_identities
from idbench.metrics.faces.crops import align_crops
from idbench.metrics.head_motion import read_motion
from idbench.prompts import phrases
from idbench.prompts.avatars.scene import BACKGROUNDS, EXPRESSIONS, GARMENT_COLOURS
from idbench.types import Sample, Score

if TYPE_CHECKING:
    from idbench.metrics.networks.clip import ClipEmbedder

ATTRIBUTES = ("expression", "motion", "garment", "background")


def sentences(attribute: str) -> dict[str, list[str]]:
    """Sentences that name each value of `background` or `garment` (its colour)."""
    if attribute == "background":
        return {
            value: [f"A person stands {place}." for place in phrases.BACKGROUNDS[value]]
            for value in BACKGROUNDS
        }
    return {
        value: [
            f"A person in {'an' if word[0] in 'aeiou' else 'a'} {word} {noun}."
            for word in phrases.COLOUR_WORDS[value] for noun in phrases.GARMENT_NOUNS
        ]
        for value in GARMENT_COLOURS
    }


@cache
def _classes(attribute: str, clip: ClipEmbedder) -> tuple[tuple[str, ...], np.ndarray]:
    """Values of an attribute and the mean embedding (values, d) of their sentences, length 1."""
    said = sentences(attribute)
    means = np.stack([clip.texts(texts).mean(0) for texts in said.values()])
    return tuple(said), means / np.linalg.norm(means, axis=1, keepdims=True)


def zero_shot(attribute: str, vectors: np.ndarray, clip: ClipEmbedder) -> str:
    """The value of `attribute` nearest to the mean of CLIP's frame embeddings (n, d)."""
    values, texts = _classes(attribute, clip)
    return values[int(np.argmax(texts @ np.asarray(vectors).mean(0)))]


def nearest_columns(width: int, boxes: np.ndarray, face: int) -> slice:
    """Columns of a frame that are nearer to a face than to any other of boxes (n, 4)."""
    centres = (boxes[:, 0] + boxes[:, 2]) / 2
    mine = centres[face]
    left = [(mine + c) / 2 for c in centres if c < mine]
    right = [(mine + c) / 2 for c in centres if c > mine]
    return slice(max(0, round(max(left, default=0))), min(width, round(min(right, default=width))))


def read_attributes(
    embeddings: Embeddings, person: int, wanted: Sequence[str]
) -> dict[str, str | None]:
    """What the video shows of a person (index of the reference), for each of `wanted`; None if the
    person was found in no frame, or in too few for motion."""
    found = [
        (k, face) for k, match in enumerate(embeddings.matches)
        if (face := match.face_of_reference[person]) is not None
    ]
    read: dict[str, str | None] = dict.fromkeys(wanted)
    frames, picture = embeddings.pixels, embeddings.protocol.clip_picture
    if "motion" in wanted:
        marks = np.full((len(embeddings.frames), 5, 2), np.nan)
        for k, face in found:
            marks[k] = embeddings.faces[k].landmarks[face]
        read["motion"] = read_motion(marks)
    if "expression" in wanted and found:
        # Imported late: scoring from the cache loads no torch.
        from idbench.metrics.networks.expression_reader import embedded_reader

        crops = [
            align_crops(frames[embeddings.frames[k]], embeddings.faces[k].landmarks[[face]])[0]
            for k, face in found
        ]
        scores = embedded_reader()(np.stack(crops)).mean(0)
        read["expression"] = EXPRESSIONS[int(np.argmax(scores))]
    if "garment" in wanted and found:
        parts, clip = [], embeddings.network("clip")
        for k, face in found:
            frame = frames[embeddings.frames[k]]
            columns = nearest_columns(frame.shape[1], embeddings.faces[k].boxes, face)
            part = frame[:, columns]
            if min(part.shape[:2]):
                parts.append(clip.pictures(np.ascontiguousarray(part)[None], picture)[0])
        read["garment"] = zero_shot("garment", np.stack(parts), clip) if parts else None
    if "background" in wanted:
        clip = embeddings.network("clip")
        vectors = clip.pictures(frames[list(embeddings.frames)], picture)
        read["background"] = zero_shot("background", vectors, clip)
    return read


def stated(truth: Mapping[str, Any], person: int) -> dict[str, str]:
    """What the truth says of a person and, for the first, of the background."""
    people = list(truth.get("people") or ())
    said = dict(people[person]) if person < len(people) else {}
    found = {name: str(said[name]) for name in ("expression", "motion") if said.get(name)}
    if said.get("garment"):
        found["garment"] = str(said["garment"]["colour"])
    if person == 0 and truth.get("background"):
        found["background"] = str(truth["background"])
    return found


def _accuracy(embeddings: Embeddings, metric: str, attributes: Sequence[str]) -> list[Score]:
    sample, rows, right = embeddings.sample, [], []
    for person, name in enumerate(sample.identities):
        said = {k: v for k, v in stated(sample.truth, person).items() if k in attributes}
        if not said:
            continue
        read = read_attributes(embeddings, person, list(said))
        known = [float(read[k] == v) for k, v in said.items() if read[k] is not None]
        few = "the person was found in too few frames to read it"
        rows.append(make_score(sample, metric, name, None, float(np.mean(known)) if known else few))
        right += known
    # Of the video the mean over all attributes, not over the people.
    return [*rows, over_identities(sample, metric, rows, together=lambda _: np.mean(right))]


def _metric(name: str, title: str, attributes: tuple[str, ...], what: str) -> Metric:
    """The accuracy of some attributes, for the samples whose truth states one of them."""

    def applies_to(sample: Sample) -> bool:
        people = range(len(sample.identities))
        return any(set(attributes) & set(stated(sample.truth, person)) for person in people)

    return Metric(
        name, title, True, (0.0, 1.0), f"share of {what} that the video shows",
        "idbench, on avatars; accuracy of the readers in docs/beyond.md",
        partial(_accuracy, metric=name, attributes=attributes),
        weights=partial(embedded.hashes, *{"expression"} & set(attributes)),
        runs=("clip",) if {"garment", "background"} & set(attributes) else (),
        needs_pixels=True, computed="named", applies_to=applies_to,
    )


ACCURACY = _metric("attribute_accuracy", "Attributes", ATTRIBUTES, "the prompt's attributes")
EXPRESSION = _metric("expression_accuracy", "Expression", ("expression",), "stated expressions")
MOTION = _metric("head_motion_accuracy", "Head motion", ("motion",), "stated head motions")
GARMENT = _metric("garment_accuracy", "Colour", ("garment",), "stated colours of garments")
BACKGROUND = _metric("background_accuracy", "Place", ("background",), "stated backgrounds")
