"""Training of the autoencoder on single frames: whole, then its decoder alone.

The second part leaves the latents as they are, so whatever was encoded before stays good.

Loss: L1 + squared error + L1 of image gradients, faces weighted, and a KL term per latent
value that keeps the latents smooth enough for a diffusion model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from idbench import embedded
from idbench.errors import UserError
from idbench.metrics.faces.crops import FaceEmbedder
from idbench.models.concat_id import scenes
from idbench.models.concat_id.autoencoder import (
    build_vae,
    decode,
    encode,
    speed_up_single_frames,
    to_frames,
    to_tensor,
)
from idbench.output import note
from idbench.statistics import area_under_curve
from idbench.training import save
from idbench.training.fit import CHECKPOINT, Average, fit, pace_of
from idbench.training.resumable_loop import Values
from idbench.training.schedule import cosine, warmup


class FramePool:
    """Frames drawn at random from finished shards; looks for new ones now and then."""

    def __init__(self, folder: Path, sets: list[scenes.RenderSet], share: float) -> None:
        self.folder, self.sets, self.share = folder, sets, share
        self.known: dict[Path, scenes.Shard] = {}
        self.refresh()

    def refresh(self) -> None:
        for described in self.sets:
            for path in described.finished(self.folder):
                if path not in self.known:
                    self.known[path] = scenes.read_shard(path)
        shards = list(self.known.values())
        # Portraits are square: only the references prepared from them have the video's size.
        sized = [s for s in shards if s.frames.shape[2] < s.frames.shape[3]]
        self.frames = [s for s in sized if len(s.frames)]
        self.prepared = [s for s in shards if s.references.shape[2]]

    def images(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (count, 1, H, W, 3) and whether a head is at each pixel, bool (count, 1, H, W). A
        `share` are prepared references, on which all that is not black counts."""
        images, heads = [], []
        for _ in range(count):
            if rng.random() < self.share:
                shard = self.prepared[int(rng.integers(len(self.prepared)))]
                scene = int(rng.integers(len(shard.references)))
                person = int(rng.integers(len(shard.scenes[scene].people)))
                number = int(rng.integers(shard.references.shape[2]))
                image = shard.references[scene, person, number][None]
                images.append(image)
                heads.append(image.any(-1))
            else:
                shard = self.frames[int(rng.integers(len(self.frames)))]
                scene = int(rng.integers(len(shard.frames)))
                t = int(rng.integers(shard.frames.shape[1]))
                images.append(shard.frames[scene, t : t + 1])
                heads.append(shard.faces[scene, t : t + 1] > 0)
        return np.stack(images), np.stack(heads)


def reconstruction_loss(
    output: torch.Tensor, target: torch.Tensor, heads: torch.Tensor, face_weight: float,
    gradient_weight: float,
) -> torch.Tensor:
    """L1 + 2 MSE + gradient L1 of (B, 3, T, H, W), pixels of heads weighted."""
    difference = output - target
    weight = 1.0 + (face_weight - 1.0) * heads
    error = difference.abs() + 2.0 * difference.square()
    loss = (error * weight).mean() / weight.mean()
    if gradient_weight:
        across = (difference[..., 1:] - difference[..., :-1]).abs() * weight[..., 1:]
        down = (difference[..., 1:, :] - difference[..., :-1, :]).abs() * weight[..., 1:, :]
        loss = loss + gradient_weight * (across.mean() + down.mean()) / weight.mean()
    return loss


