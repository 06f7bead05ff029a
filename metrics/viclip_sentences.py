"""ViCLIP of every sentence: for prompts that are longer than the text tower reads.

Formula: mean over the prompt's parts of cos(v(8 frames), t(part)). Parts are sentences; one that
does not fit into the tower's 32 tokens is halved between words until it does. So all of the prompt
is read, but each part for itself. Not in the paper; the values are not those of `viclip`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from idbench.metrics.base import Embeddings, Metric, cosine, make_score
from idbench.metrics.viclip import NETWORK
from idbench.types import Score

_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|\n+")


def parts_of(prompt: str, fits: Callable[[str], bool]) -> list[str]:
    """The sentences of a prompt, halved until each one fits."""
    sentences = [part.strip() for part in _SENTENCE_END.split(prompt) if part.strip()]
    return [piece for sentence in sentences for piece in _halved(sentence, fits)]


def _halved(text: str, fits: Callable[[str], bool]) -> list[str]:
    words = text.split()
    if fits(text) or len(words) < 2:
        return [text]
    middle = len(words) // 2
    return [*_halved(" ".join(words[:middle]), fits), *_halved(" ".join(words[middle:]), fits)]


def scores(embeddings: Embeddings) -> list[Score]:
    """One row, of the video."""
    sample = embeddings.sample
    if not sample.prompt.strip():
        return METRIC.unscored(sample, "no prompt was given")
    video = embeddings.video_vector.get(NETWORK)
    if video is None:
        return METRIC.unscored(
            sample, f"the video has too few frames for {embeddings.protocol.name}")
    network = embeddings.network(NETWORK)
    texts = parts_of(sample.prompt, lambda text: network.tokenizer.share_read(text) >= 1.0)
    value = float(np.mean(cosine(network.texts(texts), video)))
    return [make_score(sample, METRIC.name, None, None, value)]


METRIC = Metric(
    name="viclip_sentences", title="ViCLIP by sentence", higher_is_better=True, range=(-1.0, 1.0),
    formula="mean over the prompt's sentences of cos(v(8 frames), t(sentence))",
    source="idbench; ViCLIP of Wang et al., InternVid (arXiv 2307.06942)", scores=scores,
    networks=(NETWORK,), runs=(NETWORK,), computed="named",
)
