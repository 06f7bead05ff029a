"""How a training goes: fixed held-out samples as a picture, their loss, ArcSim and CLIPDist.

The samples are the first of the cache's held-out split, each with its own fixed noise, so that
pictures of different steps show the same people, prompts and starting noise.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from idbench import embedded
from idbench.files import write_bytes
from idbench.metrics.scorer import Scorer
from idbench.models.concat_id.autoencoder import to_frames
from idbench.models.concat_id.training.objective import Batch, loss
from idbench.models.concat_id.training.samples import HeldOut
from idbench.names import DEFAULT_PROTOCOL
from idbench.pictures import encoded
from idbench.registry import METRICS as REGISTERED
from idbench.types import Reference, Sample, Score, Video

if TYPE_CHECKING:
    from idbench.models.concat_id.training.loop import Session

METRICS = ("arcsim", "clipdist")


@torch.no_grad()
def validate(session: Session) -> dict[str, Any]:
    """Write STATE/validation/STEP.png and return what was measured; every process calls this.

    Keys: `validation_loss`; with an autoencoder `validation_arcsim` and `validation_clipdist`
    (mean over the scored samples) with `..._scored` (how many), or `..._unscored` with the
    reason. Empty where the cache holds out nothing, and on other processes than the main one.
    """
    held = session.samples.held_out(session.recipe, session.autoencoder is not None)
    if not held:
        return {}
    accelerator = session.accelerator
    world, rank = accelerator.num_processes, accelerator.process_index
    # All processes make equally many, as sharded weights want it; what is double is dropped.
    own = [(rank + k * world) % len(held) for k in range(-(-len(held) // world))]
    losses, videos = [], []
    for number in own:
        batch = _batch(session, held[number], number, len(held))
        losses.append(loss(session.network, session.family, batch).mean())
        if session.autoencoder is not None:
            latents = sample_latents(session, batch, number)
            videos.append(torch.from_numpy(to_frames(session.autoencoder.decode(latents))))
    values: dict[str, Any] = {
        "validation_loss": float(accelerator.reduce(torch.stack(losses).mean(), "mean"))
    }
    if not videos:
        return values if accelerator.is_main_process else {}
    gathered = accelerator.gather(torch.cat(videos).to(accelerator.device)).cpu().numpy()
    if not accelerator.is_main_process:
        return {}
    count = len(own)
    # Process r made the samples r, r + world, ...; put them back in order.
    made = [gathered[(i % world) * count + i // world] for i in range(len(held))]
    shown = session.state_dir / "validation" / f"{session.step:08d}.png"
    write_bytes(shown, encoded(grid(held, made), "PNG"))
    if session.recipe.score:
        values.update(score(session, held, made))
    return values


def sample_latents(session: Session, batch: Batch, seed: int) -> torch.Tensor:
    """Latents (1, N, C, h, w) sampled from noise of `seed`, as the pipelines sample them."""
    recipe = session.recipe
    _, *shape = batch.latents.shape
    return session.family.sample(
        session.network, [seed], tuple(shape), batch.text, batch.references,
        recipe.validation_steps, recipe.validation_guidance,
    )


def grid(held: list[HeldOut], videos: list[np.ndarray]) -> Image.Image:
    """One row per sample: its references, then four frames of its video."""
    most = max(len(sample.pictures) for sample in held)
    rows = []
    for sample, frames in zip(held, videos, strict=True):
        shown = [frames[t] for t in np.linspace(0, len(frames) - 1, 4).round().astype(int)]
        blank = [np.zeros_like(shown[0])] * (most - len(sample.pictures))
        rows.append(np.concatenate([*sample.pictures, *blank, *shown], axis=1))
    return Image.fromarray(np.concatenate(rows))


def score(session: Session, held: list[HeldOut], videos: list[np.ndarray]) -> dict[str, Any]:
    """ArcSim and CLIPDist of the videos under the default protocol."""
    missing = {"arcface", "clip"} - set(embedded.entries())
    if missing:
        reason = f"no weights of {', '.join(sorted(missing))}"
        return {f"validation_{name}_unscored": reason for name in METRICS}
    fps = session.samples.settings.get("fps") or 8.0
    scores: list[Score] = []
    with tempfile.TemporaryDirectory() as folder:
        scorer = Scorer(DEFAULT_PROTOCOL, None, [REGISTERED.load(name) for name in METRICS])
        for number, (row, frames) in enumerate(zip(held, videos, strict=True)):
            sample = _sample(row, number, Path(folder))
            scores += scorer.score(sample, Video(frames, fps))
    values: dict[str, Any] = {}
    for name in METRICS:
        own = [s for s in scores if s.metric == name and s.identity is None and s.frame is None]
        scored = [s.value for s in own if s.value is not None]
        if scored:
            values[f"validation_{name}"] = float(np.mean(scored))
            values[f"validation_{name}_scored"] = len(scored)
        else:
            reason = str(own[-1].reason) if own else "no sample has a face"
            values[f"validation_{name}_unscored"] = reason
    return values


def _sample(held: HeldOut, number: int, folder: Path) -> Sample:
    references = []
    for place, (kind, picture) in enumerate(zip(held.kinds, held.pictures, strict=False)):
        path = folder / f"{number}-{place}.png"
        Image.fromarray(picture).save(path)
        references.append(Reference(kind, f"{number}-{place}", path))
    return Sample(
        id=held.key, split="validation", prompt_id=str(number), prompt=held.caption,
        category="validation", references=tuple(references), seed=number,
    )


def _batch(session: Session, held: HeldOut, number: int, count: int) -> Batch:
    """A validation sample without dropout, with its own fixed time and noise."""
    generator = torch.Generator().manual_seed(10_000 + number)
    one = torch.ones(())
    return session.to_device({name: value[None] for name, value in {
        **held.row, "keep_text": one, "keep_references": one,
        "uniform": torch.tensor((number + 0.5) / count),
        "noise": torch.randn(held.row["latents"].shape, generator=generator),
    }.items()})
