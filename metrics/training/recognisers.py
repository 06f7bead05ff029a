"""Trains a face recogniser on avatars, and measures it on identities it has never seen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from idbench import embedded
from idbench.files import sha256_json
from idbench.metrics.faces.crops import align_crops, find_faces
from idbench.metrics.faces.detect import make_detector
from idbench.metrics.networks.recogniser import Recogniser, build_recogniser, crops_to_input
from idbench.metrics.protocols import Detection
from idbench.metrics.training.augment import extent, training_crop
from idbench.metrics.training.fitting import DEVICE, Config, Task, trainer
from idbench.metrics.training.rendered_data import (
    Frames,
    Settings,
    batches,
    dataset,
    kept_arrays,
    portraits,
    training_faces,
)
from idbench.metrics.training.second_tasks import ShapeHead, shape_truth
from idbench.statistics import area_under_curve, true_accept_rate
from idbench.training.resumable_loop import Values

DETECTION = Detection()


def _task(recipe: Config, config: Config, folder: Path) -> Task:
    settings = Settings(**recipe["data"])
    scenes, photos = training_faces(settings, folder)
    rows = scenes + photos
    backbone = build_recogniser(config).to(DEVICE, memory_format=torch.channels_last)
    if recipe["start"]:
        backbone.load_state_dict(embedded.load_state(recipe["start"]))
    head = HEADS[recipe["loss"]](
        config["embedding"], settings.identities, recipe["margin"], recipe["scale"]
    ).to(DEVICE)
    bones = ShapeHead(config["embedding"]).to(DEVICE)
    truth = torch.from_numpy(np.stack([shape_truth(s) for s in settings.seeds])).to(DEVICE)
    batch, seed, size = int(recipe["batch"]), int(recipe["seed"]), config["size"]
    errors = landmark_errors(scenes[0][0], folder, settings)
    ramp = max(1, int(recipe["steps"]) // 4)

    def loss_of(step: int) -> tuple[torch.Tensor, Values]:
        rng = np.random.default_rng([seed, step])
        crops, labels = [], []
        for index in batches(len(rows), batch, seed, step):
            source, (s, t, p, identity) = rows[index]
            crop = training_crop(
                source.frames[s, t], source.landmarks[s, t, p], rng, size, errors,
                parts=source.parts[s, t],
            )
            # Avatars' bones are the same on both sides.
            crops.append(crop[:, ::-1] if rng.random() < 0.5 else crop)
            labels.append(identity - settings.seeds.start)
        # With the full margin from the start, small networks learn nothing.
        head.margin = recipe["margin"] * min(1.0, step / ramp)
        x = crops_to_input(np.stack(crops), size).to(DEVICE, memory_format=torch.channels_last)
        y = torch.tensor(labels, device=DEVICE)
        vectors = backbone(x)
        with torch.autocast(x.device.type, enabled=False):
            margin_loss, shape_loss = head(vectors.float(), y), bones(vectors, truth[y])
            right = (head.cosines(vectors.float()).argmax(1) == y).float().mean()
        loss = margin_loss + recipe["shape"] * shape_loss
        return loss, {"accuracy": right, "shape": shape_loss.detach()}

    return {"backbone": backbone, "head": head, "bones": bones}, loss_of


def landmark_errors(data: Frames, folder: Path, settings: Settings) -> np.ndarray:
    """Landmark errors of the metrics' detector in the first 250 scenes: float32 (n, 5, 2), in
    `extent`s. They are large and correlated within a face; a recogniser not trained for that loses
    a twentieth of its genuine pairs."""
    found, rows = _detected(data, folder, asdict(settings), 250)
    true = data.landmarks[rows[:, 0], rows[:, 1], rows[:, 2]]
    return ((found - true) / extent(true)[:, None, None]).astype(np.float32)


# -- measuring


def _detected(
    data: Frames, folder: Path, described: Mapping[str, Any], scenes: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks (n, 5, 2) of the people that the metrics' own detector finds in the first `scenes`
    scenes, and their rows. A face belongs to the person whose true nose is nearest, within half a
    face's width. Kept in `folder`; `described` names the data."""
    count = len(data.frames) if scenes is None else min(scenes, len(data.frames))
    key = sha256_json({**described, "detection": asdict(DETECTION), "count": count})

    def find() -> dict[str, np.ndarray]:
        detector = make_detector(DETECTION)
        landmarks, rows = [], []
        for s in range(count):
            for t, faces in enumerate(find_faces(detector, data.frames[s], DETECTION)):
                for p in np.flatnonzero(data.identities[s] >= 0) if len(faces) else ():
                    nose = data.landmarks[s, t, p, 2]
                    away = np.linalg.norm(faces.landmarks[:, 2] - nose, axis=1)
                    best = int(away.argmin())
                    width = data.boxes[s, t, p, 2] - data.boxes[s, t, p, 0]
                    if away[best] < 0.5 * width:
                        landmarks.append(faces.landmarks[best])
                        rows.append((s, t, p, data.identities[s, p]))
        return {"landmarks": np.array(landmarks).reshape(-1, 5, 2),
                "rows": np.array(rows, np.int64).reshape(-1, 4)}

    stored = kept_arrays(folder / f"detected-{key[:12]}.npz", find)
    return stored["landmarks"], stored["rows"]


