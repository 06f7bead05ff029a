"""How often the readers of attributes and of garment and background are right on true renders.

    python -m idbench.metrics.validation.attribute_readers --clips 60

A perfect model shows exactly what the prompt's truth says; what a reader misses of it is the
reader's own mistake. Garment and background similarity are judged by an AUC: the video's own
reference against references of other videos.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from idbench.metrics import clipdist, region_similarity
from idbench.metrics.attributes import ATTRIBUTES, read_attributes
from idbench.metrics.base import Embeddings
from idbench.metrics.identity_similarity import ARCSIM
from idbench.metrics.scorer import Scorer
from idbench.metrics.validation.experiments import described
from idbench.names import DEFAULT_PROTOCOL
from idbench.prompts.avatars.render import (
    render_background,
    render_clip,
    render_garment,
    render_portrait,
)
from idbench.prompts.avatars.scene import VALIDATION_IDENTITIES, Scene
from idbench.prompts.sampling import random_scene
from idbench.statistics import Estimate, area_under_curve, estimate
from idbench.types import Reference


def measure_readers(clips: int, seed: int = 0, people: int = 1) -> dict[str, Estimate]:
    """Share of people whose attribute is read as it was rendered, with its interval over clips."""
    rng = np.random.default_rng([33391, seed])
    scorer = Scorer(DEFAULT_PROTOCOL, None, (ARCSIM, clipdist.METRIC))
    right: dict[str, list[float]] = defaultdict(list)
    clusters: dict[str, list[int]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as temporary:
        for index in range(clips):
            scene = random_scene(rng, people, VALIDATION_IDENTITIES)
            embeddings = _embedded(scene, scorer, Path(temporary))
            for number, person in enumerate(scene.people):
                wanted = ATTRIBUTES if number == 0 else ATTRIBUTES[:-1]
                truth = {**person.attributes, "garment": person.garment.colour,
                         "background": scene.background}
                read = read_attributes(embeddings, number, wanted)
                for name in wanted:
                    if read[name] is not None:
                        right[name].append(float(read[name] == truth[name]))
                        clusters[name].append(index)
    return {name: estimate(right[name], clusters[name]) for name in ATTRIBUTES}


def measure_subjects(clips: int, seed: int = 0) -> dict[str, float | None]:
    """AUC of garment and background similarity: own reference against those of other clips."""
    rng = np.random.default_rng([44417, seed])
    metrics = {"garment": region_similarity.GARMENT, "background": region_similarity.BACKGROUND}
    own: dict[str, list[float]] = defaultdict(list)
    other: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        # A clip is embedded twice, with its own references and with another's.
        scorer = Scorer(DEFAULT_PROTOCOL, folder / "cache", (ARCSIM, clipdist.METRIC))
        scenes = [random_scene(rng, 1, VALIDATION_IDENTITIES) for _ in range(clips)]
        for index, scene in enumerate(scenes):
            Image.fromarray(render_garment(scene.people[0].garment, size=48)).save(
                folder / f"garment{index}.png"
            )
            Image.fromarray(render_background(scene.background, scene.seed)).save(
                folder / f"background{index}.png"
            )
        for index, scene in enumerate(scenes):
            another = (index + 1) % clips
            for which, kept in ((index, own), (another, other)):
                if which == another and not _differ(scene, scenes[another]):
                    continue
                items = tuple(
                    Reference(kind, kind, folder / f"{kind}{which}.png") for kind in metrics
                )
                embeddings = _embedded(scene, scorer, folder, items)
                for kind, metric in metrics.items():
                    value = metric.rows(embeddings)[-1].value
                    if value is not None:
                        kept[kind].append(value)
    return {kind: area_under_curve(own[kind], other[kind]) for kind in metrics}


def _differ(first: Scene, second: Scene) -> bool:
    return (
        first.background != second.background
        and first.people[0].garment.colour != second.people[0].garment.colour
    )


def _embedded(
    scene: Scene, scorer: Scorer, folder: Path, items: tuple[Reference, ...] = ()
) -> Embeddings:
    references = []
    for person in scene.people:
        path = folder / f"{person.identity}.png"
        if not path.exists():
            Image.fromarray(render_portrait(person.identity, size=128).frames[0]).save(path)
        references.append(Reference("face", str(person.identity), path))
    return scorer.embed(*described(render_clip(scene).frames, references=(*references, *items)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Judges the readers of attributes on renders.")
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--people", type=int, default=1)
    arguments = parser.parse_args()
    found = measure_readers(arguments.clips, arguments.seed, arguments.people)
    print(json.dumps({n: [e.mean, e.low, e.high, e.n] for n, e in found.items()}))
    if arguments.people == 1:
        print(json.dumps(measure_subjects(min(arguments.clips, 30), arguments.seed)))


if __name__ == "__main__":
    main()
