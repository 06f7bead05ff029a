"""Trains modules on one device: optimiser, averaged weights (EMA) and one checkpoint file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from idbench.errors import UserError, explained
from idbench.files import sha256_json
from idbench.output import note
from idbench.training import save
from idbench.training.resumable_loop import Interrupted, Log, Pace, Progress, Values, run

CHECKPOINT = "checkpoint.pt"
FREE = (
    "name", "description", "trainer", "steps", "minutes", "threads", "validation", "evaluation",
    "log_every", "evaluate_every", "checkpoint_minutes",
)
"""Settings of a recipe that may change between the sessions of one training."""


def averaging_weight(decay: float, step: int) -> float:
    """Share of the weights after `step` steps in the average: 1 - min(decay, (1 + s) / (10 + s)).
    The warm-up keeps the initial weights from dominating the average of a short training."""
    return 1.0 - min(decay, (1 + step) / (10 + step))


def own_part(parameter: torch.Tensor) -> torch.Tensor:
    """The part of a parameter that this process holds, sharing the parameter's memory."""
    data = parameter.detach()
    return data.to_local() if isinstance(data, DTensor) else data


class Average:
    """Exponential moving average of parameters in float32; with FSDP, of this process's part.

    `decay` is 0 (no averaging) to below 1, reached after a warm-up (`averaging_weight`); `device`:
    where the average, `values`, is kept (None: next to the parameters)."""

    def __init__(
        self, parameters: Iterable[torch.Tensor], decay: float, device: str | None = None
    ) -> None:
        self.decay, self.live = decay, list(parameters)
        self.values = [
            torch.empty_like(p, dtype=torch.float32, device=device or p.device).copy_(p)
            for p in map(own_part, self.live)
        ]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Include the parameters as they are after `step` steps."""
        weight = averaging_weight(self.decay, step)
        for value, parameter in zip(self.values, self.live, strict=True):
            value.lerp_(own_part(parameter).to(value.device, torch.float32), weight)

    def restart(self) -> None:
        """Continue training from the averaged weights."""
        self._write(self.values)

    def load(self, values: Iterable[torch.Tensor]) -> None:
        """Take over stored `values`."""
        for value, stored in zip(self.values, values, strict=True):
            value.copy_(stored)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within this context, the parameters hold the averaged weights."""
        held = [own_part(p).to("cpu", copy=True) for p in self.live]
        self._write(self.values)
        try:
            yield
        finally:
            self._write(held)

    @torch.no_grad()
    def _write(self, values: Iterable[torch.Tensor]) -> None:
        for value, parameter in zip(values, self.live, strict=True):
            own_part(parameter).copy_(value)


def pace_of(recipe: Mapping[str, Any], **changes: Any) -> Pace:
    """The pace that a recipe's fields give; a checkpoint a minute by default."""
    names = ("steps", "minutes", "log_every", "checkpoint_minutes")
    given = {name: recipe[name] for name in names if name in recipe}
    return Pace(**{"checkpoint_minutes": 1.0, **given, **changes})


def fit(
    recipe: Mapping[str, Any], folder: Path, modules: Mapping[str, nn.Module],
    optimiser: torch.optim.Optimizer, loss_of: Callable[[int], tuple[torch.Tensor, Values]], *,
    rate: Callable[[int], float], resume: bool, average: Average | None = None,
    after: Callable[[int], object] = lambda step: None, pace: Pace | None = None,
) -> int:
    """Train `modules` by a recipe, with `checkpoint.pt` and `log.jsonl` in `folder`; returns the
    finished steps.

    Args:
        recipe: fields of `pace_of`, and `clip`, the largest norm of the gradient (default 1). A
            checkpoint of a recipe that differs outside `FREE` is refused.
        loss_of: the loss of a step and further values to log. It must depend on the step, the
            modules and torch's random generator only.
        rate: the learning rate of a step.
        after: see `resumable_loop.run`.
        pace: instead of the recipe's own.

    Raises Interrupted: at a signal or the time limit, with a checkpoint; UserError: a damaged
    checkpoint, one of another recipe, or a loss that is not finite.
    """
    path, progress = Path(folder) / CHECKPOINT, Progress()
    pace = pace or pace_of(recipe)
    identity = sha256_json({k: v for k, v in recipe.items() if k not in FREE})
    log = Log(path.parent / "log.jsonl", pace.steps)
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    clip = float(recipe.get("clip", 1.0))
    for module in modules.values():
        module.train()
    resumed = resume and path.is_file()
    if resumed:
        stored = save.load(path)
        if stored.get("identity") != identity:
            raise UserError(
                f"{path} was written by another version of this recipe; train without --resume, "
                "or restore the recipe."
            )
        load_modules(stored, modules)
        optimiser.load_state_dict(stored["optimiser"])
        if average is not None:
            average.load(stored["average"])
        save.restore_random_state(stored["random"])
        progress = Progress(**stored["progress"])
        note(f"resuming at step {progress.step} of {pace.steps}")
    elif resume:
        note(f"there is no {path}: training starts at step 0")
    log.cut(progress.step)

    def advance(step: int) -> Values:
        for group in optimiser.param_groups:
            group["lr"] = rate(step)
        loss, values = loss_of(step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, clip)
        optimiser.step()
        if average is not None:
            average.update(step + 1)
        return {"loss": loss.detach(), "norm": norm, **values}

    def checkpoint(progress: Progress) -> None:
        save.save(path, {
            "identity": identity, "progress": vars(progress), "random": save.random_state(),
            "modules": {name: module.state_dict() for name, module in modules.items()},
            "optimiser": optimiser.state_dict(),
            "average": None if average is None else average.values,
        })

    run(
        progress, pace, log, advance=advance, checkpoint=checkpoint, after=after, resumed=resumed
    )
    if progress.step < pace.steps:
        raise Interrupted(
            f"Stopped at step {progress.step} of {pace.steps} by the time limit of "
            f"{pace.minutes} minutes; raise it and continue with --resume."
        )
    for module in modules.values():
        module.eval()
    return progress.step


def load_modules(stored: Mapping[str, Any], modules: Mapping[str, nn.Module]) -> None:
    """Load the weights of a checkpoint into `modules`. Raises UserError: the checkpoint is of other
    modules."""
    with explained("The checkpoint does not fit this recipe", "train without --resume"):
        for name, module in modules.items():
            module.load_state_dict(stored["modules"][name])
