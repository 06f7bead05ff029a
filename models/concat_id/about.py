"""What Concat-ID can do, and its settings, without its networks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from idbench.errors import UserError
from idbench.names import one_of
from idbench.types import Abilities

MAXIMUM_REFERENCES = 3
"""The released code asserts it: its position table has room for no more."""

NOISE_MEAN, NOISE_SCALE = -3.0, 0.5
"""Of the logarithm of the standard deviation of the pixel noise on references, in training."""

ABILITIES = Abilities(
    people=(0, MAXIMUM_REFERENCES), others=("garment", "background"),
    licence="Apache-2.0 (embedded weights)", why="as released",
)
VARIANTS = {
    "base": "text-to-video, references ignored: the control",
    "single": "one person, Stage I: pre-training",
    "continued": "one person, Stage I continued: the control of the later stages",
    "stage2": "one person, Stage II: from Stage I, with references from other scenes",
    "stage3": "one person, Stage III: from Stage II, with the most similar references from others",
    "multi": "two people, from `single`",
    "multi_scratch": "two people, from `base`: without pre-training on one person",
    "equal": "one person, from `base`, with the steps and data of the embedded baselines",
    "multi3": "three people, from `single`",
    "tryon": "a person and a garment, from `single`",
    "background": "a person and a background, from `single`",
}
FRAMES, HEIGHT, WIDTH, FPS = 9, 64, 96, 8.0
"""What the embedded networks were trained at."""
NEGATIVE = "..."
"""Text of the unconditional branch in Wan's release."""
ALIGNMENTS = ("upright", "arcface")
PREPARATIONS = ("default", "released", "released_wan")
Sampling = Literal["default", "released", "detail"]
SAMPLINGS = get_args(Sampling)


@dataclass(frozen=True)
class Defaults:
    """Settings that a base is sampled with.

    Attributes:
        steps, guidance: of sampling.
        frames, height, width: of the video, in pixels; fps: its frames a second.
        alignment, parser: how face references are prepared, see `face_tools`; no alignment: that
            of the detector.
        negative: text that the unconditional branch reads; None: the base reads a zeroed embedding.
        reference_guidance: of sampling, see `Family.sample`; 1: none, as released.
    """

    steps: int
    guidance: float
    frames: int
    height: int
    width: int
    fps: float
    alignment: str | None = None
    parser: str = "embedded"
    negative: str | None = None
    reference_guidance: float = 1.0


# By validation people, see docs/training-measured.md ("Guidance of the references").
EMBEDDED = Defaults(10, 5.0, FRAMES, HEIGHT, WIDTH, FPS, reference_guidance=5.0)
EMBEDDED_BASE = replace(EMBEDDED, guidance=2.0, reference_guidance=2.0)
"""Of the base without references and of the baselines, which lose faces at Concat-ID's scales."""


def alignment_of(faces: str, alignment: str | None) -> str:
    """The given alignment, or the default of this detector. Raises UserError: unknown alignment."""
    if alignment is None:
        return "upright" if faces == "embedded" else "arcface"
    return one_of("alignment", alignment, ALIGNMENTS)


def check_preparation(preparation: str, faces: str, parser: str, alignment: str | None) -> None:
    """Raise UserError for an unknown preparation, or a released one with other tools than its own.
    """
    if one_of("preparation", preparation, PREPARATIONS) == "default":
        return
    if faces == "embedded" or parser in ("embedded", "none") or alignment == "upright":
        raise UserError(
            f"preparation={preparation} needs faces=insightface:FOLDER, parser=FOLDER of a "
            "SegFormer face parser, and alignment=arcface."
        )
