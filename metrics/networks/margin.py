"""Margin losses for training recognisers: ArcFace and CurricularFace."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import nn
from torch.nn import functional as F


class MarginHead(nn.Module, ABC):
    """Cosine logits with an angular margin on the true class, and their cross-entropy; `margin` in
    radians, `scale` of the logits."""

    def __init__(
        self, embedding: int, classes: int, margin: float = 0.5, scale: float = 64.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, embedding) * 0.01)
        self.margin, self.scale = margin, scale

    def cosines(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Cosines (n, classes) of embeddings (n, d) to the class centres."""
        cosine = F.linear(F.normalize(embeddings.float()), F.normalize(self.weight.float()))
        # The derivative of arccos is infinite at +-1.
        return cosine.clamp(-1 + 1e-7, 1 - 1e-7)

    def with_margin(self, target: torch.Tensor) -> torch.Tensor:
        """cos(theta + margin) of cosines; past pi - margin a linear continuation that falls on."""
        cos_m, sin_m = math.cos(self.margin), math.sin(self.margin)
        moved = target * cos_m - torch.sqrt(1.0 - target**2) * sin_m
        edge = math.cos(math.pi - self.margin)
        return torch.where(target > edge, moved, target - math.sin(self.margin) * self.margin)

    @abstractmethod
    def logits(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Logits (n, classes) before the softmax."""

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy of embeddings (n, d) with class labels (n,)."""
        return F.cross_entropy(self.logits(embeddings, labels), labels)


class ArcFaceHead(MarginHead):
    """Additive angular margin. Source: Deng et al. (arXiv 1801.07698), equation 3."""

    def logits(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        cosine = self.cosines(embeddings)
        target = cosine.gather(1, labels[:, None])
        return cosine.scatter(1, labels[:, None], self.with_margin(target)) * self.scale


class CurricularFaceHead(MarginHead):
    """ArcFace's margin; wrong classes nearer than it are weighted t + cos, t growing in training.

    Source: Huang et al. (arXiv 2004.00288), equations 10 and 11; t is the moving average of the
    true classes' cosines with momentum 0.99.
    """

    t: torch.Tensor

    def __init__(
        self, embedding: int, classes: int, margin: float = 0.5, scale: float = 64.0
    ) -> None:
        super().__init__(embedding, classes, margin, scale)
        self.register_buffer("t", torch.zeros(1))

    def logits(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        cosine = self.cosines(embeddings)
        target = cosine.gather(1, labels[:, None])
        moved = self.with_margin(target)
        if self.training:
            with torch.no_grad():
                self.t.mul_(0.99).add_(target.mean(), alpha=0.01)
        # t is not trained: a copy, so that the next step's update leaves this graph alone.
        t = self.t.clone()
        hard = target * math.cos(self.margin) - torch.sqrt(1 - target**2) * math.sin(self.margin)
        cosine = torch.where(cosine > hard, cosine * (t + cosine), cosine)
        return cosine.scatter(1, labels[:, None], moved) * self.scale


HEADS: dict[str, type[MarginHead]] = {"arcface": ArcFaceHead, "curricularface": CurricularFaceHead}
