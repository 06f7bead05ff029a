"""The expression of an avatar's face: a linear classifier on gradients of the aligned crop.

Neither five landmarks nor the embedded CLIP (at chance, see docs/beyond.md) tell expressions
apart, so this small one does: histograms of oriented gradients of the aligned grey crop, and
linear discriminants. Its weights are the embedded `expression`, fitted on rendered training
identities by `idbench train expression`; it knows nothing of real faces.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import cv2
import numpy as np
from skimage.feature import hog

from idbench import embedded
from idbench.errors import UserError
from idbench.prompts.avatars.scene import EXPRESSIONS

FEATURES: Mapping[str, Any] = {"side": 64, "orientations": 9, "cell": 8, "block": 2}
"""Pixels of the square grey crop; gradients' directions; pixels of a cell; cells of a block."""


def features(crops: np.ndarray) -> np.ndarray:
    """Aligned uint8 RGB crops (n, s, s, 3) to float32 (n, 1764)."""
    side, cell, block = FEATURES["side"], FEATURES["cell"], FEATURES["block"]
    rows = []
    for crop in crops:
        grey = cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_RGB2GRAY)
        grey = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA)
        rows.append(hog(grey, FEATURES["orientations"], (cell, cell), (block, block), "L2-Hys"))
    return np.array(rows, np.float32).reshape(len(rows), -1)


def logits(vectors: np.ndarray) -> np.ndarray:
    """Scores (n, expressions) of feature vectors (n, d), in the order of `EXPRESSIONS`.

    Raises:
        UserError: the embedded weights are missing or damaged, or of other features or classes.
    """
    weight, bias = _fitted()
    return vectors @ weight + bias


def config() -> dict[str, Any]:
    """What the weights have to agree with, as recorded in the manifest."""
    return {**FEATURES, "classes": list(EXPRESSIONS)}


@cache
def _fitted() -> tuple[np.ndarray, np.ndarray]:
    stored = embedded.entry("expression")["config"]
    if stored != config():
        raise UserError(
            "The embedded weights 'expression' were fitted for other features or expressions; fit "
            "them again with `idbench train expression`."
        )
    state = embedded.load_state("expression")
    return state["weight"].numpy(), state["bias"].numpy()
