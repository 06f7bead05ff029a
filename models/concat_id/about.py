"""What Concat-ID can do, without its networks."""

from __future__ import annotations

from idbench.types import Abilities

MAXIMUM_REFERENCES = 3
"""The released code asserts it: its position table has room for no more."""

NOISE_MEAN, NOISE_SCALE = -3.0, 0.5
"""Of the logarithm of the standard deviation of the pixel noise on references, in training."""

ABILITIES = Abilities(
    people=(0, MAXIMUM_REFERENCES), others=("garment", "background"),
    licence="Apache-2.0 (embedded weights)", why="as released",
)
