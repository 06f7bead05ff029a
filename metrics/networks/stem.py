"""A convolutional stem in place of CLIP's single patch convolution.

A patch of 12 pixels seen by one linear layer hides whether a mouth of 8 pixels smiles; a few small
convolutions show it. Source: Xiao et al., Early Convolutions Help Transformers See Better
(arXiv 2106.14881).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def convolutional_stem(widths: Sequence[int], patch: int, width: int) -> nn.Sequential:
    """Images (n, 3, s, s) to tokens (n, width, s / patch, s / patch).

    Each stage is two 3x3 convolutions, of which the first one shrinks the side.

    Args:
        widths: channels of the stages.
        patch: pixels along each side of a token: the product of the stages' strides.
        width: channels of a token.
    """
    layers: list[nn.Module] = []
    channels = 3
    for stride, wide in zip(strides(patch, len(widths)), widths, strict=True):
        for step in (stride, 1):
            layers += [nn.Conv2d(channels, wide, 3, step, 1, bias=False), nn.BatchNorm2d(wide),
                       nn.ReLU()]
            channels = wide
    return nn.Sequential(*layers, nn.Conv2d(channels, width, 1))


def strides(patch: int, stages: int) -> list[int]:
    """`stages` strides of at least 2 whose product is `patch`, the largest one last.
    Raises ValueError: there are none."""
    found = []
    for _ in range(stages - 1):
        smallest = next(n for n in range(2, patch + 2) if patch % n == 0 or n > patch)
        found.append(smallest)
        patch //= smallest
    if patch < 2:
        raise ValueError(f"{stages} stages do not fit a patch of this size")
    return [*found, patch]
