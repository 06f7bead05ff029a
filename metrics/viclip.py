"""ViCLIP: how well the video follows the prompt, read at once or sentence by sentence.

Formula: cos(v(8 frames), t(prompt)), the raw cosine of a video and a text embedding. The text
tower reads 32 tokens and no more; the share it read of a prompt is kept with the scores.

`viclip_sentences` is for prompts that are longer: the mean over the prompt's parts of
cos(v(8 frames), t(part)). Parts are sentences; one that does not fit into the tower's 32 tokens is
halved between words until it does. So all of the prompt is read, but each part for itself. Not in
the paper; the values are not those of `viclip`.

`share_read` is the share of the prompt's tokens that the text tower reads. A low ViCLIP with a low
share says little of the video.

Source: Wang et al., InternVid (arXiv 2307.06942); used as in VBench (arXiv 2311.17982).
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from idbench.metrics.base import Embeddings, Metric, cosine, make_score
from idbench.types import Score

NETWORK = "viclip"
_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|\n+")


def viclip(video: np.ndarray, text: np.ndarray) -> float:
    """Cosine of a video embedding (d,) and a text embedding (d,), in -1..1."""
    return float(cosine(np.asarray(video)[None], text)[0])


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


def _missing(embeddings: Embeddings) -> str | None:
    """Why video and prompt cannot be compared (None: they can)."""
    if not embeddings.sample.prompt.strip():
        return "no prompt was given"
    if NETWORK in embeddings.video_vector:
        return None
    return f"the video has too few frames for {embeddings.protocol.name}"


def scores(embeddings: Embeddings) -> list[Score]:
    """One row, of the video."""
    value = _missing(embeddings) or viclip(
        embeddings.video_vector[NETWORK], embeddings.text_vector[NETWORK])
    return [make_score(embeddings.sample, "viclip", None, None, value)]


def sentence_scores(embeddings: Embeddings) -> list[Score]:
    """One row, of the video."""
    value: float | str | None = _missing(embeddings)
    if value is None:
        network = embeddings.network(NETWORK)
        texts = parts_of(
            embeddings.sample.prompt, lambda text: network.tokenizer.share_read(text) >= 1.0)
        video = embeddings.video_vector[NETWORK]
        value = float(np.mean(cosine(network.texts(texts), video)))
    return [make_score(embeddings.sample, "viclip_sentences", None, None, value)]


def share_read_scores(embeddings: Embeddings) -> list[Score]:
    """One row, of the video."""
    sample = embeddings.sample
    share = embeddings.share_read.get(NETWORK, "no text tower read the prompt")
    value = share if sample.prompt.strip() else "no prompt was given"
    return [make_score(sample, "share_read", None, None, value)]


METRIC = Metric(
    name="viclip", title="ViCLIP", higher_is_better=True, range=(-1.0, 1.0),
    formula="cos(v(8 frames), t(prompt))",
    source="Wang et al., InternVid (arXiv 2307.06942); used as in VBench (arXiv 2311.17982)",
    scores=scores, networks=("viclip",), shown="headline",
)
SENTENCES = Metric(
    name="viclip_sentences", title="ViCLIP by sentence", higher_is_better=True, range=(-1.0, 1.0),
    formula="mean over the prompt's sentences of cos(v(8 frames), t(sentence))",
    source="idbench; ViCLIP of Wang et al., InternVid (arXiv 2307.06942)", scores=sentence_scores,
    networks=(NETWORK,), runs=(NETWORK,), computed="named",
)
SHARE_READ = Metric(
    name="share_read", title="Prompt read", higher_is_better=True, range=(0.0, 1.0),
    formula="tokens of the prompt that ViCLIP's text tower reads / all its tokens",
    source="idbench; ViCLIP's context has 32 tokens", scores=share_read_scores,
    networks=(NETWORK,), computed="named",
)