def train(
    recipe: dict[str, Any], state_dir: Path, resume: bool = False, evaluate: bool = False
) -> dict[str, Any]:
    """Trainer of recipe `vae`: writes the embedded weights and returns what was measured; with
    `evaluate`, only measures the averaged weights of the last checkpoint."""
    torch.set_num_threads(recipe.get("threads", 2))
    torch.set_flush_denormal(True)
    folder = state_dir.parent / recipe["data"]
    sets = scenes.sets_of(scenes.load_recipe(recipe["data"]))
    if evaluate:
        return _measure_all(load_trained(recipe, state_dir), folder, sets)
    training = [s for s in sets if s.split == "training"]
    pool = FramePool(folder, training, recipe["reference_share"])
    if not pool.frames:
        raise UserError(
            f"No rendered data in {folder}; run `idbench train {recipe['data']}` first."
        )
    torch.manual_seed(recipe["seed"])
    vae = build_vae(recipe["network"])
    parameters = list(vae.parameters())
    optimiser = torch.optim.AdamW(
        parameters, lr=recipe["learning_rate"], betas=(0.9, 0.99),
        weight_decay=recipe["weight_decay"],
    )
    average = Average(parameters, recipe["ema"])
    pace = pace_of(recipe, steps=recipe["steps"] + recipe["decoder_steps"])
    speed_up_single_frames(vae, last_tap_only=True)

    def loss_of(step: int) -> tuple[torch.Tensor, Values]:
        if step == recipe["steps"]:
            average.restart()
        if step >= recipe["steps"]:
            vae.encoder.requires_grad_(False)
        return _loss(vae, pool, recipe, step)

    def after(step: int) -> None:
        if step % pace.log_every == 0:
            pool.refresh()
        if step % recipe["evaluate_every"] == 0:
            with average.in_place():
                values = measure(vae, folder, sets, 40, state_dir / "samples.png")
            note(f"averaged weights: {values}")

    steps = fit(
        recipe, state_dir, {"network": vae}, optimiser, loss_of, resume=resume, average=average,
        rate=lambda step: learning_rate(step, recipe), after=after, pace=pace,
    )
    with average.in_place():
        return _export(recipe, vae, pool, folder, steps, sets)


def learning_rate(step: int, recipe: Mapping[str, Any]) -> float:
    """Of the whole network, then anew of the decoder alone: warm-up, half a cosine to 2 %."""
    whole, decoder = recipe["steps"], recipe["decoder_steps"]
    peak, since, steps = (
        (recipe["learning_rate"], step, whole) if step < whole else
        (recipe["decoder_rate"], step - whole, decoder)
    )
    return peak * (warmup(since, recipe["warmup"]) * cosine(since, steps, floor=0.02))


def _loss(
    vae: Any, pool: FramePool, recipe: Mapping[str, Any], step: int
) -> tuple[torch.Tensor, Values]:
    """Loss of the frames drawn for a step."""
    frames, heads = pool.images(recipe["batch"], np.random.default_rng([recipe["seed"], step]))
    images = to_tensor(frames)
    noise = torch.Generator().manual_seed(recipe["seed"] * 1_000_003 + step)
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe["bfloat16"]):
        posterior = vae.encode(images).latent_dist
        mean, std = posterior.mean, posterior.std
        output = vae.decode(mean + std * torch.randn(mean.shape, generator=noise)).sample.float()
    loss = reconstruction_loss(
        output, images, torch.from_numpy(heads)[:, None], recipe["face_weight"],
        recipe["gradient_weight"],
    )
    kl = 0.5 * (mean.float().square() + std.float().square() - 1 - posterior.logvar.float()).mean()
    pressure = recipe["kl_weight"] * min(1.0, step / recipe["kl_warmup"])
    error = (output.detach() - images).square().mean()
    return loss + pressure * kl, {"kl": kl.detach(), "psnr": -10 * torch.log10(error / 4)}


def load_trained(recipe: Mapping[str, Any], state_dir: Path) -> Any:
    """The autoencoder with the averaged weights of a checkpoint, finished or not."""
    state = save.load(Path(state_dir) / CHECKPOINT)
    vae = build_vae(recipe["network"])
    average = Average(vae.parameters(), recipe["ema"])
    average.load(state["average"])
    average.restart()
    speed_up_single_frames(vae)
    return vae.eval()


