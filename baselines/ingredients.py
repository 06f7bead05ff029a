"""Ingredients: ConsisID for exactly two people, each token routed to one of them.

The released folder (feizhengcong/Ingredients) with our transformer (`routing`) in diffusers'
ConsisID pipeline. Source: arXiv 2501.01790 and its code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from idbench.baselines.consisid import DETECTION, ConsisID
from idbench.baselines.loading import ByWeights
from idbench.checkpoints import read_settings
from idbench.names import one_of
from idbench.types import Abilities

ROUTED = ("negative", "both")


class Ingredients(ConsisID):
    """Ingredients with its released networks.

    Args:
        routed: the released guidance routes the tokens of the `negative` branch alone and adds
            the result to both branches; `both` routes each branch by its own tokens.
        crop_of: of several faces in a picture, the `first` (found most surely, as released) or
            the `largest`.
        settings: of `ConsisID`.
    """

    name = "ingredients"
    abilities = Abilities(
        people=(2, 2), licence="Apache-2.0", extra="consisid",
        why="its routers tell two faces apart",
    )
    ENTRY = "ingredients"
    FACEXLIB = (DETECTION,)
    ELSEWHERE: ClassVar[Mapping[str, str]] = {DETECTION: "facexlib-detection"}
    SETTINGS = (*ConsisID.SETTINGS, "routed")
    CROP_OF = ("first", "largest")
    ALIGNED = False  # the vector is read from the crop
    WHITE = False  # the background stays

    def __init__(
        self, variant: str | None = None, *, routed: str = "negative", **settings: Any
    ) -> None:
        super().__init__(variant, **settings)
        self.routed = one_of("routed", routed, ROUTED)

    def _load_transformer(self, folder: Path) -> Any:
        from idbench.baselines.routing import IngredientsTransformer3DModel

        config = read_settings(folder / "config.json")
        width = config["num_attention_heads"] * config["attention_head_dim"]
        # The released value, 768, is of an earlier layout; its code does not read it.
        output = int(width / 3 * 2)
        return self._read(IngredientsTransformer3DModel, folder, LFE_output_dim=output)

    def _inputs(self, faces: Sequence[Any]) -> dict[str, Any]:
        import torch

        rows = 2 if self.routed == "both" and self.guidance > 1 else 1
        vectors = torch.stack([face.vector for face in faces], dim=1)
        states = zip(*(face.hidden for face in faces), strict=True)
        hidden = [torch.stack(of_scale, dim=1) for of_scale in states]
        canvas = side_by_side([face.crop for face in faces], self.height, self.width)
        return {
            "image": Image.fromarray(canvas),
            "id_cond": vectors.repeat(rows, 1, 1),
            "id_vit_hidden": [scale.repeat(rows, 1, 1, 1) for scale in hidden],
        }


def side_by_side(crops: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """Two square crops beside each other on a white canvas, uint8 RGB (height, width, 3)."""
    side = width // 2
    canvas = Image.new("RGB", (width, height), (255, 255, 255))
    for place, crop in enumerate(crops):
        small = Image.fromarray(crop).resize((side, side))
        canvas.paste(small, (side * place, (height - side) // 2))
    return np.asarray(canvas)


MODEL = ByWeights(Ingredients, "idbench.baselines.embedded_models:EmbeddedIngredients")
