"""The expression of an avatar's face: a small network on the aligned crop.

Neither five landmarks nor the embedded CLIP tell expressions apart, so this one does. Its weights
are the embedded `expression`, trained on rendered people by `idbench train expression`; it knows
nothing of real faces.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from idbench import embedded
from idbench.errors import UserError
from idbench.prompts.avatars.scene import EXPRESSIONS

if TYPE_CHECKING:
    from idbench.metrics.networks.expression_reader import ExpressionReader


@cache
def embedded_reader() -> ExpressionReader:
    """The embedded reader. Raises UserError: its weights are missing or damaged, or of other
    expressions."""
    # Imported late: scoring from the cache loads no torch.
    from idbench.metrics.networks.expression_reader import ExpressionNet, ExpressionReader

    config = embedded.entry("expression")["config"]
    if config.get("classes") != list(EXPRESSIONS) or "widths" not in config:
        raise UserError(
            "The embedded weights 'expression' were trained for another network or other "
            "expressions; train them again with `idbench train expression`."
        )
    network = ExpressionNet.from_config(config)
    network.load_state_dict(embedded.load_state("expression"))
    return ExpressionReader(network, config["size"])
