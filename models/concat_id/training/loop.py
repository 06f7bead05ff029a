"""The training loop of every stage, on accelerate: one process, several GPUs, FSDP or ZeRO-2.

What step s does depends on the recipe's seed and on s alone, and a checkpoint holds everything
else, so a training that is killed and resumed gives the losses of one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from idbench.errors import UserError
from idbench.models.concat_id.training import adapters, checkpoint, components, network
from idbench.models.concat_id.training.export import export
from idbench.models.concat_id.training.objective import Batch, loss
from idbench.models.concat_id.training.recipe import StageRecipe, read, settings_of
from idbench.models.concat_id.training.samples import Cache, StepSamples
from idbench.models.concat_id.training.setup import (
    asked_to_stop,
    make_accelerator,
    make_family,
    reshard,
)
from idbench.models.concat_id.training.trackers import (
    JsonLines,
    tracker_arguments,
    tracker_settings,
)
from idbench.output import note
from idbench.provenance import cores


def train(
    content: dict[str, Any], state_dir: Path, resume: bool = False, evaluate: bool = False
) -> dict[str, Any]:
    """Trainer of the stages. Writes checkpoints, a log, validation pictures and `export`.

    Stops at `steps`, or after the present step at SIGTERM or Ctrl-C, with a checkpoint.

    Raises:
        UserError: what a recipe, a cache, a checkpoint or the disk is lacking.
    """
    recipe = read(StageRecipe, content)
    state_dir = Path(state_dir)
    cache = Cache.open(Path(recipe.cache))
    cache.check(recipe)
    found = checkpoint.latest(state_dir / "checkpoints")
    if found is not None and not (resume or evaluate):
        raise UserError(
            f"{state_dir} holds a training of step {int(found.name)}; go on with --resume, or name "
            "another folder with --state."
        )
    if evaluate and found is None:
        raise UserError(f"There is no checkpoint in {state_dir} to evaluate; train first.")
    if evaluate and not len(cache.split("validation")):
        raise UserError(
            f"The cache {recipe.cache} holds out no samples to evaluate on; make one with held_out."
        )
    session = Session(recipe, cache, state_dir, found)
    return session.validate() if evaluate else session.run()


class Session:
    """One session of a training, from start or checkpoint to its end or a signal.

    Args:
        found: the checkpoint to go on from, or None.
    """

    def __init__(
        self, recipe: StageRecipe, cache: Cache, state_dir: Path, found: Path | None = None
    ) -> None:
        self.recipe, self.cache, self.state_dir = recipe, cache, state_dir
        self.accelerator = make_accelerator(recipe, state_dir)
        self.fixed = checkpoint.described(recipe, self.accelerator.num_processes)
        said = checkpoint.check(found, self.fixed) if found else {}
        self.step, self.before = int(said.get("step", 0)), float(said.get("seconds", 0.0))
        self.log = JsonLines(state_dir / "log.jsonl", recipe.steps)
        self.started = time.monotonic()
        device = self.accelerator.device
        transformer: Any = network.load(recipe)
        cache.check_network(transformer.config)
        if recipe.lora_rank:
            adapters.add(transformer, recipe)
        if recipe.gradient_checkpointing:
            transformer.enable_gradient_checkpointing()
        transformer.train()
        self.family = make_family(recipe)
        # In float32 where it trains: a small update to a bfloat16 weight is lost.
        live = [p for p in transformer.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(
            live, lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay,
            fused=True if device.type == "cuda" else None,
        )
        self.network, self.optimiser = self.accelerator.prepare(
            network.Denoiser(transformer), optimiser
        )
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.average = None
        if recipe.ema:
            place = "cpu" if recipe.ema_device == "cpu" else None
            self.average = checkpoint.Average(self.parameters, recipe.ema, place)
        if found is not None:
            checkpoint.restore(found, self.accelerator, self.average)
        self.autoencoder = self._autoencoder()
        self.stop = False
        # Of the steps since the last row of the log.
        self._losses = [torch.tensor(v, device=device) for v in said.get("losses", ())]
        self._last: dict[str, Any] = {}
        self._since: float | None = None

    def run(self) -> dict[str, Any]:
        """Train to the end; returns the last logged values (nothing on other processes)."""
        accelerator, recipe = self.accelerator, self.recipe
        self.log.cut(self.step)
        accelerator.init_trackers(
            recipe.name, tracker_settings(recipe), tracker_arguments(self.step)
        )
        accelerator.trackers.append(self.log)
        batches = self.batches()
        with asked_to_stop(self):
            while self.step < recipe.steps and not self._stopping():
                self.advance(batches)
                if self.step % recipe.log_every == 0:
                    self._write_log()
                if recipe.validate_every and self.step % recipe.validate_every == 0:
                    self.validate()
                if self.step % recipe.checkpoint_every == 0:
                    self.checkpoint()
        if self.step % recipe.checkpoint_every:
            self.checkpoint()
        if self.step == recipe.steps:
            self.export()
        elif accelerator.is_main_process:
            note(f"Stopped at step {self.step} of {recipe.steps}; the same command with --resume "
                 "goes on.")
        accelerator.end_training()
        return {"step": self.step, **self._last} if accelerator.is_main_process else {}

    def batches(self) -> Iterator[dict[str, Any]]:
        """What this process computes from the present step on, read ahead by `workers`."""
        accelerator = self.accelerator
        drawn = StepSamples(
            self.cache, self.recipe, accelerator.process_index, accelerator.num_processes
        )
        loader = DataLoader(
            drawn, batch_size=None, sampler=range(self.step * drawn.accumulation, len(drawn)),
            num_workers=min(self.recipe.workers, cores()),
            pin_memory=accelerator.device.type == "cuda",
        )
        for batch in loader:
            if "problem" in batch:
                raise UserError(batch["problem"])
            yield batch

    def advance(self, batches: Iterator[dict[str, Any]]) -> torch.Tensor:
        """One optimiser step; its mean loss on this process, not yet waited for."""
        accelerator, recipe = self.accelerator, self.recipe
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.rate(self.step)
        total = torch.zeros((), device=accelerator.device)
        count = recipe.accumulation(accelerator.num_processes)
        for _ in range(count):
            batch = self.to_device(next(batches))
            with accelerator.accumulate(self.network):
                value = loss(self.network, self.family, batch).mean()
                accelerator.backward(value)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(self.parameters, recipe.clip)
                self.optimiser.step()
                self.optimiser.zero_grad(set_to_none=True)
            total += value.detach() / count
        self.step += 1
        if self.average is not None:
            self.average.update(self.step)
        self._losses.append(total)
        return total

    def to_device(self, row: Mapping[str, torch.Tensor]) -> Batch:
        """A drawn batch on the device: references encoded, dropout applied."""
        device = self.accelerator.device
        here = {name: value.to(device, non_blocking=True) for name, value in row.items()}
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
        )

    def validate(self) -> dict[str, Any]:
        """Show and measure the validation samples with the averaged weights."""
        from idbench.models.concat_id.training.validation import validate

        with self.averaged():
            values = validate(self)
        if values and self.accelerator.trackers:  # none while evaluating
            self.accelerator.log(values, step=self.step)
        return values

    def checkpoint(self) -> None:
        said = {
            "step": self.step, "seconds": self.before + time.monotonic() - self.started,
            "losses": [], "fixed": self.fixed,
        }
        if self._losses:
            losses = self.accelerator.reduce(torch.stack(self._losses), reduction="mean")
            said["losses"] = [self._finite(value) for value in losses.tolist()]
        checkpoint.save(
            self.state_dir / "checkpoints", self.accelerator, self.average, said,
            self.recipe.keep_checkpoints,
        )

    def export(self) -> Path:
        """Write the averaged weights as a diffusers folder, what a next stage starts from."""
        with self.averaged():
            return export(self)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """A context in which the network holds the averaged weights."""
        if self.average is None:
            yield
            return
        # What FSDP has gathered for a forward pass is not what is written to.
        reshard(self.network)
        with self.average.in_place():
            yield
            reshard(self.network)

    def _write_log(self) -> None:
        """Mean loss of the steps since the last time, over all processes."""
        mean = self.accelerator.reduce(torch.stack(self._losses).mean(), reduction="mean")
        value, count = self._finite(float(mean)), len(self._losses)
        self._losses = []
        now = time.monotonic()
        self._last = {"loss": value, "learning_rate": self.recipe.rate(self.step - 1)}
        if self._since is not None:
            self._last["seconds_per_step"] = (now - self._since) / count
        self._since = now
        self.accelerator.log(self._last, step=self.step)

    def _finite(self, loss: float) -> float:
        if math.isfinite(loss):
            return loss
        raise UserError(
            f"The loss is {loss} at step {self.step}: training has diverged; lower the "
            "learning_rate and go on from an older checkpoint."
        )

    def _stopping(self) -> bool:
        """Whether to stop; all processes agree, asked only where they wait for each other."""
        if self.accelerator.num_processes == 1:
            return self.stop
        if self.step % self.recipe.log_every:
            return False
        flag = torch.tensor(float(self.stop), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, reduction="sum") > 0)

    def _autoencoder(self) -> components.Autoencoder | None:
        recipe, source = self.recipe, self.recipe.components or self.recipe.init
        if source is None or source.startswith("embedded:"):
            source = "embedded" if source else None
        needed = recipe.references > 0 and recipe.reference_noise == "fresh"
        if source is None:
            if needed:
                raise UserError(
                    f"The recipe {recipe.name!r} draws reference noise anew but names no "
                    "autoencoder; set `components` to a diffusers folder."
                )
            return None
        if not needed and not recipe.validate_every:
            return None
        device = self.accelerator.device
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        return components.load_autoencoder(source).to(device, dtype)


def make_plan(content: dict[str, Any], **assumed: Any) -> Any:
    """`plan.plan` of a recipe's content; `assumed` are fields of `plan.Assumptions`."""
    from idbench.models.concat_id.training.plan import Assumptions, plan

    return plan(read(StageRecipe, content), Assumptions(**assumed))


# What the command line asks a trainer for.
train.settings = settings_of(StageRecipe)  # type: ignore[attr-defined]
train.plan = make_plan  # type: ignore[attr-defined]