def detected_crops(
    data: Frames, folder: Path, described: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Crops uint8 (n, 112, 112, 3) of the faces that the metrics' own detector finds, and their
    rows, int64 (n, 4), as of `faces_of`."""
    landmarks, rows = _detected(data, folder, described)
    crops = [
        align_crops(data.frames[s, t], points[None], DETECTION.crop)[0]
        for points, (s, t, _, _) in zip(landmarks, rows, strict=True)
    ]
    return np.stack(crops), rows


def _measure(
    recipe: Config, config: Config, folder: Path, backbone: torch.nn.Module | None
) -> dict[str, Any]:
    """Verification on validation identities, through the metrics' detector and alignment.

    Genuine pairs are two faces of one identity in different scenes, impostor pairs are of two
    identities. `portrait_*`: a reference photograph against a face of a scene, as the metrics
    compare."""
    network = Recogniser(recipe["entry"], network=backbone)
    settings = Settings(**recipe["validation"])
    data = dataset(settings, folder)
    crops, rows = detected_crops(data, folder, asdict(settings))
    photos = portraits(settings.seeds, folder, size=192)
    photo_crops, photo_rows = detected_crops(
        photos, folder, {"portraits": asdict(settings), "size": 192}
    )
    vectors, photo_vectors = network.embed(crops), network.embed(photo_crops)
    scenes, people = rows[:, 0], rows[:, 3]

    same, later = people[:, None] == people, np.triu(np.ones((len(rows), len(rows)), bool), 1)
    cosines = vectors @ vectors.T
    genuine = cosines[same & later & (scenes[:, None] != scenes)]
    impostor = cosines[~same & later]
    rate, threshold = true_accept_rate(genuine, impostor, 1e-3)

    across = photo_vectors @ vectors.T
    mine = photo_rows[:, 3][:, None] == people
    photo_rate, _ = true_accept_rate(across[mine], across[~mine], 1e-3)
    shown = int((data.identities >= 0).sum()) * data.frames.shape[1]
    measured = {
        "tar_at_far_1e-3": rate, "threshold": threshold, "auc": area_under_curve(genuine, impostor),
        "genuine_mean": float(genuine.mean()), "impostor_mean": float(impostor.mean()),
        "portrait_tar_at_far_1e-3": photo_rate,
        "portrait_auc": area_under_curve(across[mine], across[~mine]),
        "identities": settings.identities, "genuine_pairs": len(genuine),
        "impostor_pairs": len(impostor), "faces_found": len(rows) / shown,
    }
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in measured.items()}


train = trainer(_task, _measure)


# -- the losses


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
