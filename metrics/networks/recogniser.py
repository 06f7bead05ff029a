"""Face recognisers: the backbones of ArcFace (IResNet) and CurricularFace (IR), and what embeds.

IResNet has the key layout of insightface's PyTorch weights, IR that of CurricularFace's. Two
layouts of IR's block are about. The published `glint360k_curricular_face_r101_backbone.bin`
(TFace's, which ConsisID and OpenS2V read) has a norm after the first convolution of a block;
CurricularFace's first code had none, and neither have the embedded weights. `middle_norm` says
which.

Source: Deng et al., ArcFace (arXiv 1801.07698); Duta et al., Improved Residual Networks
(arXiv 2004.04989); Huang et al., CurricularFace (arXiv 2004.00288); Tencent/TFace, recognition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from idbench import embedded
from idbench.metrics.networks.batches import Batches, joined

BATCH = 64
"""Crops that run through a recogniser at once."""
DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}
"""Blocks of each of the four stages, by the number of layers; CurricularFace calls 100 IR-101."""
WIDTHS = (64, 128, 256, 512)
"""Channels of the four stages of the published networks."""
IR_101: dict[str, Any] = {
    "backbone": "ir", "layers": DEPTHS[100], "widths": WIDTHS, "size": 112, "embedding": 512,
    "middle_norm": True,
}
"""Of `glint360k_curricular_face_r101_backbone.bin`: 65.2 M parameters."""


class PReLU(nn.PReLU):
    """max(x, 0) + weight * min(x, 0), with a slope a channel; same parameters as torch's.

    Written with operations that are vectorised for bfloat16 on a CPU, where torch's own kernel
    takes two fifths of a training step: relu(x) (1 - w) + w x is the same function.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        w = self.weight.to(x.dtype).view(1, -1, *[1] * (x.ndim - 2))
        return torch.relu(x) * (1 - w) + w * x


class BasicBlock(nn.Module):
    """Of IResNet: norm, conv, norm, PReLU, conv (with the stride), norm; added to the shortcut."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.prelu = PReLU(out)
        self.conv2 = nn.Conv2d(out, out, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        y = self.bn3(self.conv2(y))
        return y + (x if self.downsample is None else self.downsample(x))


class BottleneckIR(nn.Module):
    """Of IR: norm, conv, norm (if `middle_norm`), PReLU, conv with the stride, norm; and the
    shortcut."""

    def __init__(self, channels: int, out: int, stride: int, middle_norm: bool = True) -> None:
        super().__init__()
        if channels == out:
            self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        else:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(channels), nn.Conv2d(channels, out, 3, 1, 1, bias=False),
            *([nn.BatchNorm2d(out)] if middle_norm else []), PReLU(out),
            nn.Conv2d(out, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.res_layer(x) + self.shortcut_layer(x)


class IResNet(nn.Module):
    """Faces (n, 3, size, size), RGB in -1..1, to embeddings (n, embedding), not normalised.

    Args:
        layers: blocks of each of the four stages, see `DEPTHS`.
        widths: channels of the four stages.
        size: side of the input in pixels; the published networks have 112.
        embedding: length of the embedding.
    """

    def __init__(
        self, layers: Sequence[int], widths: Sequence[int] = WIDTHS, size: int = 112,
        embedding: int = 512,
    ) -> None:
        super().__init__()
        self.size = size
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.prelu = PReLU(widths[0])
        for i, blocks in enumerate(_stages(BasicBlock, layers, widths), start=1):
            setattr(self, f"layer{i}", nn.Sequential(*blocks))
        self.bn2 = nn.BatchNorm2d(widths[-1])
        self.fc = nn.Linear(widths[-1] * _last_side(size) ** 2, embedding)
        self.features = nn.BatchNorm1d(embedding)
        # ArcFace's training keeps the scale of the features at 1: the loss normalises them.
        nn.init.constant_(self.features.weight, 1.0)
        self.features.weight.requires_grad = False
        _initialise(self, "fan_in")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.prelu(self.bn1(self.conv1(x)))
        for i in range(1, 5):
            x = getattr(self, f"layer{i}")(x)
        return self.features(self.fc(torch.flatten(self.bn2(x), 1).float()))


class IR(nn.Module):
    """As `IResNet`, with other names. `middle_norm`: whether a block has a norm after its first
    convolution, as the published weights have."""

    def __init__(
        self, layers: Sequence[int], widths: Sequence[int] = WIDTHS, size: int = 112,
        embedding: int = 512, middle_norm: bool = True,
    ) -> None:
        super().__init__()
        self.size = size
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]),
            PReLU(widths[0]),
        )
        blocks = _stages(partial(BottleneckIR, middle_norm=middle_norm), layers, widths)
        self.body = nn.Sequential(*chain.from_iterable(blocks))
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(widths[-1]), nn.Dropout(0.4), nn.Flatten(),
            nn.Linear(widths[-1] * _last_side(size) ** 2, embedding),
            nn.BatchNorm1d(embedding, affine=False),
        )
        _initialise(self, "fan_out")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output_layer(self.body(self.input_layer(x)))


def _stages(
    block: Callable[[int, int, int], nn.Module], layers: Sequence[int], widths: Sequence[int]
) -> Iterator[list[nn.Module]]:
    """The blocks of each stage, of which the first one halves the side."""
    channels = widths[0]
    for count, width in zip(layers, widths, strict=True):
        yield [block(channels, width, 2), *(block(width, width, 1) for _ in range(count - 1))]
        channels = width


def _last_side(size: int) -> int:
    """The side of the last stage's maps: each of four stages halves it."""
    return -(-size // 16)


def _initialise(network: nn.Module, mode: Literal["fan_in", "fan_out"]) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")


def build_recogniser(config: Mapping[str, Any]) -> IResNet | IR:
    """A network of {backbone: iresnet|ir, layers, widths, size, embedding, middle_norm}; the
    embedded IR does not state the last: then it is False."""
    sizes = {name: config[name] for name in ("layers", "widths", "size", "embedding")}
    backbones: dict[str, Callable[..., IResNet | IR]] = {
        "iresnet": IResNet, "ir": partial(IR, middle_norm=config.get("middle_norm", False)),
    }
    return backbones[config["backbone"]](**sizes)


def crops_to_input(crops: np.ndarray, size: int) -> torch.Tensor:
    """uint8 RGB crops (n, s, s, 3) to (n, 3, size, size) in -1..1, (x - 127.5) / 127.5."""
    # A mirrored view has no tensor.
    x = torch.from_numpy(np.ascontiguousarray(crops)).permute(0, 3, 1, 2).float()
    if x.shape[-1] != size:
        x = F.interpolate(x, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return (x - 127.5) / 127.5


class Recogniser:
    """The embedded recogniser `name` (`arcface` or `curricularface`), ready to embed crops.
    Raises UserError: its weights are missing or damaged."""

    def __init__(self, name: str, device: str = "cpu", network: nn.Module | None = None) -> None:
        self.name, self.device = name, device
        network = embedded.built(name, build_recogniser) if network is None else network
        self.network = network.eval().to(device)
        self.batches = Batches(BATCH)

    @torch.inference_mode()
    def embed(self, crops: np.ndarray) -> np.ndarray:
        """uint8 RGB aligned crops (n, 112, 112, 3) to float32 (n, d) of length 1."""
        size = int(self.network.size)  # type: ignore[arg-type]

        def part(start: int, end: int) -> np.ndarray:
            x = crops_to_input(crops[start:end], size).to(self.device)
            return F.normalize(self.network(x)).cpu().numpy()

        return joined(self.batches.run(part, len(crops))).astype(np.float32)
