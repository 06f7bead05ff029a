"""The expression of an avatar's face: a small network on the aligned crop.

Neither five landmarks nor the embedded CLIP tell expressions apart, so this one does. Its weights
are the embedded `expression`, trained on rendered people by `idbench train expression`; it knows
nothing of real faces.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from idbench import embedded
from idbench.errors import UserError
from idbench.metrics.networks.expression_reader import ExpressionNet, crops_to_grey
from idbench.prompts.avatars.scene import EXPRESSIONS


class ExpressionReader:
    """A network, ready to read crops."""

    def __init__(self, network: ExpressionNet, size: int) -> None:
        self.network, self.size = network.eval(), size

    @torch.inference_mode()
    def __call__(self, crops: np.ndarray) -> np.ndarray:
        """Scores (n, expressions) of aligned uint8 RGB crops (n, s, s, 3), as of `EXPRESSIONS`."""
        return self.network(crops_to_grey(crops, self.size)).numpy()


@cache
def embedded_reader() -> ExpressionReader:
    """The embedded reader.

    Raises:
        UserError: its weights are missing or damaged, or of other expressions.
    """
    config = embedded.entry("expression")["config"]
    if config.get("classes") != list(EXPRESSIONS) or "widths" not in config:
        raise UserError(
            "The embedded weights 'expression' were trained for another network or other "
            "expressions; train them again with `idbench train expression`."
        )
    network = ExpressionNet.from_config(config)
    network.load_state_dict(embedded.load_state("expression"))
    return ExpressionReader(network, config["size"])
