"""Trains a face recogniser on avatars, and measures it on identities it has never seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from idbench import embedded
from idbench.files import atomic_path, sha256_json
from idbench.metrics.faces.align import align_crops
from idbench.metrics.faces.detect import make_detector
from idbench.metrics.faces.search import find_faces
from idbench.metrics.networks.margin import HEADS
from idbench.metrics.networks.recogniser import Recogniser, build_recogniser, crops_to_input
from idbench.metrics.protocols import Detection
from idbench.metrics.training.augment import extent, training_crop
from idbench.metrics.training.bones import ShapeHead, shape_truth
from idbench.metrics.training.fitting import DEVICE, train_network, write_entry
from idbench.metrics.training.rendered_data import (
    Frames,
    Settings,
    batches,
    dataset,
    portraits,
    training_faces,
)
from idbench.statistics import area_under_curve, true_accept_rate
from idbench.training.resumable_loop import Values


def train(
    recipe: Mapping[str, Any], state_dir: Path, resume: bool = False, evaluate: bool = False
) -> dict[str, Any]:
    """Train by a recipe and write the embedded weights; with `evaluate`, only measure those.
    Returns the values of `measure`, which also go to the manifest."""
    cache = state_dir.parent / "metrics-data"
    backbone, steps = (None, 0) if evaluate else _fit(recipe, state_dir, cache, resume)
    measured = measure(Recogniser(recipe["entry"], network=backbone), recipe, cache)
    write_entry(recipe, backbone and backbone.state_dict(), steps, recipe["network"], measured)
    return measured


def _fit(
    recipe: Mapping[str, Any], state_dir: Path, cache: Path, resume: bool
) -> tuple[torch.nn.Module, int]:
    torch.manual_seed(recipe["seed"])
    settings = Settings(**recipe["data"])
    scenes, photos = training_faces(settings, cache)
    rows = scenes + photos
    first, size = settings.seeds.start, recipe["network"]["size"]
    backbone = build_recogniser(recipe["network"]).to(DEVICE, memory_format=torch.channels_last)
    if recipe["start"]:
        backbone.load_state_dict(embedded.load_state(recipe["start"]))
    head = HEADS[recipe["loss"]](
        recipe["network"]["embedding"], settings.identities, recipe["margin"], recipe["scale"]
    ).to(DEVICE)
    bones = ShapeHead(recipe["network"]["embedding"]).to(DEVICE)
    truth = torch.from_numpy(np.stack([shape_truth(s) for s in settings.seeds])).to(DEVICE)
    batch, seed = int(recipe["batch"]), int(recipe["seed"])
    errors = landmark_errors(scenes[0][0], Detection(), cache, settings)
    ramp = max(1, int(recipe["steps"]) // 4)

    def loss_of(step: int) -> tuple[torch.Tensor, Values]:
        rng = np.random.default_rng([seed, step])
        crops = np.empty((batch, size, size, 3), np.uint8)
        labels = np.empty(batch, np.int64)
        for i, index in enumerate(batches(len(rows), batch, seed, step)):
            source, (s, t, p, identity) = rows[index]
            points = source.landmarks[s, t, p]
            crop = training_crop(
                source.frames[s, t], points, rng, size, errors, parts=source.parts[s, t]
            )
            # Avatars' bones are the same on both sides.
            crops[i] = crop[:, ::-1] if rng.random() < 0.5 else crop
            labels[i] = identity - first
        # With the full margin from the start, small networks learn nothing.
        head.margin = recipe["margin"] * min(1.0, step / ramp)
        x = crops_to_input(crops, size).to(DEVICE, memory_format=torch.channels_last)
        y = torch.as_tensor(labels, device=DEVICE)
        vectors = backbone(x)
        with torch.autocast(x.device.type, enabled=False):
            margin_loss, shape_loss = head(vectors.float(), y), bones(vectors, truth[y])
            right = (head.cosines(vectors.float()).argmax(1) == y).float().mean()
        loss = margin_loss + recipe["shape"] * shape_loss
        return loss, {"accuracy": right, "shape": shape_loss.detach()}

    modules = {"backbone": backbone, "head": head, "bones": bones}
    steps = train_network(recipe, state_dir, resume, modules, loss_of)
    return backbone.float().cpu().eval(), steps


def landmark_errors(
    data: Frames, detection: Detection, cache: Path, settings: Settings
) -> np.ndarray:
    """Landmark errors of the metrics' detector in the first 250 scenes: float32 (n, 5, 2), in
    `extent`s. They are large and correlated within a face; a recogniser not trained for that loses
    a twentieth of its genuine pairs."""
    found, rows = _detected(data, detection, cache, asdict(settings), 250)
    true = data.landmarks[rows[:, 0], rows[:, 1], rows[:, 2]]
    return ((found - true) / extent(true)[:, None, None]).astype(np.float32)


# -- measuring


def _detected(
    data: Frames, detection: Detection, cache: Path, described: Mapping[str, Any],
    scenes: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks (n, 5, 2) of the people that the metrics' own detector finds in the first `scenes`
    scenes, and their rows. A face belongs to the person whose true nose is nearest, within half a
    face's width. Kept in `cache`; `described` names the data."""
    count = len(data.frames) if scenes is None else min(scenes, len(data.frames))
    key = sha256_json({**described, "detection": asdict(detection), "count": count})
    path = cache / f"detected-{key[:12]}.npz"
    if path.is_file():
        with np.load(path) as stored:
            return stored["landmarks"], stored["rows"]
    detector = make_detector(detection)
    landmarks, rows = [], []
    for s in range(count):
        found = find_faces(detector, data.frames[s], detection)
        for t, faces in enumerate(found):
            for p in np.flatnonzero(data.identities[s] >= 0):
                if not len(faces):
                    continue
                away = np.linalg.norm(faces.landmarks[:, 2] - data.landmarks[s, t, p, 2], axis=1)
                best = int(away.argmin())
                width = data.boxes[s, t, p, 2] - data.boxes[s, t, p, 0]
                if away[best] < 0.5 * width:
                    landmarks.append(faces.landmarks[best])
                    rows.append((s, t, p, data.identities[s, p]))
    marks, places = np.array(landmarks).reshape(-1, 5, 2), np.array(rows, np.int64).reshape(-1, 4)
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, landmarks=marks, rows=places)
    return marks, places