def psnr(a: np.ndarray, b: np.ndarray, where: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB of uint8 images, over `where` (bool, without channels)."""
    error = (a.astype(np.float32) - b.astype(np.float32)) ** 2
    mean = error.mean() if where is None else error[where].mean()
    return float(10 * np.log10(255.0**2 / max(float(mean), 1e-9)))


def measure(
    vae: Any, folder: Path, sets: list[scenes.RenderSet], limit: int = 200,
    picture: Path | None = None,
) -> dict[str, float]:
    """PSNR on unseen identities over the frames of 9-frame clips, and over the heads in them."""
    values: dict[str, list[float]] = {"psnr": [], "head_psnr": []}
    rows = []
    for described in (s for s in sets if s.split == "validation" and s.people > 0):
        for path in described.finished(folder):
            shard = scenes.read_shard(path)
            for i in range(min(limit // 4, len(shard.frames))):
                clip, heads = np.asarray(shard.frames[i]), np.asarray(shard.faces[i]) > 0
                again = to_frames(decode(vae, encode(vae, to_tensor(clip[None]))))[0]
                values["psnr"].append(psnr(clip, again))
                values["head_psnr"].append(psnr(clip, again, heads))
                if i < 4:
                    rows.append(np.concatenate([clip[-1], again[-1]], axis=1))
    if picture is not None and rows:
        Image.fromarray(np.concatenate(rows)).resize(
            (rows[0].shape[1] * 3, rows[0].shape[0] * len(rows) * 3)).save(picture)
    return {name: round(float(np.mean(v)), 3) for name, v in values.items()}


def gate(
    vae: Any, folder: Path, sets: list[scenes.RenderSet], limit: int = 150
) -> dict[str, float]:
    """The gate of the autoencoder: can a recogniser tell a face's own reconstruction?

    Middle frames of one-person clips of unseen identities are encoded and decoded as clips.
    `gate_auc` is the chance that a true face is nearer to its own reconstruction than to a
    reconstruction of another identity; `gate_arcsim` the mean cosine to its own.
    """
    if "arcface" not in embedded.entries():
        note("gate: there is no embedded arcface yet, so faces are not compared")
        return {}
    embedder = FaceEmbedder()
    faces: list[np.ndarray] = []
    identities: list[int] = []
    validation = [s for s in sets if s.split == "validation" and s.people == 1]
    for shard in (scenes.read_shard(path) for s in validation for path in s.finished(folder)):
        for scene, frames in zip(shard.scenes, shard.frames, strict=True):
            if len(identities) == limit:
                break
            clip = np.asarray(frames)
            made = to_frames(decode(vae, encode(vae, to_tensor(clip[None]))))[0]
            both = embedder.embed_largest(np.stack([clip[4], made[4]]))
            if np.isfinite(both).all():
                faces.append(both)
                identities.append(scene.people[0].identity)
    true, again = np.stack(faces, 1)
    similarity = true @ again.T
    own, other = np.diag(similarity), similarity[~np.equal.outer(identities, identities)]
    return {"gate_auc": round(area_under_curve(own, other) or 0.0, 4),
            "gate_arcsim": round(float(own.mean()), 4), "gate_faces": len(identities)}


def _measure_all(vae: Any, folder: Path, sets: list[scenes.RenderSet]) -> dict[str, float]:
    return {**measure(vae, folder, sets), **gate(vae, folder, sets)}


def _export(
    recipe: Mapping[str, Any], vae: Any, pool: FramePool, folder: Path, steps: int,
    sets: list[scenes.RenderSet],
) -> dict[str, float]:
    """Measure, set the scaling factor from the latents of training frames, write the weights."""
    vae.eval()
    rng = np.random.default_rng([recipe["seed"], 99])
    latents = torch.cat([encode(vae, to_tensor(pool.images(16, rng)[0])) for _ in range(16)])
    network = dict(recipe["network"])
    # Latents were encoded with the factor in the configuration (1): their spread sets it.
    network["scaling_factor"] = round(float(vae.config.scaling_factor / latents.std()), 5)
    measured = _measure_all(vae, folder, sets)
    embedded.save_entry(
        "vae", vae.state_dict(), recipe=recipe["name"], seed=recipe["seed"], steps=steps,
        config=network, measured=measured,
    )
    return measured
