"""What a stage trains, how, and on what: the fields of a stage's recipe, checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal, TypeVar

import pydantic
from pydantic.dataclasses import dataclass

from idbench.errors import UserError
from idbench.models.concat_id.conditioning import MAXIMUM_REFERENCES
from idbench.names import unknown

STRICT = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)
Decay = Annotated[float, pydantic.Field(ge=0, lt=1)]
Checked = TypeVar("Checked")


@dataclass(frozen=True, config=STRICT)
class StageRecipe:
    """One stage of training. Defaults are the released fine-tuning settings of Concat-ID.

    The paper publishes neither `steps` nor `global_batch`: the recipes' values are ours.

    Attributes:
        name, trainer, description: see `idbench.recipes`.
        network: `cogvideox-5b`, `wan2.1-1.3b`, `init` (the one that `init` holds), or
            `{family: cogvideox | wan, ...}` with the arguments of diffusers' class.
        reference_adaln: Wan only: references have their own modulation.
        init: a folder with the weights to start from (a diffusers folder, or the folder `export`
            of an earlier stage), `embedded:NAME`, or None for random weights.
        components: a diffusers folder with `vae` and `scheduler`, `embedded`, or None for those
            of `init`. The autoencoder encodes references and shows validation samples.
        cache: folder that `idbench train pairs_cache` wrote.
        frames, height, width: of the video, pixels; must be those of the cache.
        references: reference images a sample, 0 to 3.
        reference_noise: `fresh`: the pixel noise exp(N(-3, 0.5)) is drawn anew at every step and
            the reference encoded then; `cached`: one of the cache's encoded draws is taken.
        steps: optimiser steps.
        global_batch: samples a step, over all processes.
        batch: samples a process computes at once; what is left of `global_batch` is accumulated.
        learning_rate, warmup: the rate rises over `warmup` steps and falls linearly to 0 at
            `steps`.
        betas, weight_decay: of AdamW. clip: largest norm of the gradient.
        ema: decay of the averaged weights that are exported; 0 exports the last ones. They are
            kept in float32 on `ema_device`: that of the training, or `cpu`.
        precision: `bf16` (autocast) or `no` (float32).
        gradient_checkpointing: compute activations again in the backward pass.
        lora_rank, lora_alpha: rank 0 trains all parameters.
        text_dropout, reference_dropout: independent chances of zeroed text and references.
        time_shift: Wan only: shift of the noise levels.
        seed: of everything random. What step s does depends on it and on s alone.
        workers: processes that read the cache ahead.
        device: `auto` or `cpu`.
        log_every, checkpoint_every, validate_every: in steps; 0 never validates.
        keep_checkpoints: so many of the latest.
        validation_samples, validation_steps, validation_guidance: samples shown, denoising steps
            and guidance scale of each.
        score: ArcSim and CLIPDist of the validation samples, where the scorers are there.
    """

    name: str
    trainer: str
    description: str = ""
    network: str | dict[str, Any] = "cogvideox-5b"
    reference_adaln: bool = False
    init: str | None = None
    components: str | None = None
    cache: str = ""
    frames: pydantic.PositiveInt = 49
    height: pydantic.PositiveInt = 480
    width: pydantic.PositiveInt = 720
    references: int = pydantic.Field(default=1, ge=0, le=MAXIMUM_REFERENCES)
    reference_noise: Literal["fresh", "cached"] = "fresh"
    steps: pydantic.PositiveInt = 1000
    global_batch: pydantic.PositiveInt = 8
    batch: pydantic.PositiveInt = 1
    learning_rate: pydantic.PositiveFloat = 1e-5
    warmup: pydantic.NonNegativeInt = 0
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    weight_decay: pydantic.NonNegativeFloat = 1e-4
    clip: pydantic.PositiveFloat = 0.1
    ema: Decay = 0.999
    ema_device: Literal["same", "cpu"] = "same"
    precision: Literal["bf16", "no"] = "bf16"
    gradient_checkpointing: bool = True
    lora_rank: pydantic.NonNegativeInt = 0
    lora_alpha: pydantic.PositiveFloat = 64.0
    text_dropout: float = pydantic.Field(default=0.1, ge=0, le=1)
    reference_dropout: float = pydantic.Field(default=0.1, ge=0, le=1)
    time_shift: pydantic.PositiveFloat = 5.0
    seed: int = pydantic.Field(default=0, ge=0, lt=2**63)  # what torch takes
    workers: pydantic.NonNegativeInt = 4
    device: Literal["auto", "cpu"] = "auto"
    log_every: pydantic.PositiveInt = 10
    checkpoint_every: pydantic.PositiveInt = 500
    keep_checkpoints: pydantic.PositiveInt = 2
    validate_every: pydantic.NonNegativeInt = 1000
    validation_samples: pydantic.PositiveInt = 8
    validation_steps: pydantic.PositiveInt = 50
    validation_guidance: float = 6.0
    score: bool = True

    @pydantic.field_validator("precision", mode="before")
    @classmethod
    def _word(cls, value: Any) -> Any:
        return "no" if value is False else value  # what YAML makes of `no`

    def rate(self, step: int) -> float:
        """Learning rate of the update at `step`, counted from 0."""
        warm = min(1.0, (step + 1) / max(1, self.warmup))
        return self.learning_rate * warm * (self.steps - step) / self.steps

    def accumulation(self, processes: int) -> int:
        """Batches that each of so many processes adds up for one step.

        Raises:
            UserError: they do not make `global_batch`.
        """
        together = self.batch * processes
        if self.global_batch % together:
            raise UserError(
                f"The recipe {self.name!r} has global_batch {self.global_batch}, which "
                f"{processes} process{'es' if processes > 1 else ''} of batch {self.batch} cannot "
                f"make; take a multiple of {together}."
            )
        return self.global_batch // together


def settings_of(kind: type[Any]) -> tuple[str, ...]:
    """The fields that a recipe of this kind may have."""
    return tuple(f.name for f in fields(kind))


def read(kind: type[Checked], content: Mapping[str, Any]) -> Checked:
    """A recipe of `kind` from the content of its YAML file.

    Raises:
        UserError: an unknown field (says the nearest), a missing one, or a value of another kind.
    """
    name = content.get("name", "?")
    known = settings_of(kind)
    for key in content:
        if key not in known:
            raise unknown(f"field of recipe {name}", str(key), known)
    try:
        return kind(**content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "a field"
        reason = first["msg"].removeprefix("Value error, ")
        raise UserError(
            f"The recipe {name!r} has an unusable value for {where}: {reason}, not "
            f"{first.get('input')!r}; correct that line."
        ) from error


def differences(
    now: Mapping[str, Any], before: Mapping[str, Any], names: Iterable[str]
) -> list[str]:
    """Sentences' parts such as "seed 1 instead of 0" for the fields that differ."""
    return [
        f"{name} {now.get(name)!r} instead of {before.get(name)!r}"
        for name in names if now.get(name) != before.get(name)
    ]
