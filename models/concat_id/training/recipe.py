"""What a stage trains, how, and on what: the fields of a stage's recipe, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Annotated, Any, Literal, TypeVar

import pydantic
from pydantic.dataclasses import dataclass

from idbench.errors import UserError
from idbench.models.concat_id.about import MAXIMUM_REFERENCES, Sampling
from idbench.names import one_of
from idbench.training import schedule

STRICT = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)
Decay = Annotated[float, pydantic.Field(ge=0, lt=1)]
Share = Annotated[float, pydantic.Field(ge=0, le=1)]
Checked = TypeVar("Checked")
PHASED = (
    "learning_rate", "warmup", "decay", "lowest_rate", "groups", "cross", "exact",
    "background_tokens",
)
"""Fields that a phase may change."""

SLOW_SHARE = 0.05
"""Source: `auto_warmup_rate` of SwissArmyTransformer, sat/training/deepspeed_training.py."""


@dataclass(frozen=True, config=STRICT)
class Levels:
    """Where in the schedule training samples lie; see `StageRecipe.levels`."""

    mean: float
    deviation: pydantic.PositiveFloat
    uniform: Share = 0.2


@dataclass(frozen=True, config=STRICT)
class Evaluation:
    """What `idbench train RECIPE --evaluate` samples.

    Attributes:
        identities: number of people held out from training, or of groups of people.
        each: prompts for each of them.
        steps, sampling: of sampling.
        guidance, reference_guidance: scales; None: the model's defaults.
    """

    identities: pydantic.PositiveInt = 24
    each: pydantic.PositiveInt = 2
    steps: pydantic.PositiveInt = 20
    guidance: float | None = None
    reference_guidance: float | None = None
    sampling: Sampling = "default"


@dataclass(frozen=True, config=STRICT)
class StageRecipe:
    """One stage of training. Defaults are the released fine-tuning settings of Concat-ID.

    The paper publishes neither `steps` nor `global_batch`: the recipes' values are ours.

    Attributes:
        name, trainer, description: see `idbench.recipes`.
        network: `cogvideox-5b`, `wan2.1-1.3b`, `init` (the network that `init` holds), or
            `{family: cogvideox | wan, ...}` with the arguments of diffusers' class.
        reference_adaln: Wan only: references have a modulation of their own, which starts as the
            video's where `init` has none.
        reference_ffn_quirk: of a new modulation; see `wan`. Where `init` has one, its own is kept.
        init: a folder with the weights to start from (a diffusers folder, or the folder `export`
            of an earlier stage), `embedded:NAME`, or None for random weights.
        entry: name of the embedded weights to write at the end; None writes the folder `export`.
        delta: write `entry` as the difference to the embedded weights of `init`.
        entry_bits: bits of each number that `entry` keeps without `delta`, see `deltas.rounded`.
        components: a diffusers folder with `vae` and `scheduler`, `embedded`, or None for those
            of `init`. The autoencoder encodes references and shows validation samples.
        cache: folder written by `idbench train pairs_cache`.
        frames, height, width: of the video, in pixels; must be those of the cache.
        references: reference images per sample, 0 to 3.
        reference_noise: `fresh` draws the pixel noise exp(N(-3, 0.5)) anew at every step and
            encodes the reference then; `cached` uses one of the cache's encoded draws.
        steps: optimiser steps.
        global_batch: samples per step, over all processes.
        batch: samples that a process computes at once; gradients are accumulated to
            `global_batch`.
        optimiser: `adamw`, or `muon`: Muon for the matrices of the blocks, AdamW for the rest.
        muon_also: modules outside of the blocks whose matrices Muon updates too.
        learning_rate, warmup, decay, lowest_rate: the peak rate; it rises over `warmup` steps and
            falls linearly over the last `decay` share of the steps, to 0 at `steps` or to
            `lowest_rate`, a share of the peak rate.
        first_rate: share of the peak rate from which the warm-up rises.
        slow_start: the first updates, whose rate is `SLOW_SHARE` of the peak rate.
        sat_decay: the rate falls as in SAT instead: see `schedule.sat_linear`.
        norm_rate: factor of the rate for the norms of queries and keys, whose scales decide how
            sharply attention can look.
        betas, weight_decay: of AdamW.
        decay_all: weight decay of every parameter; false: of none that is a bias or a norm's.
        clip: largest norm of the gradient; 0: no limit.
        phases: settings that replace the recipe's own (`PHASED`) `until` a step, each with a
            learning rate schedule of its own. A phase with `restart: true` begins with the
            averaged weights as they are stored, and a new optimiser.
        ema: decay of the averaged weights that are exported; 0 exports the last ones. They are
            kept in float32 on `ema_device`: that of the training, or `cpu`.
        precision: `bf16` (autocast) or `no` (float32).
        gradient_checkpointing: recompute activations in the backward pass.
        lora_rank, lora_alpha: rank 0 trains all parameters.
        lora_feed_forward: adapters on the feed-forward layers too, not on the attention alone.
        levels: CogVideoX only: `mean` and `deviation` in dB of the normal distribution from which
            noise levels are drawn, but for a share `uniform` of the steps' samples, whose times
            are uniform in the schedule, as all are without `levels`. See `noise_levels`.
        background_removed: chance that a reference is shown without its background, where the
            cache has it both ways and the reference noise is fresh.
        text_dropout, reference_dropout: independent chances of zeroed text and references.
        time_shift: Wan only: shift of the noise levels.
        seed: of everything random. What step s does depends on it and on s alone.
        workers: processes that read the cache ahead.
        threads: on a CPU: parts of a batch that are computed at once, each on one core. 0 leaves
            the batch whole and the threads to PyTorch.
        device: `auto` or `cpu`.
        minutes: time limit over all sessions; the weights are exported then, too.
        log_every, checkpoint_every, validate_every: in steps; 0 never validates.
        checkpoint_minutes: minutes between further checkpoints.
        keep_checkpoints: number of recent checkpoints that are kept.
        validation_samples, validation_steps, validation_guidance: number of samples shown, and
            denoising steps and guidance scale of each.
        score: measure ArcSim and CLIPDist of the validation samples, if their weights are there.
    """

    name: str
    trainer: str
    description: str = ""
    network: str | dict[str, Any] = "cogvideox-5b"
    reference_adaln: bool = False
    reference_ffn_quirk: bool = False
    init: str | None = None
    entry: str | None = None
    delta: bool = False
    entry_bits: int = pydantic.Field(default=16, ge=7, le=16)
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
    optimiser: Literal["adamw", "muon"] = "adamw"
    muon_also: tuple[str, ...] = ()
    learning_rate: pydantic.PositiveFloat = 1e-5
    warmup: pydantic.NonNegativeInt = 0
    first_rate: Share = 0.0
    slow_start: pydantic.NonNegativeInt = 0
    sat_decay: bool = False
    decay: float = pydantic.Field(default=1.0, gt=0, le=1)
    lowest_rate: Share = 0.0
    phases: list[dict[str, Any]] = pydantic.Field(default_factory=list)
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    weight_decay: pydantic.NonNegativeFloat = 1e-4
    decay_all: bool = True
    norm_rate: pydantic.PositiveFloat = 1.0
    clip: pydantic.NonNegativeFloat = 0.1
    ema: Decay = 0.999
    ema_device: Literal["same", "cpu"] = "same"
    precision: Literal["bf16", "no"] = "bf16"
    gradient_checkpointing: bool = True
    lora_rank: pydantic.NonNegativeInt = 0
    lora_alpha: pydantic.PositiveFloat = 64.0
    lora_feed_forward: bool = False
    background_removed: Share = 1.0
    text_dropout: Share = 0.1
    reference_dropout: Share = 0.1
    time_shift: pydantic.PositiveFloat = 5.0
    levels: Levels | None = None
    seed: int = pydantic.Field(default=0, ge=0, lt=2**63)  # what torch takes
    workers: pydantic.NonNegativeInt = 4
    threads: pydantic.NonNegativeInt = 0
    device: Literal["auto", "cpu"] = "auto"
    minutes: pydantic.PositiveFloat | None = None
    log_every: pydantic.PositiveInt = 10
    checkpoint_every: pydantic.PositiveInt = 500
    checkpoint_minutes: pydantic.PositiveFloat | None = None
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

    @pydantic.model_validator(mode="after")
    def _usable(self) -> StageRecipe:
        schedule.check_phases(self.phases)
        known = [name for name in PHASED if hasattr(self, name)]
        for phase in self.phases:
            changes = {k: v for k, v in phase.items() if k not in ("until", "restart")}
            for key in changes:
                one_of("setting of a phase", str(key), known)
            replace(self, **changes, phases=[])  # checks the values
        if self.delta and not (self.entry and (self.init or "").startswith("embedded:")):
            raise ValueError("`delta` needs `entry` and embedded weights as `init`")
        return self

    @property
    def parts(self) -> str | None:
        """Where what is not trained comes from: a diffusers folder, `embedded`, or None."""
        source = self.components or self.init
        return "embedded" if source and source.startswith("embedded") else source

    def at(self, step: int) -> dict[str, Any]:
        """The settings of the update at `step`, counted from 0."""
        return schedule.phase_at(step, vars(self))[0]

    def rate(self, step: int) -> float:
        """Learning rate of the update at `step`, counted from 0."""
        now, since = schedule.phase_at(step, vars(self))
        if step < self.slow_start:
            return now["learning_rate"] * SLOW_SHARE
        if self.sat_decay:
            fall = schedule.sat_linear(since, now["steps"], now["warmup"])
        else:
            fall = schedule.linear(since, now["steps"], now["decay"], now["lowest_rate"])
        rise = schedule.warmup(since, now["warmup"], self.first_rate)
        return now["learning_rate"] * min(rise, fall)

    def restarts_at(self, step: int) -> bool:
        """Whether a phase with `restart: true` begins at `step`."""
        now, since = schedule.phase_at(step, vars(self))
        return since == 0 and bool(now.get("restart"))

    def accumulation(self, processes: int) -> int:
        """Number of batches that each process accumulates for one step. Raises UserError:
        `global_batch` cannot be divided so."""
        together = self.batch * processes
        if self.global_batch % together:
            raise UserError(
                f"The recipe {self.name!r} has global_batch {self.global_batch}, which "
                f"{processes} process{'es' if processes > 1 else ''} of batch {self.batch} cannot "
                f"make; use a multiple of {together}."
            )
        return self.global_batch // together


@dataclass(frozen=True, config=STRICT)
class SceneRecipe(StageRecipe):
    """A stage on rendered scenes, whose latents are all in memory.

    Attributes:
        data, latents: names of the recipes that rendered and encoded the scenes; their folders
            lie beside the state of this training.
        groups: share of the steps of each group of samples; see `scene_samples.GROUPS`.
        batch: samples per step by kind of group, `image` and `clip`.
        references: 0, or 1: one of each person.
        cross: chance that a reference comes from another scene of the person.
        exact: chance that a single image's reference is cropped from that very image, as in the
            paper's Stage I; otherwise any of the scene.
        pairs: for groups of `one`, `two` or `three` people the output of `pairs` that chooses
            those scenes, such as `cross`. Without it any other scene of the person serves.
        background_tokens: share of the video's tokens outside of heads that a step computes, and
            without the margins of face references; 1 computes all. See `subset`.
        subject: `garment` or `background`: one more reference, after the faces.
        copy_heads: start with some heads that copy, see `network`; for data with `aligned`.
        evaluation: of `--evaluate`.
    """

    data: str = "concat_id_data"
    latents: str = "concat_id_latents"
    groups: dict[str, pydantic.PositiveFloat] = pydantic.Field(default_factory=dict, min_length=1)
    batch: dict[Literal["image", "clip"], pydantic.PositiveInt] = pydantic.Field(  # type: ignore[assignment]
        default_factory=dict
    )
    references: int = pydantic.Field(default=1, ge=0, le=1)
    reference_noise: Literal["cached"] = "cached"
    cross: Share = 0.0
    exact: Share = 0.0
    pairs: dict[Literal["one", "two", "three"], str] = pydantic.Field(default_factory=dict)
    background_tokens: Share = 1.0
    subject: Literal["garment", "background"] | None = None
    copy_heads: bool = False
    evaluation: Evaluation = Evaluation()

    def accumulation(self, processes: int) -> int:
        return 1


def read_stage(content: Mapping[str, Any]) -> StageRecipe:
    """The recipe of a stage, a `SceneRecipe` where it names `groups` of rendered scenes."""
    return read(SceneRecipe if "groups" in content else StageRecipe, content)


def settings_of(kind: type[Any]) -> tuple[str, ...]:
    """The names of the fields of a recipe."""
    return tuple(f.name for f in fields(kind))


def read(kind: type[Checked], content: Mapping[str, Any]) -> Checked:
    """A recipe of `kind` from the content of its YAML file. Raises UserError: an unknown field
    (names the nearest), a missing one, or an unusable value."""
    name = content.get("name", "?")
    known = settings_of(kind)
    for key in content:
        one_of(f"field of recipe {name}", str(key), known)
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
