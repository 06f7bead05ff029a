"""OpenS2V-Eval v1.1 beyond its face similarity: motion amplitude, aesthetics, and the total score.

MotionAmplitude: |mean over adjacent frames, pixels and both directions of Farnebäck's flow|, in
pixels a frame, at most 1. The flow is signed, so movements to and fro cancel out, as in the script.
Aesthetics: mean over frames of LAION's predictor on CLIP ViT-L/14, from files: `--weights
clip=open_clip:ViT-L-14:FILE --weights aesthetic=mlp:aesthetic-model.pth`.
MotionSmoothness (Q-Align), GmeScore, NexusScore and NaturalScore read large models that idbench
does not run. TotalScore is only there where every part is; see `total_score`.

Source: Yuan et al., OpenS2V-Nexus (arXiv 2505.20292), eval/get_motion_amplitude.py,
get_aesscore.py and merge_result.py of version 1.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from idbench.checkpoints import fit, read_state
from idbench.errors import UserError
from idbench.metrics.base import Embeddings, Metric, make_score, summarise
from idbench.metrics.motion import optical_flow
from idbench.metrics.networks.weight_sources import Network
from idbench.types import Score

if TYPE_CHECKING:
    from idbench.metrics.networks.weight_sources import Source

CLIP_WIDTH = 768
"""Numbers of an embedding of CLIP ViT-L/14, which the aesthetic predictor reads."""
LIMITS = {
    "aesthetic": (4.0, 7.0), "motion_smoothness": (0.0, 1.0), "motion_amplitude": (0.0, 1.0),
    "facesim": (0.0, 1.0), "gmescore": (0.0, 1.0), "nexusscore": (0.0, 0.05),
    "naturalscore": (1.0, 5.0),
}
"""Values are cut to these and scaled to 0..1."""
WEIGHTS = {
    "open": {"aesthetic": 0.16, "motion_smoothness": 0.06, "motion_amplitude": 0.02,
             "facesim": 0.20, "gmescore": 0.12, "nexusscore": 0.20, "naturalscore": 0.24},
    "human": {"aesthetic": 0.18, "motion_smoothness": 0.09, "motion_amplitude": 0.03,
              "facesim": 0.25, "gmescore": 0.15, "naturalscore": 0.30},
}
"""Shares of the parts in the total score: of the open and single domain, and of humans."""
SOURCE = "Yuan et al., OpenS2V-Nexus (arXiv 2505.20292), OpenS2V-Eval 1.1"


def total_score(parts: Mapping[str, float], domain: str = "human") -> float:
    """OpenS2V-Eval's TotalScore, 0..1, of a system's mean of each part.

    `parts` are means of values that were cut to `LIMITS` one by one; `domain` is `human` or `open`
    (open and single domain). Raises UserError: a part of `WEIGHTS[domain]` is missing."""
    shares = WEIGHTS[domain]
    missing = [name for name in shares if name not in parts]
    if missing:
        raise UserError(f"TotalScore lacks {', '.join(missing)}; give every part.")
    scaled = {name: (parts[name] - LIMITS[name][0]) / np.ptp(LIMITS[name]) for name in shares}
    return float(sum(share * scaled[name] for name, share in shares.items()))


def motion_amplitude(frames: np.ndarray) -> float:
    """Of uint8 RGB frames (t, h, w, 3), t >= 2: pixels a frame, 0..1."""
    # The script reads RGB frames as BGR; so does this.
    greys = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_BGR2GRAY) for frame in frames]
    total, size = np.zeros(()), (16, max(1, int(greys[0].shape[0] * (16 / greys[0].shape[1]))))
    for first, second in zip(greys, greys[1:], strict=False):
        flow = optical_flow(first, second)
        total = total + cv2.resize(flow, size, interpolation=cv2.INTER_AREA).mean()
    return min(abs(float(total) / (len(greys) - 1)), 1.0)


def motion_scores(embeddings: Embeddings) -> list[Score]:
    """One row, of the video."""
    sample = embeddings.sample
    if len(embeddings.pixels) < 2:
        return MOTION_AMPLITUDE.unscored(sample, "the video has one frame: nothing can move")
    value = motion_amplitude(embeddings.pixels)
    return [make_score(sample, "motion_amplitude", None, None, value)]


def aesthetic_scores(embeddings: Embeddings) -> list[Score]:
    """A row a sampled frame, and one of the video."""
    sample, vectors = embeddings.sample, embeddings.frame_vectors.get("clip")
    if vectors is None or vectors.shape[1] != CLIP_WIDTH:
        return AESTHETIC.unscored(
            sample, f"the predictor reads {CLIP_WIDTH} numbers of CLIP ViT-L/14 of whole frames; "
            "pass --weights clip=open_clip:ViT-L-14:FILE")
    values = embeddings.network("aesthetic")(vectors)
    rows = [make_score(sample, "aesthetic", None, frame, value)
            for frame, value in zip(embeddings.frames, values, strict=True)]
    taken = embeddings.sampled(rows)
    return [*rows, summarise(sample, "aesthetic", None, taken, "no frame could be read")]


def _load(source: Source, device: str) -> Any:
    import torch
    from torch import nn

    widths = (CLIP_WIDTH, 1024, 128, 64, 16, 1)
    # Dropout keeps the numbers of the released layers: 0, 2, 4, 6, 7.
    layers = [
        layer for number, pair in enumerate(zip(widths, widths[1:], strict=False))
        for layer in (nn.Linear(*pair), *([nn.Dropout()] if number < 3 else []))
    ]
    head = nn.ModuleDict({"layers": nn.Sequential(*layers)})
    path = source.file()
    fitted: Any = fit(head, read_state(path), path, "the aesthetic predictor").eval().to(device)

    @torch.inference_mode()
    def predict(vectors: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(np.asarray(vectors, np.float32)).to(device)
        found: np.ndarray = fitted["layers"](x)[:, 0].cpu().numpy()
        return found

    return predict


MOTION_AMPLITUDE = Metric(
    name="motion_amplitude", title="MotionAmplitude", higher_is_better=True, range=(0.0, 1.0),
    formula="|mean of signed Farnebäck flow|, pixels a frame, at most 1", source=SOURCE,
    scores=motion_scores, networks=(), needs_pixels=True, computed="named",
)
AESTHETIC = Metric(
    name="aesthetic", title="Aesthetics", higher_is_better=True,
    range=(-float("inf"), float("inf")),
    formula="mean over frames of LAION's aesthetic predictor on CLIP ViT-L/14", source=SOURCE,
    scores=aesthetic_scores, networks=("clip",),
    runs=(Network("aesthetic", _load, "mlp:FILE"),), computed="named",
)


def _never_scored(name: str, title: str, formula: str, reason: str) -> Metric:
    """A metric that is named with the reason why it is missing, so that a total score does not
    pass without it."""
    return Metric(
        name=name, title=title, higher_is_better=True, range=(0.0, 1.0), formula=formula,
        source=SOURCE, scores=lambda of: [make_score(of.sample, name, None, None, reason)],
        networks=(), computed="named",
    )


MOTION_SMOOTHNESS = _never_scored(
    "motion_smoothness", "MotionSmoothness", "Q-Align; not available in idbench",
    "not available: OpenS2V-Eval reads it with Q-Align, which idbench does not run",
)
TOTAL = _never_scored(
    "opens2v_total", "TotalScore",
    "weighted sum of OpenS2V-Eval's parts, each cut and scaled to 0..1",
    "TotalScore lacks motion_smoothness, gmescore, nexusscore and naturalscore; "
    "idbench.metrics.opens2v.total_score computes it from all parts",
)
