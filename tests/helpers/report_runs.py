"""Run folders as the harness writes them, with made-up videos and scores, for report tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from idbench import holding, runs, score_table
from idbench.files import sha256_json
from idbench.records import Counts, FacesFile, Identity, ScoresFile, ScoringRecord
from idbench.timings import Timings
from idbench.types import Reference, Sample, Score, Video
from idbench.video import write_video

FRAMES, HEIGHT, WIDTH = 9, 64, 96
WEIGHT = "ab" * 32


def moving_faces(people: int, rng: np.random.Generator) -> np.ndarray:
    """Coloured discs with eyes, moving a little: stands in for a video."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    frames = np.empty((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    base = rng.integers(90, 220, 3)
    skins = rng.integers(60, 230, (people, 3))
    for t in range(FRAMES):
        frames[t] = (base * (0.75 + 0.25 * y[..., None] / HEIGHT)).astype(np.uint8)
        for p in range(people):
            cx, cy = centre(p, people, t)
            frames[t][(x - cx) ** 2 / 1.0 + (y - cy) ** 2 / 1.5 < 144] = skins[p]
            for dx in (-5, 5):
                frames[t][(x - cx - dx) ** 2 + (y - cy + 4) ** 2 < 4] = 20
    return frames


def centre(person: int, people: int, t: int) -> tuple[float, float]:
    return WIDTH * (person + 1) / (people + 1) + 2 * np.sin(t), 30.0


def _box(person: int, people: int, t: int) -> np.ndarray:
    x, y = centre(person, people, t)
    return np.array([x - 12, y - 15, x + 12, y + 15])


def make_run(
    folder: Path, *, name: str = "toy", variant: str | None = None, count: int = 6, people: int = 2,
    prompts: Sequence[str] = (), categories: Sequence[str] = ("expression", "garment"),
    level: float = 0.5, seed: int = 0, fail: Sequence[int] = (), missing: Sequence[int] = (),
    frames_of: Callable[[int, int], np.ndarray] | None = None,
    boxes_of: Callable[[int], np.ndarray] | None = None,
    reference_of: Callable[[str], np.ndarray] | None = None, identity_names: Sequence[str] = (),
    extra_metric: str | None = None,
) -> Path:
    """A finished, scored run folder of `count` samples.

    Args:
        level: mean of the made-up ArcSim.
        fail: indices of samples that were not generated.
        missing: indices of samples whose first person is found in no frame.
    """
    from PIL import Image

    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    assets = folder.parent / "assets"
    assets.mkdir(exist_ok=True)
    names = list(identity_names) or [f"a{i:03d}" for i in range(2 * people)]
    samples = []
    for i in range(count):
        chosen = [names[(i * people + p) % len(names)] for p in range(people)]
        references = []
        for n in chosen:
            path = assets / f"{sha256_json(n)[:8]}.png"
            if not path.exists():
                pixels = reference_of(n) if reference_of else np.full(
                    (96, 96, 3), rng.integers(60, 230, 3), np.uint8)
                Image.fromarray(pixels).save(path)
            references.append(Reference("face", n, path))
        prompt = prompts[i % len(prompts)] if prompts else f"Sample {i}: two people talk in a park."
        part = {"prompt": prompt, "i": i}
        samples.append(Sample(
            sha256_json(part)[:16], "multi" if people > 1 else "single", f"p{i}", prompt,
            categories[i % len(categories)], tuple(references), i,
            suite_id=sha256_json(part)[:16]))
    identity = Identity.model_validate({
        "suite": {"name": "avatars", "version": "1.0", "sha256": "cd" * 32},
        "split": samples[0].split, "seed": 0,
        "model": {"name": name, "variant": variant, "revision": "1", "settings": {"steps": 8},
                  "weights": {"toy.safetensors": WEIGHT}},
    })
    samples = [replace(s, id=runs.sample_id(s.suite_id, identity.model)) for s in samples]
    with holding.begin(folder, identity, samples, command=["run", "--model", name]) as run:
        run.save(scoring=ScoringRecord(
            sha256="0" * 64, detector="2.5.3", weight_files={"arcface.safetensors": WEIGHT},
            protocol={"name": "strict-v3", "version": 1, "frames": 16,
                      "detection": {"detector": "mtcnn", "height": 256}},
            notes=["The recognisers are trained on synthetic people."]))
        for i, sample in enumerate(map(run.adopt, samples)):
            path = run.path(sample.id, "video.mp4")
            if i in fail:
                run.finish(sample, video=None, reason="out of memory")
                rows = [Score(sample.id, m, None, None, None, "out of memory")
                        for m in ("arcsim", "cursim", "viclip", "clipdist")]
                faces: list[dict[str, Any]] = []
            else:
                frames = frames_of(i, people) if frames_of else moving_faces(people, rng)
                boxes = boxes_of(i) if boxes_of else None
                write_video(path, Video(frames, 8.0))
                run.finish(sample, video=path, content=Video(frames, 8.0), seconds=0.5)
                rows, faces = _scored(sample, people, level, rng, i in missing, extra_metric,
                                      boxes)
            FacesFile.model_validate({"frames": faces}).write(run.path(sample.id, "faces.json"))
            ScoresFile.of(rows, key="0" * 64, video_sha256=None).write(
                run.path(sample.id, "scores.json"))
        score_table.collect(run)
        run.timings = Timings({"load": 2.0, "generate": 31.5, "encode": 0.4, "detect": 9.0,
                               "embed": 3.2, "score": 0.6})
        run.save(status="finished", peak_memory_gb=1.9, counts=Counts(
            planned=count, generated=count - len(fail), failed=len(fail)))
    return folder


