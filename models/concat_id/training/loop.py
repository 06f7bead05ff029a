"""Training of every transformer, at both scales: from tiny networks on a laptop to ZeRO-2 and FSDP.

A recipe (`recipe.StageRecipe`, or `SceneRecipe` for rendered scenes) says what is trained on what.
`idbench.training.resumable_loop.run`, which trains the other networks as well, decides when to
log, write a checkpoint and stop. Here is what a step of a transformer does:

1. settings of the step: a recipe may have phases, and a phase may restart the optimiser;
2. a batch, from a cache on disk (`samples`) or from rendered scenes in memory (`scene_samples`);
3. the gradient, on accelerate, or in parts on the cores of a CPU (`objective`);
4. the update (AdamW, Muon) and the average of the weights, which is what is exported.

What step s does depends on the recipe's seed and on s alone, and a checkpoint holds the rest, so a
training that is killed and resumed has the losses of one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from idbench import deltas
from idbench.errors import UserError
from idbench.models.concat_id.families import CogVideoX
from idbench.models.concat_id.networks import CLIP_LATENT_FRAMES, use_matrix_attention
from idbench.models.concat_id.training import adapters, checkpoint, network, setup
from idbench.models.concat_id.training.evaluation import evaluate_recipe
from idbench.models.concat_id.training.objective import Batch, LevelSampler, Threads, loss
from idbench.models.concat_id.training.plan import make_plan
from idbench.models.concat_id.training.recipe import (
    SceneRecipe,
    StageRecipe,
    read_stage,
    settings_of,
)
from idbench.models.concat_id.training.trained_weights import write_weights
from idbench.models.concat_id.training.validation import validate
from idbench.training.fit import Average
from idbench.training.resumable_loop import Interrupted, Pace, Progress, run


def train(
    content: dict[str, Any], state_dir: Path, resume: bool = False, evaluate: bool = False
) -> dict[str, Any]:
    """Trainer of the stages. Writes checkpoints, a log, validation pictures, and the weights.
    Raises Interrupted: by SIGTERM or Ctrl-C, after the present step and a checkpoint; UserError: a
    recipe, a cache or a checkpoint that cannot be used, or a full disk."""
    recipe, state_dir = read_stage(content), Path(state_dir)
    if evaluate and isinstance(recipe, SceneRecipe):
        return evaluate_recipe(recipe, state_dir)
    found = checkpoint.latest(state_dir / "checkpoints")
    if found is not None and not (resume or evaluate):
        raise UserError(
            f"{state_dir} contains a training at step {int(found.name)}; continue it with "
            "--resume, or choose another folder with --state."
        )
    if evaluate and found is None:
        raise UserError(f"There is no checkpoint in {state_dir} to evaluate; train first.")
    step = 0
    if resume and found is None and recipe.entry:
        step = setup.restart_of_embedded(recipe, state_dir)
    session = Session(recipe, setup.open_samples(recipe, state_dir), state_dir, found, step)
    if not evaluate:
        return session.run()
    values = session.validate()
    if not values and session.accelerator.is_main_process:
        raise UserError(
            f"The cache {recipe.cache} has no held-out samples to evaluate on; make one with "
            "held_out."
        )
    return values


class Session:
    """One session of a training, from its start or a checkpoint to its end or a signal.

    Args:
        found: the checkpoint to continue from, or None.
        step: without a checkpoint: the first step. Later than 0, it starts from the embedded
            weights `recipe.entry`.
    """

    def __init__(
        self, recipe: StageRecipe, samples: setup.Samples, state_dir: Path,
        found: Path | None = None, step: int = 0,
    ) -> None:
        self.recipe, self.samples, self.state_dir = recipe, samples, state_dir
        self.accelerator = setup.make_accelerator(recipe, state_dir)
        self.fixed = checkpoint.described(recipe, self.accelerator.num_processes)
        self.resumed = found is not None
        self.progress = checkpoint.check(found, self.fixed) if found else Progress(step)
        device = self.accelerator.device
        start = replace(recipe, init=f"embedded:{recipe.entry}", delta=False) if step else recipe
        transformer: Any = network.load(start)
        samples.check_network(transformer.config)
        if isinstance(recipe, SceneRecipe) and recipe.copy_heads and not step:
            network.start_copying(transformer)
        if recipe.lora_rank:
            adapters.add(transformer, recipe)
        if recipe.gradient_checkpointing:
            transformer.enable_gradient_checkpointing()
        transformer.train()
        self.family = setup.make_family(recipe)
        threads = recipe.threads if device.type == "cpu" else 0
        if self.family.name == "cogvideox" and (threads or isinstance(recipe, SceneRecipe)):
            use_matrix_attention(transformer)
        self.levels = None
        if recipe.levels is not None:
            assert isinstance(self.family, CogVideoX)
            self.levels = LevelSampler(self.family.decibels(), recipe.levels)
        # Images have their references at the positions that they have beside a clip.
        clip_frames = CLIP_LATENT_FRAMES if isinstance(recipe, SceneRecipe) else None
        denoiser = network.Denoiser(transformer, clip_frames)
        optimisers = setup.make_optimisers(denoiser, recipe, self.accelerator)
        self.network, *self.optimisers = self.accelerator.prepare(denoiser, *optimisers)
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.threads = Threads(threads, self.parameters) if threads else None
        self.average = None
        if recipe.ema:
            place = "cpu" if recipe.ema_device == "cpu" else None
            self.average = Average(self.parameters, recipe.ema, place)
        if found is not None:
            checkpoint.restore(found, self.accelerator, self.average)
        self.autoencoder = setup.make_autoencoder(recipe, device)

    @property
    def step(self) -> int:
        """Finished steps."""
        return self.progress.step

    def run(self) -> dict[str, Any]:
        """Train to the end; returns the last row of the log (nothing on other processes)."""
        accelerator, recipe = self.accelerator, self.recipe
        trackers = setup.Trackers(accelerator, recipe, self.state_dir / "log.jsonl")
        trackers.start(self.step)
        batches = self.batches()
        pace = Pace(
            recipe.steps, recipe.minutes, recipe.log_every, recipe.checkpoint_every,
            recipe.checkpoint_minutes,
        )

        def after(step: int) -> None:
            if recipe.validate_every and step % recipe.validate_every == 0:
                values = self.validate()
                if values:
                    trackers.write(step, **values)

        last = run(
            self.progress, pace, trackers, advance=lambda step: self.advance(batches),
            checkpoint=self.checkpoint, after=after, agree=self._agree, reduce=self._mean,
            resumed=self.resumed,
        )
        if self.step < recipe.steps and recipe.minutes is None:  # a signal to another process
            raise Interrupted(f"Stopped at step {self.step} of {recipe.steps}.")
        with self.averaged():
            write_weights(self, last)
        accelerator.end_training()
        return last if accelerator.is_main_process else {}

    def batches(self) -> Iterator[dict[str, Any]]:
        """What this process computes from the present step on."""
        accelerator = self.accelerator
        return self.samples.batches(
            self.recipe, self.step, accelerator.process_index, accelerator.num_processes,
            accelerator.device.type == "cuda",
        )

    def advance(self, batches: Iterator[dict[str, Any]]) -> dict[str, torch.Tensor | float]:
        """One optimiser step; values to log, of this process and not yet waited for."""
        if self.recipe.restarts_at(self.step):
            self.restart()
        rate = self.recipe.rate(self.step)
        count = self.recipe.accumulation(self.accelerator.num_processes)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * group.get("factor", 1.0)
        total = torch.zeros((), device=self.accelerator.device)
        for _ in range(count):
            row = next(batches)
            if self.levels is not None:
                row["uniform"] = self.levels(row["uniform"])
            with self.accelerator.accumulate(self.network):
                total += self._backward(self.to_device(row)) / count
                norm = None
                if self.accelerator.sync_gradients:
                    norm = self.accelerator.clip_grad_norm_(
                        self.parameters, self.recipe.clip or math.inf
                    )
                for optimiser in self.optimisers:
                    optimiser.step()
                    optimiser.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.step + 1)
        values: dict[str, torch.Tensor | float] = {"loss": total, "learning_rate": rate}
        if norm is not None:
            values["norm"] = norm
        if "group" in row:
            values[row["group"]] = total
        return values

    def _backward(self, batch: Batch) -> torch.Tensor:
        """Add the gradients of a batch; returns its mean loss."""
        if self.threads is not None:
            return self.threads.backward(self.network, self.family, batch)
        value = loss(self.network, self.family, batch).mean()
        self.accelerator.backward(value)
        return value.detach()

    def restart(self) -> None:
        """Continue from the averaged weights, rounded as they are stored, with new optimisers.

        Then the exported weights are all that a training needs to continue from here.
        """
        if self.average is not None:
            for value in self.average.values:
                value.copy_(deltas.rounded(value, self.recipe.entry_bits))
            self.average.restart()
        for optimiser in self.optimisers:
            optimiser.optimizer.state.clear()

    def to_device(self, row: Mapping[str, Any]) -> Batch:
        """A drawn batch on the device: references encoded, dropout applied."""
        device = self.accelerator.device
        here = {name: value.to(device, non_blocking=True) for name, value in row.items()
                if name != "group"}
        size, latents = len(here["latents"]), here["latents"]
        if "images" in here:
            assert self.autoencoder is not None
            flat = self.autoencoder.encode(here["images"].flatten(0, 1).unsqueeze(2))
            references = flat.view(size, -1, *flat.shape[2:]).to(latents.dtype)
        else:
            references = here.get("references", latents[:, :0])
        return Batch(
            latents, references * here["keep_references"].view(-1, 1, 1, 1, 1),
            here["text"] * here["keep_text"].view(-1, 1, 1), here["uniform"], here["noise"],
            here.get("tokens"), here.get("people"), here.get("heads_alone"),
        )

    def validate(self) -> dict[str, Any]:
        """Show and measure the validation samples with the averaged weights."""
        with self.averaged():
            return validate(self)

    def checkpoint(self, progress: Progress) -> None:
        progress.pending = [self._mean(values) for values in progress.pending]
        checkpoint.save(
            self.state_dir / "checkpoints", self.accelerator, self.average, progress, self.fixed,
            self.recipe.keep_checkpoints,
        )

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within this context the network holds the averaged weights."""
        if self.average is None:
            yield
            return
        # What FSDP has gathered for a forward pass is not what is written to.
        setup.reshard(self.network)
        with self.average.in_place():
            yield
            setup.reshard(self.network)

    def _agree(self, stop: bool) -> bool:
        """Whether to stop; all processes agree, asked only where they wait for each other."""
        if self.accelerator.num_processes == 1:
            return stop
        if self.step % self.recipe.log_every:
            return False
        flag = torch.tensor(float(stop), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, reduction="sum") > 0)

    def _mean(self, values: dict[str, float]) -> dict[str, float]:
        """The mean over all processes."""
        if self.accelerator.num_processes == 1:
            return values
        row = torch.tensor(list(values.values()), device=self.accelerator.device)
        means = self.accelerator.reduce(row, reduction="mean").tolist()
        return dict(zip(values, means, strict=True))


# What the command line asks a trainer for.
train.settings = settings_of(SceneRecipe)  # type: ignore[attr-defined]
train.plan = make_plan  # type: ignore[attr-defined]
