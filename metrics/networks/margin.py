"""Margin losses for training recognisers: ArcFace and CurricularFace."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F


class ArcFaceHead(nn.Module):
    """Cosine logits with an additive angular margin on the true class, and their cross-entropy;
    `margin` in radians, `scale` of the logits. Source: Deng et al. (arXiv 1801.07698), equation 3.
    """

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

    def moved(self, target: torch.Tensor) -> torch.Tensor:
        """cos(theta + margin) of cosines."""
        cos_m, sin_m = math.cos(self.margin), math.sin(self.margin)
        return target * cos_m - torch.sqrt(1.0 - target**2) * sin_m

    def with_margin(self, target: torch.Tensor) -> torch.Tensor:
        """`moved`; past pi - margin a linear continuation that falls on."""
        edge, slope = math.cos(math.pi - self.margin), math.sin(self.margin)
        return torch.where(target > edge, self.moved(target), target - slope * self.margin)

    def logits(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Logits (n, classes) before the softmax."""
        cosine = self.cosines(embeddings)
        target = cosine.gather(1, labels[:, None])
        return cosine.scatter(1, labels[:, None], self.with_margin(target)) * self.scale

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy of embeddings (n, d) with class labels (n,)."""
        return F.cross_entropy(self.logits(embeddings, labels), labels)


class CurricularFaceHead(ArcFaceHead):
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
        if self.training:
            with torch.no_grad():
                self.t.mul_(0.99).add_(target.mean(), alpha=0.01)
        # t is not trained: a copy, so that the next step's update leaves this graph alone.
        t = self.t.clone()
        cosine = torch.where(cosine > self.moved(target), cosine * (t + cosine), cosine)
        return cosine.scatter(1, labels[:, None], self.with_margin(target)) * self.scale


HEADS: dict[str, type[ArcFaceHead]] = {"arcface": ArcFaceHead, "curricularface": CurricularFaceHead}