def detected_crops(
    data: Frames, detection: Detection, cache: Path, described: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Crops uint8 (n, 112, 112, 3) of the faces that the metrics' own detector finds, and their
    rows, int64 (n, 4), as of `faces_of`."""
    landmarks, rows = _detected(data, detection, cache, described)
    crops = [
        align_crops(data.frames[s, t], points[None], detection.crop)[0]
        for points, (s, t, _, _) in zip(landmarks, rows, strict=True)
    ]
    return np.stack(crops), rows


def measure(network: Recogniser, recipe: Mapping[str, Any], cache: Path) -> dict[str, Any]:
    """Verification on validation identities, through the metrics' detector and alignment.

    Genuine pairs are two faces of one identity in different scenes, impostor pairs are of two
    identities. `portrait_*`: a reference photograph against a face of a scene, as the metrics
    compare."""
    settings = Settings(**recipe["validation"])
    data, detection = dataset(settings, cache), Detection()
    crops, rows = detected_crops(data, detection, cache, asdict(settings))
    photos = portraits(settings.seeds, cache, size=192)
    photo_crops, photo_rows = detected_crops(
        photos, detection, cache, {"portraits": asdict(settings), "size": 192}
    )
    vectors, photo_vectors = network.embed(crops), network.embed(photo_crops)

    same = rows[:, 3][:, None] == rows[:, 3][None]
    later = np.triu(np.ones_like(same), 1)
    other_scene = rows[:, 0][:, None] != rows[:, 0][None]
    cosines = vectors @ vectors.T
    genuine, impostor = cosines[same & later & other_scene], cosines[~same & later]
    rate, threshold = true_accept_rate(genuine, impostor, 1e-3)

    across = photo_vectors @ vectors.T
    mine = photo_rows[:, 3][:, None] == rows[:, 3][None]
    photo_rate, _ = true_accept_rate(across[mine], across[~mine], 1e-3)
    people = int((data.identities >= 0).sum()) * data.frames.shape[1]
    measured = {
        "tar_at_far_1e-3": rate, "threshold": threshold, "auc": area_under_curve(genuine, impostor),
        "genuine_mean": float(genuine.mean()), "impostor_mean": float(impostor.mean()),
        "portrait_tar_at_far_1e-3": photo_rate,
        "portrait_auc": area_under_curve(across[mine], across[~mine]),
        "identities": settings.identities, "genuine_pairs": len(genuine),
        "impostor_pairs": len(impostor), "faces_found": len(rows) / people,
    }
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in measured.items()}
