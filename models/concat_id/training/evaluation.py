"""What the embedded networks reach on unseen identities (`idbench train STAGE --evaluate`).

Identities are from `VALIDATION_IDENTITIES`, which are neither trained on nor in a suite.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from idbench import embedded
from idbench.errors import UserError
from idbench.metrics.networks import dlib_resnet
from idbench.metrics.scorer import Scorer
from idbench.models.concat_id import scenes
from idbench.models.concat_id.families import BASELINES
from idbench.models.concat_id.training.network import configuration
from idbench.models.concat_id.training.outside import embed_references, similarities, summarise
from idbench.models.concat_id.training.recipe import SceneRecipe
from idbench.models.concat_id.training.scene_samples import GROUPS
from idbench.names import DEFAULT_PROTOCOL
from idbench.prompts.avatars.render import render_portrait
from idbench.prompts.avatars.scene import VALIDATION_IDENTITIES
from idbench.prompts.language import describe
from idbench.prompts.sampling import random_scene
from idbench.registry import METRICS, make_model
from idbench.statistics import resampled_means
from idbench.types import Reference, Sample, Video


def validation_samples(
    people: int, identities: int, each: int, folder: Path, subject: str | None = None
) -> list[Sample]:
    """Samples of `people` unseen identities with prompts of random scenes.

    Args:
        identities: how many single people, or pairs.
        each: prompts for each of them.
        folder: where the reference photographs (192 px) are written.
        subject: `garment` or `background`: one reference more, of the first person's garment or
            the scene's place.
    """
    samples = []
    for index in range(identities):
        # From the end of the range: the validation data of the trainings uses its start.
        seeds = [VALIDATION_IDENTITIES[-1 - index - p * identities] for p in range(people)]
        faces = []
        for identity in seeds:
            path = folder / f"v{identity}.png"
            if not path.exists():
                Image.fromarray(render_portrait(identity).frames[0]).save(path)
            faces.append(Reference("face", f"v{identity}", path))
        for number in range(each):
            rng = np.random.default_rng([0, people, index, number])
            scene = random_scene(rng, people, seeds)
            others = []
            if subject is not None:
                path = folder / f"{subject}-{index:03d}-{number}.png"
                Image.fromarray(scenes.subject_reference(subject, scene)).save(path)
                others = [Reference(subject, path.stem, path)]
            samples.append(Sample(
                id=f"v{people}-{index:03d}-{number}", split="validation",
                prompt_id=f"{index}-{number}", prompt=describe(scene, rng), category="random",
                references=(*faces, *others), seed=int(rng.integers(2**31)),
            ))
    return samples


def evaluate_recipe(recipe: SceneRecipe, state_dir: Path) -> dict[str, Any]:
    """Measure the embedded weights of a recipe on unseen identities.

    Returns, and writes to the manifest: ArcSim and CurSim with references and without (the same
    network with zeroed references), their difference with a 95 % interval clustered by identity,
    ViCLIP and CLIPDist, how often the right reference is the nearest of all, and the share of
    frames with a face; what dlib sees, if it is installed (`outside`); for two people also
    own-minus-other (faces told apart by place, which has no bias) and the share of videos in the
    order of the references. Raises UserError: weights are missing, or those of a baseline have
    another name than its own."""
    entry = recipe.entry or ""
    needed = {"arcface", "curricularface", "clip", "viclip", entry} - set(embedded.entries())
    if needed:
        raise UserError(f"Not trained yet: {', '.join(sorted(needed))}; run `idbench train` first.")
    people = min(GROUPS[group] for group in recipe.groups)
    settings = recipe.evaluation
    chosen = {"steps": settings.steps, "guidance": settings.guidance,
              "reference_guidance": settings.reference_guidance,
              "sampling": settings.sampling, "batch": 8}
    system = system_of(recipe)
    model: Any = make_model(system, chosen)
    torch.set_num_threads(max(1, recipe.threads))
    with tempfile.TemporaryDirectory() as folder:
        samples = validation_samples(
            people, settings.identities, settings.each, Path(folder), subject=recipe.subject
        )
        videos = {"with": list(model.generate(samples))}
        if recipe.references:
            control: Any = make_model(system, {**chosen, "references": "zeroed"})
            videos["without"] = list(control.generate(samples))
        values = _score(samples, videos, Path(folder))
        _picture(samples, model, videos, Path(state_dir) / "evaluation.png")
    measured = {
        "videos": len(samples), "sampling_steps": model.steps, "guidance": model.guidance,
        "reference_guidance": model.reference_guidance, **values,
    }
    embedded.save_measured(entry, measured)
    return measured


def system_of(recipe: SceneRecipe) -> str:
    """The model, NAME or NAME@VARIANT, that uses the weights of a recipe.
    Raises UserError: the weights of a baseline have another name than its own."""
    entry, family = recipe.entry or "", configuration(recipe)[0]
    if family not in BASELINES:
        return f"concat_id@{entry.removeprefix('transformer_')}"
    if entry != family:
        raise UserError(f"The weights of {family} are evaluated as {family}, not as {entry}; set "
                        f"entry={family}.")
    return family


def _score(
    samples: Sequence[Sample], videos: Mapping[str, Sequence[Video]], folder: Path
) -> dict[str, float]:
    """Numbers of `evaluate_recipe` from the videos of each condition."""
    names = ("arcsim", "cursim", "viclip", "clipdist", "face_coverage", "own_minus_other_by_order",
             "order")
    scorer = Scorer(DEFAULT_PROTOCOL, folder / "cache", [METRICS.load(n) for n in names])
    people = {r.name: r for s in samples for r in s.people}
    vectors = {n: scorer.embedder.person([r.image]).faces["arcface"] for n, r in people.items()}
    seen = {n: v for n, v in vectors.items() if v is not None}
    known, matrix = list(seen), np.stack(list(seen.values()))
    outside = embed_references(samples) if dlib_resnet.installed() else {}
    table: dict[str, pd.DataFrame] = {}
    read: dict[str, list[np.ndarray]] = {condition: [] for condition in videos if outside}
    for condition, made in videos.items():
        rows = []
        for sample, video in zip(samples, made, strict=True):
            found = scorer.embed(sample, video)
            scores = [row for metric in scorer.metrics for row in metric.rows(found)]
            whole = {s.metric: s.value for s in scores if s.identity is None and s.frame is None}
            rows.append({
                **{name: whole.get(name) for name in names},
                "frames_with_face": np.mean([len(faces) > 0 for faces in found.faces]),
                "nearest": _nearest(found, matrix, known),
            })
            if outside:
                read[condition].append(similarities(
                    video.frames[list(found.frames)], found.faces, len(sample.identities),
                    np.stack(list(outside.values())),
                ))
        table[condition] = pd.DataFrame(rows, dtype=float)  # None becomes NaN
    values = {
        f"{name}_{condition}": round(float(np.nanmean(column)), 4)
        for condition, columns in table.items() for name, column in columns.items()
        if column.notna().any()
    }
    shown = [sample.identities for sample in samples]
    clusters = ["+".join(sample.identities) for sample in samples]
    for name in ("arcsim", "cursim") if "without" in table else ():
        gain = table["with"][name] - table["without"][name]
        values |= _interval(f"{name}_gain", gain.to_numpy(), clusters)
    for condition, matrices in read.items():
        seen_by_dlib, margins = summarise(matrices, shown, list(outside))
        values |= {f"dlib_{name}_{condition}": round(v, 4) for name, v in seen_by_dlib.items()}
        values |= _interval(f"dlib_margin_{condition}", margins, clusters)
    margin = table["with"]["own_minus_other_by_order"].to_numpy()
    return values | _interval("own_minus_other_by_order", margin, clusters)


def _nearest(found: Any, matrix: np.ndarray, known: list[str]) -> float:
    """Share of the sample's people whose mean face is nearest to their own reference of all."""
    right = []
    for r, name in enumerate(found.sample.identities):
        rows = [vectors[match.face_of_reference[r]]
                for vectors, match in zip(found.face_vectors["arcface"], found.matches, strict=True)
                if match.face_of_reference[r] is not None]
        # A person who is in no frame is not recognised either: that counts as wrong.
        right.append(bool(rows) and known[int((matrix @ np.mean(rows, 0)).argmax())] == name)
    return float(np.mean(right))


def _interval(name: str, values: np.ndarray, clusters: Sequence[str]) -> dict[str, float]:
    """Mean and 95 % bootstrap interval, identities drawn whole; nothing if all are NaN."""
    known = values[np.isfinite(values)]
    if not len(known):
        return {}
    means = resampled_means(values, clusters, resamples=2000, seed=0)
    low, high = np.percentile(means, [2.5, 97.5])
    return {name: round(float(known.mean()), 4), f"{name}_low": round(float(low), 4),
            f"{name}_high": round(float(high), 4)}


def _picture(
    samples: Sequence[Sample], model: Any, videos: Mapping[str, Sequence[Video]], path: Path
) -> None:
    rows = []
    for i in range(0, len(samples), max(1, len(samples) // 12)):
        cells = list(model.generator.prepared(samples[i]))
        for made in videos.values():
            frames = made[i].frames
            cells += [frames[t] for t in (0, len(frames) // 2, len(frames) - 1)]
        rows.append(np.concatenate(cells, axis=1))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.concatenate(rows))
    picture.resize((picture.width * 2, picture.height * 2)).save(path)
