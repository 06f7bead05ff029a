"""Training of the transformers: base text-to-video, Concat-ID for one person, for several.

One loop for all stages. The recipe says where weights start (`init`), how many references a
sample has and of which pairs, which groups of samples take which share of the steps, and how
fast to learn. What step `s` does depends on the recipe and `s` alone, so a training that is
killed and goes on gives the same losses as one that was not.

Loss: MSE of the velocity v = sqrt(a) eps - sqrt(1 - a) x0 on the video's latents, which equals
the MSE of x0 weighted by 1 / (1 - a), a being alpha_bar at the drawn time. References share
the time but carry no noise, and are not in the loss. Text is dropped to zeros, references to
zero latents, each with its own chance. Source: arXiv 2503.14151.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import CogVideoXTransformer3DModel

from idbench import embedded
from idbench.errors import UserError
from idbench.models.concat_id import data
from idbench.models.concat_id.attention import use_matrix_attention
from idbench.models.concat_id.conditioning import denoise
from idbench.models.concat_id.latents import GROUPS, Batch, LatentPool
from idbench.models.concat_id.networks import (
    CLIP_LATENT_FRAMES,
    build_scheduler,
    build_transformer,
)
from idbench.models.concat_id.optimisers import Optimiser
from idbench.models.concat_id.schedule import (
    check_recipe,
    learning_rate,
    phase_at,
    pick_group,
    restarts_at,
)
from idbench.models.concat_id.state import Average, Clock, Log, save_atomically


@dataclass(frozen=True)
class Noised:
    """What one training step gives the network, all with B rows; see `add_noise`."""

    noisy: torch.Tensor
    references: torch.Tensor
    text: torch.Tensor
    times: torch.Tensor
    target: torch.Tensor

    def chunk(self, parts: int) -> list[Noised]:
        """Split into at most `parts` parts of neighbouring rows."""
        fields = [getattr(self, name).chunk(parts) for name in self.__dataclass_fields__]
        return [Noised(*part) for part in zip(*fields, strict=True)]


def add_noise(
    batch: Batch,
    alphas: torch.Tensor,
    generator: torch.Generator,
    text_dropout: float = 0.1,
    reference_dropout: float = 0.1,
) -> Noised:
    """Random times, noise and dropout for a batch.

    Args:
        alphas: alpha_bar of the training schedule, (steps,).
        generator: source of times, noise and dropout, in this order.
    """
    x0 = batch.latents
    size, device = len(x0), x0.device

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator).to(device)

    # Stratified times: one in each of B equal parts, so that the loss varies less. The parts
    # are dealt out at random, so that halves of a batch see the same spread of times.
    share = (torch.arange(size, device=device) + uniform(size)) / size
    times = (share * len(alphas)).long().clamp(max=len(alphas) - 1)
    times = times[torch.randperm(size, generator=generator)]
    alpha = alphas[times].view(-1, 1, 1, 1, 1)
    noise = torch.randn(x0.shape, generator=generator).to(device)
    keep_text = (uniform(size) >= text_dropout).view(-1, 1, 1)
    keep_references = (uniform(size) >= reference_dropout).view(-1, 1, 1, 1, 1)
    return Noised(
        alpha.sqrt() * x0 + (1 - alpha).sqrt() * noise,
        batch.references * keep_references,
        batch.text * keep_text,
        times,
        alpha.sqrt() * noise - (1 - alpha).sqrt() * x0,
    )


def velocity_loss(
    transformer: CogVideoXTransformer3DModel, inputs: Noised, bfloat16: bool = False
) -> torch.Tensor:
    """Loss of each sample, (B,). `bfloat16`: compute matrix products in bfloat16."""
    frames = inputs.noisy.shape[1]
    with torch.autocast(inputs.noisy.device.type, torch.bfloat16, enabled=bfloat16):
        output = denoise(
            transformer, inputs.noisy, inputs.references if inputs.references.shape[1] else None,
            inputs.text, inputs.times, clip_frames=max(CLIP_LATENT_FRAMES, frames),
        )
    return (output.float() - inputs.target).square().mean((1, 2, 3, 4))


def train(
    recipe: dict[str, Any], state_dir: Path, resume: bool = False, evaluate: bool = False
) -> dict[str, Any]:
    """Trainer of recipes `base`, `single`, `multi` and of the other stages.

    Stops at `steps`, after `minutes` in all, or on SIGTERM / SIGINT; then writes a checkpoint
    and the embedded weights (averaged). `resume` goes on from the checkpoint; without one, from
    the embedded weights where a phase restarts at their step.
    """
    check_recipe(recipe)
    if evaluate:
        from idbench.models.concat_id.evaluate import evaluate_recipe

        return evaluate_recipe(recipe, Path(state_dir))
    for group in recipe["groups"]:
        if group not in GROUPS:
            raise UserError(f"unknown group {group!r}; known: {', '.join(GROUPS)}")
    # Threads are set for each caller: this one updates the weights, `Run.pool` computes gradients.
    torch.set_num_threads(recipe["threads"] * recipe.get("workers", 1))
    torch.set_flush_denormal(True)
    device = torch.device(recipe.get("device") or ("cuda" if torch.cuda.is_available() else "cpu"))
    state_dir = Path(state_dir)
    pool = load_pool(recipe, state_dir)
    run = Run(recipe, state_dir, device, resume)
    last: dict[str, Any] = {}
    losses: dict[str, list[float]] = {}
    seen, started = 0, time.monotonic()
    while run.step < recipe["steps"] and not run.clock.over():
        rng = np.random.default_rng([recipe["seed"], run.step])
        settings, _ = phase_at(run.step, recipe)
        if restarts_at(run.step, recipe):
            run.restart()
        group = pick_group(settings["groups"], rng)
        size = settings["batch"][group.partition("_")[0]]
        count = 0 if settings["references"] == 0 else GROUPS[group]
        batch = pool.draw(group, size, count, settings["cross"], rng, settings.get("subject"))
        losses.setdefault(group, []).append(run.advance(batch, learning_rate(run.step, recipe)))
        seen += size
        if run.step % recipe["log_every"] == 0:
            elapsed = time.monotonic() - started
            last = {"step": run.step, "minutes": run.clock.used / 60, "norm": run.norm,
                    "steps_per_s": recipe["log_every"] / elapsed, "samples_per_s": seen / elapsed,
                    **{g: float(np.mean(v)) for g, v in losses.items()}}
            run.log.write(**last)
            losses, seen, started = {}, 0, time.monotonic()
        if run.step % recipe["sample_every"] == 0:
            _sample(run, recipe, state_dir)
            started = time.monotonic()
        if run.clock.checkpoint_due():
            run.checkpoint()
    run.checkpoint()
    run.export(last)
    return last


def load_pool(recipe: Mapping[str, Any], state_dir: Path, split: str = "training") -> LatentPool:
    """The encoded samples that a recipe trains on, beside its state folder."""
    sets = [s for s in data.sets_of(data.load_recipe(recipe["data"])) if s.split == split]
    home = Path(state_dir).parent
    similar = tuple(recipe["similar"]) if recipe.get("similar") else None
    pool = LatentPool(home / recipe["latents"], home / recipe["data"], sets, similar)
    if pool.cosines is not None:
        low, high = pool.cosines
        kept = ", ".join(f"{len(r)} {g}" for g, r in pool.groups.items())
        print(f"pairs of cosine {low:.3f} to {high:.3f}: {kept}", flush=True)
    missing = [g for g in recipe["groups"] if not pool.groups.get(g)]
    if missing:
        raise UserError(
            f"No encoded samples of {', '.join(missing)}; run `idbench train concat_id_data` and "
            "`idbench train concat_id_latents`."
        )
    return pool


def restart_of_embedded(recipe: Mapping[str, Any], checkpoint: Path) -> int:
    """The step of the embedded weights, if this recipe made them and restarts there.

    Raises:
        UserError: it does not, so without `checkpoint` there is nothing to go on from.
    """
    known = embedded.entries().get(recipe["entry"])
    if (known is not None and known["recipe"] == recipe["name"]
            and restarts_at(known["steps"], recipe)):
        return int(known["steps"])
    raise UserError(f"There is no {checkpoint} to resume from; leave out --resume.")


class Run:
    """Network, optimiser, averaged weights and step of one training; saved and restored whole."""

    def __init__(
        self, recipe: dict[str, Any], state_dir: Path, device: torch.device, resume: bool
    ) -> None:
        self.recipe, self.path, self.device = recipe, state_dir / "checkpoint.pt", device
        self.log = Log(state_dir / "log.jsonl")
        self.alphas = build_scheduler().alphas_cumprod.float().to(device)
        self.step, self.norm, used = 0, 0.0, 0.0
        torch.manual_seed(recipe["seed"])
        self.network = build_transformer(recipe["network"])
        stored = None
        if resume and self.path.exists():
            stored = torch.load(self.path, weights_only=True)
            self.network.load_state_dict(stored["network"])
        elif resume:
            self.step = restart_of_embedded(recipe, self.path)
            self.network.load_state_dict(embedded.load_state(recipe["entry"]))
        elif recipe.get("init"):
            self.network.load_state_dict(embedded.load_state(recipe["init"]))
        if device.type == "cpu":
            use_matrix_attention(self.network)
        self.network.to(device).train()
        self.parameters = list(self.network.parameters())
        self.optimiser = Optimiser(self.network, recipe)
        self.average = Average(self.parameters, recipe["ema"])
        if stored is not None:
            self.optimiser.load_state_dict(stored["optimiser"])
            self.average.values = [v.to(device) for v in stored["average"]]
            self.step, used = stored["step"], stored["seconds"]
            self.log.truncate(self.step)
        self.workers = recipe.get("workers", 1) if device.type == "cpu" else 1
        self.pool = ThreadPoolExecutor(
            self.workers, initializer=torch.set_num_threads, initargs=(recipe["threads"],)
        )
        self.clock = Clock(recipe.get("minutes"), recipe["checkpoint_minutes"], used)

    def restart(self) -> None:
        """Go on from the averaged weights, rounded as they are stored, with a new optimiser.

        So the state of all steps before is what `export` writes: who has only that can go on.
        """
        for value in self.average.values:
            value.copy_(value.half())
        self.average.restart()
        self.optimiser = Optimiser(self.network, self.recipe)

    def advance(self, batch: Batch, rate: float) -> float:
        """One optimiser step; returns the mean loss."""
        recipe = self.recipe
        generator = torch.Generator().manual_seed(recipe["seed"] * 1_000_003 + self.step)
        tensors = (batch.latents, batch.references, batch.text)
        batch = Batch(*(tensor.to(self.device) for tensor in tensors))
        inputs = add_noise(
            batch, self.alphas, generator, recipe["text_dropout"], recipe["reference_dropout"]
        )
        loss = self._backward(inputs)
        self.norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, recipe["clip"]))
        self.optimiser.step(rate)
        self.step += 1
        self.average.update(self.step)
        return loss

    def _backward(self, inputs: Noised) -> float:
        """Set the gradients of the mean loss; returns the loss.

        On CPU each of `workers` threads takes a part of the batch with one core to itself,
        which wastes less than splitting every single operation. Parts are added in order.
        """
        size = len(inputs.noisy)

        def part(rows: Noised) -> tuple[float, list[torch.Tensor | None]]:
            loss = velocity_loss(self.network, rows, self.recipe["bfloat16"]).sum() / size
            return float(loss.detach()), list(
                torch.autograd.grad(loss, self.parameters, allow_unused=True)
            )

        parts = inputs.chunk(self.workers)
        results = list(self.pool.map(part, parts)) if len(parts) > 1 else [part(parts[0])]
        for i, parameter in enumerate(self.parameters):
            grads = [grads[i] for _, grads in results if grads[i] is not None]
            parameter.grad = None
            for grad in grads:
                parameter.grad = grad if parameter.grad is None else parameter.grad.add_(grad)
        return sum(loss for loss, _ in results)

    def checkpoint(self) -> None:
        save_atomically(
            {"network": self.network.state_dict(), "optimiser": self.optimiser.state_dict(),
             "average": self.average.values, "step": self.step, "seconds": self.clock.used},
            self.path,
        )

    def export(self, measured: Mapping[str, Any]) -> None:
        """Write the averaged weights as embedded weights."""
        self.average.swap()
        weights = {k: v.detach().cpu() for k, v in self.network.state_dict().items()}
        embedded.save_entry(
            self.recipe["entry"], weights, recipe=self.recipe["name"], seed=self.recipe["seed"],
            steps=self.step, config=self.recipe["network"], measured=measured,
            parent=self.recipe["init"] if self.recipe.get("delta") else None,
        )
        self.average.swap()


def _sample(run: Run, recipe: Mapping[str, Any], state_dir: Path) -> None:
    """Write samples-STEP.png with the averaged weights; a failure here must not end a training."""
    from idbench.models.concat_id.evaluate import sample_grid

    run.average.swap()
    run.network.eval()
    try:
        sample_grid(run.network, recipe, state_dir, state_dir / f"samples-{run.step:06d}.png")
    except (UserError, OSError) as error:
        print(f"no samples at step {run.step}: {error}", flush=True)
    finally:
        run.network.train()
        run.average.swap()
