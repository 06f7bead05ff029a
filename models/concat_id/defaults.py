"""Sampling settings that each base is released with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Defaults:
    """Steps and guidance of sampling; frames and their size in pixels; frames a second.

    Further how face references are prepared (`face_tools`); no alignment: what fits the detector.
    And whether the other branch of guidance reads a text.
    """

    steps: int
    guidance: float
    frames: int
    height: int
    width: int
    fps: float
    alignment: str | None = None
    parser: str = "embedded"
    negative: bool = False


COGVIDEOX = Defaults(50, 6.0, 49, 480, 720, 8.0)
WAN = Defaults(50, 5.0, 81, 480, 832, 16.0, negative=True)
