"""EVA02-CLIP's image tower from its released file, on timm's class.

Source: Sun et al., EVA-CLIP (arXiv 2303.15389); ConsisID and Ingredients read it from
`EVA02_CLIP_L_336_psz14_s6B.pt`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from idbench.checkpoints import check_fit, read_checkpoint
from idbench.embedded import WeightError

ARCHITECTURE = "eva02_large_patch14_clip_336"
WHAT = "the image tower of EVA02-CLIP-L-336"
HEAD = 64
"""Width of an attention head."""
STEP = 4
"""Hidden states are taken before every fourth block but the first."""
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class EvaTower(nn.Module):
    """The tower, with the hidden states that face encoders read.

    `state` holds the tensors of the file `path`; sizes are those of `visual.*`; `size` is the side
    of the picture in pixels. Raises WeightError: other names or shapes."""

    def __init__(self, state: Mapping[str, torch.Tensor], path: Path) -> None:
        super().__init__()
        from timm import create_model
        from timm.models.eva import checkpoint_filter_fn

        visual = {name: value for name, value in state.items() if name.startswith("visual.")}
        try:
            width = visual["visual.cls_token"].shape[-1]
            patch = visual["visual.patch_embed.proj.weight"].shape[-1]
            side = math.isqrt(visual["visual.pos_embed"].shape[1] - 1)
            hidden = visual["visual.blocks.0.mlp.w1.weight"].shape[0]
            classes = visual["visual.head.weight"].shape[0]
        except KeyError as error:
            raise WeightError(f"{path} does not hold {WHAT}: it lacks {error.args[0]}.") from error
        depth = 1 + max(int(n.split(".")[2]) for n in visual if n.startswith("visual.blocks."))
        self.size = side * patch
        with torch.device("meta"):
            tower: Any = create_model(
                ARCHITECTURE, img_size=self.size, patch_size=patch, embed_dim=width, depth=depth,
                num_heads=width // HEAD, mlp_ratio=hidden / width, num_classes=classes,
            )
        tensors = checkpoint_filter_fn(visual, tower)
        check_fit(tensors, tower.state_dict(), path, WHAT)
        tower.load_state_dict(tensors, assign=True)
        # Its rotary table is computed, not stored.
        table = create_model(
            ARCHITECTURE, img_size=self.size, patch_size=patch, embed_dim=HEAD * 2, depth=1,
            num_heads=2, num_classes=0,
        )
        tower.rope = table.rope
        self.tower = tower
        self.layers = [block - 1 for block in range(STEP, depth, STEP)]

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Pooled features (B, D) and the hidden states, each (B, tokens, width), of pictures (B, 3,
        size, size) normalised by `MEAN` and `STD`."""
        found: list[torch.Tensor] = []
        hooks = [
            self.tower.blocks[layer].register_forward_hook(lambda *a: found.append(a[-1]))
            for layer in self.layers
        ]
        try:
            return self.tower(pictures), found
        finally:
            for hook in hooks:
                hook.remove()


def load_eva(path: Path, device: str, dtype: torch.dtype) -> EvaTower:
    """The tower of a released file. Raises WeightError: missing, damaged, or another network's."""
    tower = EvaTower(read_checkpoint(path, mapped=True).state, path)
    return tower.to(device, dtype).eval().requires_grad_(False)
