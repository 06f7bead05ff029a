"""ViCLIP: how well the video follows the prompt.

Formula: cos(v(8 frames), t(prompt)), the raw cosine of a video and a text embedding. The text
tower reads 32 tokens and no more; the share it read of a prompt is kept with the scores.

Source: Wang et al., InternVid (arXiv 2307.06942); used as in VBench (arXiv 2311.17982).
"""

from __future__ import annotations

import numpy as np

from idbench.metrics.base import Embeddings, Metric, cosine, make_score
from idbench.types import Score

NETWORK = "viclip"


def viclip(video: np.ndarray, text: np.ndarray) -> float:
    """Cosine of a video embedding (d,) and a text embedding (d,), in -1..1."""
    return float(cosine(np.asarray(video)[None], text)[0])


def scores(embeddings: Embeddings) -> list[Score]:
    """One row, of the video."""
    sample = embeddings.sample
    if not sample.prompt.strip():
        return METRIC.unscored(sample, "no prompt was given")
    if NETWORK not in embeddings.video_vector:
        return METRIC.unscored(
            sample, f"the video has too few frames for {embeddings.protocol.name}")
    value = viclip(embeddings.video_vector[NETWORK], embeddings.text_vector[NETWORK])
    return [make_score(sample, "viclip", None, None, value)]


METRIC = Metric(
    name="viclip", title="ViCLIP", higher_is_better=True, range=(-1.0, 1.0),
    formula="cos(v(8 frames), t(prompt))",
    source="Wang et al., InternVid (arXiv 2307.06942); used as in VBench (arXiv 2311.17982)",
    scores=scores, networks=("viclip",), shown="headline",
)