def _scored(
    sample: Sample, people: int, level: float, rng: np.random.Generator, missing: bool,
    extra_metric: str | None, boxes: np.ndarray | None,
) -> tuple[list[Score], list[dict[str, Any]]]:
    rows: list[Score] = []
    faces: list[dict[str, Any]] = []
    gone = {(p, t) for p in range(people) for t in range(FRAMES)
            if rng.random() < 0.06 or (missing and p == 0)}
    for t in range(FRAMES):
        present = [p for p in range(people) if (p, t) not in gone]
        found = [boxes[t, p] if boxes is not None else _box(p, people, t) for p in present]
        faces.append({"frame": t, "boxes": [[float(v) for v in b] for b in found],
                      "landmarks": [], "retried": False,
                      "assignment": {sample.identities[p]: k for k, p in enumerate(present)}})
    for metric, shift in (("arcsim", 0.0), ("cursim", 0.04)):
        means = []
        for p, who in enumerate(sample.identities):
            centre_value = level + shift + rng.normal(0, 0.12)
            values = [None if (p, t) in gone else
                      float(np.clip(centre_value + rng.normal(0, 0.05), -1, 1))
                      for t in range(FRAMES)]
            rows += [Score(sample.id, metric, who, t, v, None if v is not None else "no face")
                     for t, v in enumerate(values)]
            known = [v for v in values if v is not None]
            mean = float(np.mean(known)) if known else None
            reason = None if known else "the person was found in no frame"
            rows.append(Score(sample.id, metric, who, None, mean, reason))
            means.append((who, mean))
        lost = next((who for who, mean in means if mean is None), None)
        total = None if lost else float(np.mean([m for _, m in means]))
        rows.append(Score(sample.id, metric, None, None, total,
                          f"{lost}: the person was found in no frame" if lost else None))
    for p, who in enumerate(sample.identities):
        share = sum((p, t) not in gone for t in range(FRAMES)) / FRAMES
        rows.append(Score(sample.id, "face_coverage", who, None, share))
    rows.append(Score(sample.id, "face_coverage", None, None,
                      1 - len(gone) / (FRAMES * people)))
    rows += [Score(sample.id, "viclip", None, None, float(rng.normal(0.22, 0.03))),
             Score(sample.id, "clipdist", None, None, float(rng.normal(0.4, 0.05)))]
    if people > 1:
        rows += [Score(sample.id, "order", None, None, 1.0),
                 Score(sample.id, "own_minus_other_by_order", None, None,
                       float(rng.normal(0.3, 0.1)))]
    if extra_metric:
        rows.append(Score(sample.id, extra_metric, None, None, float(rng.random())))
    return rows, faces
