"""Trains the face parser on the renderer's true parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from idbench.metrics.networks.parser import (
    CLASSES,
    FOREGROUND,
    FaceParser,
    build_parser,
    crops_to_parser,
    face_foreground,
)
from idbench.metrics.training.augment import degrade
from idbench.metrics.training.fitting import DEVICE, Config, Task, trainer
from idbench.metrics.training.rendered_data import (
    Frames,
    Settings,
    batches,
    portraits,
    training_faces,
)
from idbench.training.resumable_loop import Values


def _task(recipe: Config, config: Config, folder: Path) -> Task:
    scenes, photos = training_faces(Settings(**recipe["data"]), folder)
    # The parser is for photographs: they are as many as faces in scenes.
    rows = scenes + photos * max(1, len(scenes) // len(photos))
    network = build_parser(config).to(DEVICE)
    batch, seed, size = int(recipe["batch"]), int(recipe["seed"]), config["size"]

    def loss_of(step: int) -> tuple[torch.Tensor, Values]:
        rng = np.random.default_rng([seed, step])
        made = [_example(*rows[i], rng, size) for i in batches(len(rows), batch, seed, step)]
        crops, labels = (np.stack(some) for some in zip(*made, strict=True))
        logits = network(pixel_values=crops_to_parser(crops, size).to(DEVICE)).logits.float()
        logits = F.interpolate(logits, (size, size), mode="bilinear", align_corners=False)
        y = torch.as_tensor(labels, dtype=torch.long, device=DEVICE)
        right = (logits.argmax(1) == y).float().mean()
        return F.cross_entropy(logits, y), {"accuracy": right}

    return {"network": network}, loss_of


def _example(
    source: Frames, row: np.ndarray, rng: np.random.Generator, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """A square crop around a head, and its parts. Border beyond the picture is repeated."""
    s, t, p, _ = row
    x0, y0, x1, y1 = source.boxes[s, t, p]
    side = (y1 - y0) * rng.uniform(1.2, 2.6)
    centre = np.array([x0 + x1, y0 + y1]) / 2 + rng.normal(0, 0.08, 2) * side
    scale = size / side
    matrix = np.array([[scale, 0, size / 2 - scale * centre[0]],
                       [0, scale, size / 2 - scale * centre[1]]])
    frame = source.frames[s, t]
    if rng.random() < 0.5:
        frame = degrade(frame, rng)
    crop, parts = (
        cv2.warpAffine(picture, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        for picture, flags in ((frame, cv2.INTER_LINEAR), (source.parts[s, t], cv2.INTER_NEAREST))
    )
    if rng.random() < 0.5:  # heads have two sides; this is no recogniser
        crop, parts = crop[:, ::-1], parts[:, ::-1]
    return crop, parts


def _measure(
    recipe: Config, config: Config, folder: Path, network: torch.nn.Module | None
) -> dict[str, Any]:
    """Overlap of the found foreground with the true one, on photographs of validation people."""
    parser = FaceParser(recipe["entry"], network=network, size=config["size"])
    photos = portraits(Settings(**recipe["validation"]).seeds, folder, size=192)
    kept = [CLASSES.index(name) for name in FOREGROUND]
    overlaps, right = [], []
    for s, (x0, y0, x1, y1) in enumerate(photos.boxes[:, 0, 0]):
        half = 0.9 * (y1 - y0)
        left, top = max(0, int((x0 + x1) / 2 - half)), max(0, int((y0 + y1) / 2 - half))
        window = slice(top, int(top + 2 * half)), slice(left, int(left + 2 * half))
        crop, parts = photos.frames[s, 0][window], photos.parts[s, 0][window]
        found, true = face_foreground(crop, parser) > 0.5, np.isin(parts, kept)
        overlaps.append((found & true).sum() / (found | true).sum())
        right.append((found == true).mean())
    return {
        "foreground_iou": round(float(np.mean(overlaps)), 4),
        "foreground_iou_worst_5_percent": round(float(np.quantile(overlaps, 0.05)), 4),
        "pixel_accuracy": round(float(np.mean(right)), 4),
        "photographs": len(overlaps),
    }


train = trainer(_task, _measure)
