"""The face network of VBench-2.0's Human Identity: a ResNet-18 on grey crops of 128 x 128.

Source: `resnet_face18` of github.com/ronghuaiyang/arcface-pytorch, without squeeze and excitation.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import nn

SIZE = 128
PLANES = (64, 128, 256, 512)


class Block(nn.Module):
    """Norm, two convolutions, and a shortcut; (B, inputs, h, w) to (B, planes, h / s, w / s)."""

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, inputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.prelu = nn.PReLU()
        self.conv2 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = None
        if stride > 1 or inputs != planes:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, planes, 1, stride, bias=False), nn.BatchNorm2d(planes)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.prelu(self.bn1(self.conv1(self.bn0(x))))
        y = self.bn2(self.conv2(y))
        return self.prelu(y + (x if self.downsample is None else self.downsample(x)))


class ResNetFace18(nn.Module):
    """(B, 1, 128, 128) in [-1, 1] to (B, 512)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.prelu = nn.PReLU()
        self.maxpool = nn.MaxPool2d(2, 2)
        inputs = 64
        for number, planes in enumerate(PLANES, 1):
            stride = 1 if number == 1 else 2
            layer = nn.Sequential(Block(inputs, planes, stride), Block(planes, planes, 1))
            self.add_module(f"layer{number}", layer)
            inputs = planes
        self.bn4 = nn.BatchNorm2d(512)
        self.fc5 = nn.Linear(512 * 8 * 8, 512)
        self.bn5 = nn.BatchNorm1d(512)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.prelu(self.bn1(self.conv1(x))))
        for number in range(1, len(PLANES) + 1):
            x = getattr(self, f"layer{number}")(x)
        return self.bn5(self.fc5(self.bn4(x).flatten(1)))


@torch.inference_mode()
def embed(network: ResNetFace18, crops: list[np.ndarray], device: str) -> np.ndarray:
    """Embeddings (n, 1024) of RGB crops of any size: of the crop and of its mirror image."""
    pictures = []
    for crop in crops:
        small = cv2.resize(np.ascontiguousarray(crop), (SIZE, SIZE))
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        pictures += [grey, np.fliplr(grey)]
    x = (torch.from_numpy(np.stack(pictures)).float()[:, None] - 127.5) / 127.5
    return network(x.to(device)).cpu().numpy().reshape(len(crops), -1)
