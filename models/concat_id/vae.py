"""Training of the autoencoder on single frames: whole, then its decoder alone.

The second part leaves the latents as they are, so whatever was encoded before stays good.

Loss: L1 + squared error + L1 of image gradients, faces weighted, and a KL term per latent
value that keeps the latents smooth enough for a diffusion model.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from idbench.errors import UserError
from idbench.models.concat_id import data
from idbench.models.concat_id.autoencoder import (
    build_vae,
    decode,
    encode,
    speed_up_single_frames,
    to_frames,
    to_tensor,
)
from idbench.models.concat_id.state import Average, Clock, Log, save_atomically


class FramePool:
    """Frames drawn at random from finished shards; looks for new ones now and then."""

    def __init__(self, folder: Path, sets: list[data.RenderSet], share: float) -> None:
        self.folder, self.sets, self.share = folder, sets, share
        self.known: dict[Path, data.Shard] = {}
        self.refresh()

    def refresh(self) -> None:
        for described in self.sets:
            for path in data.finished(self.folder, described):
                if path not in self.known:
                    self.known[path] = data.read_shard(path)
        shards = list(self.known.values())
        # Portraits are square: only the references prepared from them have the video's size.
        sized = [s for s in shards if s.frames.shape[2] < s.frames.shape[3]]
        self.frames = [s for s in sized if len(s.frames)]
        self.prepared = [s for s in shards if s.references.shape[2]]

    def images(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (count, 1, H, W, 3) and whether a head is at each pixel, bool (count, 1, H, W).

        A `share` of them are prepared references, on which all that is not black counts.
        """
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
    """Trainer of recipe `vae`. Returns the last losses, or with `evaluate` the measured values."""
    torch.set_num_threads(recipe.get("threads", 2))
    torch.set_flush_denormal(True)
    state_dir = Path(state_dir)
    folder = state_dir.parent / recipe["data"]
    data_recipe = data.load_recipe(recipe["data"])
    if evaluate:
        sets = data.sets_of(data_recipe)
        vae = load_trained(recipe, state_dir)
        return {**measure(vae, folder, sets), **_gate(vae, folder, sets)}
    sets = [s for s in data.sets_of(data_recipe) if s.split == "training"]
    pool = FramePool(folder, sets, recipe["reference_share"])
    if not pool.frames:
        raise UserError(f"No rendered data in {folder}; run `idbench train concat_id_data` first.")
    torch.manual_seed(recipe["seed"])
    vae = build_vae(recipe["network"])
    parameters = list(vae.parameters())
    optimizer = torch.optim.AdamW(
        parameters, lr=recipe["learning_rate"], betas=(0.9, 0.99),
        weight_decay=recipe["weight_decay"],
    )
    average = Average(parameters, recipe["ema"])
    log, path = Log(state_dir / "log.jsonl"), state_dir / "checkpoint.pt"
    step, used = 0, 0.0
    if resume and path.exists():
        state = torch.load(path, weights_only=True)
        vae.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        average.values = state["average"]
        step, used = state["step"], state["seconds"]
        log.truncate(step)
    whole, total = recipe["steps"], recipe["steps"] + recipe["decoder_steps"]
    clock = Clock(recipe.get("minutes"), recipe["checkpoint_minutes"], used)
    speed_up_single_frames(vae, last_tap_only=True)

    def checkpoint() -> None:
        save_atomically(
            {"network": vae.state_dict(), "optimizer": optimizer.state_dict(),
             "average": average.values, "step": step, "seconds": clock.used}, path)

    last: dict[str, Any] = {}
    started = time.monotonic()
    while step < total and not clock.over():
        if step >= whole and parameters[0].requires_grad:
            if step == whole:
                average.restart()
            vae.encoder.requires_grad_(False)
        rng = np.random.default_rng([recipe["seed"], step])
        frames, heads = pool.images(recipe["batch"], rng)
        images = to_tensor(frames)
        if step < whole:
            rate = recipe["learning_rate"] * _schedule(step, whole, recipe["warmup"])
        else:
            part = _schedule(step - whole, recipe["decoder_steps"], recipe["warmup"])
            rate = recipe["decoder_rate"] * part
        for group in optimizer.param_groups:
            group["lr"] = rate
        noise = torch.Generator().manual_seed(recipe["seed"] * 1_000_003 + step)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe["bfloat16"]):
            posterior = vae.encode(images).latent_dist
            mean, std = posterior.mean, posterior.std
            z = mean + std * torch.randn(mean.shape, generator=noise)
            output = vae.decode(z).sample
        loss = reconstruction_loss(
            output.float(), images, torch.from_numpy(heads)[:, None], recipe["face_weight"],
            recipe["gradient_weight"])
        kl = 0.5 * (mean.float().square() + std.float().square() - 1
                    - posterior.logvar.float()).mean()
        pressure = recipe["kl_weight"] * min(1.0, step / recipe["kl_warmup"])
        (loss + pressure * kl).backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, recipe["clip"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        average.update(step)
        if step % recipe["log_every"] == 0:
            pool.refresh()
            psnr = -10 * torch.log10((output.float() - images).square().mean() / 4).item()
            last = {"step": step, "loss": loss.item(), "kl": kl.item(),
                    "psnr": psnr, "norm": norm.item(), "rate": rate,
                    "steps_per_s": recipe["log_every"] / (time.monotonic() - started),
                    "minutes": clock.used / 60, "shards": len(pool.known)}
            log.write(**last)
            started = time.monotonic()
        if step % recipe["evaluate_every"] == 0:
            average.swap()
            log.write(step=step, **measure(vae, folder, data.sets_of(data_recipe), 40,
                                           state_dir / "samples.png"))
            average.swap()
            started = time.monotonic()
        if clock.checkpoint_due():
            checkpoint()
    checkpoint()
    if step >= total:
        finish(recipe, vae, average, pool, folder, step, data.sets_of(data_recipe))
    return last


def _schedule(step: int, total: int, warmup: int) -> float:
    """Share of the learning rate: warm-up, then half a cosine down to 2 %."""
    return float(
        min(1.0, (step + 1) / warmup) * (0.02 + 0.49 * (1 + np.cos(np.pi * step / total)))
    )


def load_trained(recipe: dict[str, Any], state_dir: Path) -> Any:
    """The averaged weights of a checkpoint, finished or not."""
    path = Path(state_dir) / "checkpoint.pt"
    if not path.exists():
        raise UserError(f"{path} is missing; run `idbench train {recipe['name']}` first.")
    state = torch.load(path, weights_only=True)
    vae = build_vae(recipe["network"])
    with torch.no_grad():
        for parameter, value in zip(vae.parameters(), state["average"], strict=True):
            parameter.copy_(value)
    speed_up_single_frames(vae)
    return vae.eval()


def psnr(a: np.ndarray, b: np.ndarray, where: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB of uint8 images, over `where` (bool, without channels)."""
    error = (a.astype(np.float32) - b.astype(np.float32)) ** 2
    mean = error.mean() if where is None else error[where].mean()
    return float(10 * np.log10(255.0**2 / max(float(mean), 1e-9)))


def measure(
    vae: Any, folder: Path, sets: list[data.RenderSet], limit: int = 200,
    picture: Path | None = None,
) -> dict[str, float]:
    """PSNR on unseen identities over the frames of 9-frame clips, and over the heads in them."""
    values: dict[str, list[float]] = {"psnr": [], "head_psnr": []}
    rows = []
    for described in (s for s in sets if s.split == "validation" and s.people > 0):
        for path in data.finished(folder, described):
            shard = data.read_shard(path)
            for i in range(min(limit // 4, len(shard.frames))):
                clip, heads = np.asarray(shard.frames[i]), np.asarray(shard.faces[i]) > 0
                again = to_frames(decode(vae, encode(vae, to_tensor(clip[None]))))[0]
                values["psnr"].append(psnr(clip, again))
                values["head_psnr"].append(psnr(clip, again, heads))
                if i < 4:
                    rows.append(np.concatenate([clip[-1], again[-1]], axis=1))
    if picture is not None and rows:
        from PIL import Image

        Image.fromarray(np.concatenate(rows)).resize(
            (rows[0].shape[1] * 3, rows[0].shape[0] * len(rows) * 3)).save(picture)
    return {name: round(float(np.mean(v)), 3) for name, v in values.items()}


def _gate(vae: Any, folder: Path, sets: list[data.RenderSet]) -> dict[str, float]:
    from idbench.models.concat_id.evaluate import gate

    validation = [s for s in sets if s.split == "validation" and s.people == 1]
    shards = [data.read_shard(p) for s in validation for p in data.finished(folder, s)]
    return gate(vae, shards)


def finish(
    recipe: dict[str, Any], vae: Any, average: Average, pool: FramePool, folder: Path, step: int,
    sets: list[data.RenderSet],
) -> None:
    """Measure, set the scaling factor from the latents of training frames, write the weights."""
    from idbench import embedded

    average.swap()
    vae.eval()
    rng = np.random.default_rng([recipe["seed"], 99])
    latents = torch.cat([encode(vae, to_tensor(pool.images(16, rng)[0])) for _ in range(16)])
    network = dict(recipe["network"])
    # Latents were encoded with the factor in the configuration (1): their spread sets it.
    network["scaling_factor"] = round(float(vae.config.scaling_factor / latents.std()), 5)
    embedded.save_entry(
        "vae", vae.state_dict(), recipe=recipe["name"], seed=recipe["seed"], steps=step,
        config=network, measured={**measure(vae, folder, sets), **_gate(vae, folder, sets)})
