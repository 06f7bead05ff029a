"""Estimates the cost of a stage before it runs: parameters, tokens, FLOPs, memory, hours.

Nothing is downloaded or computed: the network is built on the meta device, where one step is
counted. Hours follow from the FLOPs of the model (forward and backward, without those that gradient
checkpointing repeats) and an assumed share of the GPU's peak (`mfu`). Memory is that of weights,
gradients, optimiser, average and stored activations, plus `overhead`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf
from typing import Any

import torch
from torch import nn

from idbench.errors import UserError
from idbench.models.concat_id.families import Wan, family_named
from idbench.models.concat_id.training import adapters, network
from idbench.models.concat_id.training.measure import measure
from idbench.models.concat_id.training.recipe import SceneRecipe, StageRecipe, read_stage

STRATEGIES = ("ddp", "fsdp", "zero2")
GIB = 2**30


@dataclass(frozen=True)
class Assumptions:
    """The assumptions of a plan.

    Attributes:
        gpus: processes, one per GPU.
        strategy: `ddp` (all of the state on each GPU), `fsdp` (weights, gradients and optimiser
            divided), `zero2` (DeepSpeed: gradients and optimiser divided, weights in bfloat16).
        mfu: model FLOPs utilisation, 0..1.
        peak_tflops: of one GPU in bfloat16, dense; 989 is an H100 or H800 (SXM).
        memory: of one GPU, GiB.
        overhead: GiB for CUDA, the autoencoder and fragments of memory.
    """

    gpus: int = 8
    strategy: str = "ddp"
    mfu: float = 0.4
    peak_tflops: float = 989.0
    memory: float = 80.0
    overhead: float = 4.0

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise UserError(
                f"--strategy is one of {', '.join(STRATEGIES)}, not {self.strategy!r}."
            )
        if not 0 < self.mfu <= 1 or not 0 < self.peak_tflops < inf or self.gpus < 1:
            raise UserError(
                "--mfu must be in (0, 1], --peak-tflops above 0 and --gpus at least 1."
            )
        if not 0 < self.memory < inf or not 0 <= self.overhead < inf:
            raise UserError(
                "--gpu-memory must be above 0 GiB and --overhead at least 0."
            )


@dataclass(frozen=True)
class Plan:
    """The result of `plan`; sizes in GiB.

    Attributes:
        parameters, trained_parameters: of the network; of LoRA's adapters, or all.
        tokens: of one sample's sequence: text (none for Wan, whose blocks read it by
            cross-attention), video, references.
        flops_per_sample: forward and backward of one sample.
        flops_per_step: of `global_batch` samples over all GPUs; `hardware_flops_per_step` with
            what gradient checkpointing computes again.
        memory: parts by name; `memory_per_gpu` their sum; `fits` whether it is within the GPU's.
        hours: until `steps`, without validation; `gpu_hours` times the GPUs.
    """

    recipe: str
    parameters: int
    trained_parameters: int
    tokens: int
    text_tokens: int
    video_tokens: int
    reference_tokens: int
    accumulation: int
    steps: int
    samples: int
    flops_per_sample: float
    flops_per_step: float
    hardware_flops_per_step: float
    memory: dict[str, float]
    memory_per_gpu: float
    fits: bool
    seconds_per_step: float
    hours: float
    gpu_hours: float
    assumptions: Assumptions

    def as_dict(self) -> dict[str, Any]:
        """All values, for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        a = self.assumptions
        parts = ", ".join(f"{name} {size:.1f}" for name, size in self.memory.items())
        return [
            f"parameters         {self.parameters:,} ({self.trained_parameters:,} trained)",
            f"tokens per sample  {self.tokens:,} (text {self.text_tokens:,}, video "
            f"{self.video_tokens:,}, references {self.reference_tokens:,})",
            f"samples            {self.samples:,} in {self.steps:,} steps of "
            f"{self.samples // self.steps} (each GPU accumulates {self.accumulation} batches)",
            f"FLOPs per sample   {self.flops_per_sample:.3e} forward and backward",
            f"FLOPs per step     {self.flops_per_step:.3e}, with checkpointing's "
            f"recomputation {self.hardware_flops_per_step:.3e}",
            f"memory per GPU     {self.memory_per_gpu:.1f} GiB of {a.memory:.0f}: {parts}"
            + ("" if self.fits else "  -- DOES NOT FIT"),
            f"time               {self.seconds_per_step:.2f} s per step, {self.hours:,.1f} hours "
            f"on {a.gpus} GPUs, {self.gpu_hours:,.0f} GPU-hours",
            f"assumed            {a.strategy}, MFU {a.mfu:.0%} of {a.peak_tflops:g} TFLOP/s per "
            f"GPU, {a.overhead:g} GiB for the rest; excludes validation and data",
        ]


def make_plan(content: Mapping[str, Any], **assumed: Any) -> Plan:
    """`plan` of a recipe's content; `assumed` are fields of `Assumptions`. Raises UserError: see
    `plan`; or a stage on rendered scenes, whose batches have several shapes."""
    recipe = read_stage(content)
    if isinstance(recipe, SceneRecipe):
        raise UserError(
            f"The recipe {recipe.name!r} trains on rendered scenes and has no plan; --plan is for "
            "stages such as cogvideox_stage1."
        )
    return plan(recipe, Assumptions(**assumed))


def plan(recipe: StageRecipe, assumed: Assumptions) -> Plan:
    """The plan of a recipe. Raises UserError: a network that cannot be built, sizes that do not
    fit, or a global batch that cannot be divided among the GPUs."""
    family, _ = network.configuration(recipe)
    frames, height, width = latent_size(recipe, family)
    with torch.device("meta"):
        transformer: Any = network.build(recipe)
    patch = transformer.config.patch_size
    side = patch if isinstance(patch, int) else patch[-1]
    text = (
        (transformer.config.max_text_seq_length, transformer.config.text_embed_dim)
        if family == "cogvideox"
        else (Wan.text_tokens, transformer.config.text_dim)
    )
    area = (height // side) * (width // side)
    # Counted before the network changes its type: weights are kept as the loop keeps them.
    parameters = sum(p.numel() for p in transformer.parameters())
    trained = adapter_parameters(transformer, recipe) if recipe.lora_rank else parameters
    dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
    counted = measure(
        transformer, recipe.batch, frames, recipe.references, height, width, text, dtype
    )
    # Without weights' gradients a backward pass costs as much as a forward pass.
    backward = counted.forward if recipe.lora_rank else counted.backward
    per_sample = (counted.forward + backward) / recipe.batch
    again = counted.again / recipe.batch if recipe.gradient_checkpointing else 0
    accumulation = recipe.accumulation(assumed.gpus)
    # Text passes Wan's blocks by cross-attention: it is no part of the sequence there.
    tokens = (text[0] if family == "cogvideox" else 0, frames * area, recipe.references * area)
    largest = max(sum(p.numel() for p in b.parameters()) for b in network.blocks_of(transformer)[1])
    memory = state_memory(recipe, assumed, parameters, trained, largest)
    memory["activations"] = counted.kept(recipe.gradient_checkpointing) / GIB
    memory["overhead"] = assumed.overhead
    total = sum(memory.values())
    step = per_sample * recipe.global_batch
    seconds = step / (assumed.gpus * assumed.peak_tflops * 1e12 * assumed.mfu)
    hours = seconds * recipe.steps / 3600
    return Plan(
        recipe.name, parameters, trained, sum(tokens), *tokens, accumulation, recipe.steps,
        recipe.steps * recipe.global_batch, per_sample, step,
        step + again * recipe.global_batch, memory, total, total <= assumed.memory, seconds,
        hours, hours * assumed.gpus, assumed,
    )


def latent_size(recipe: StageRecipe, family: str) -> tuple[int, int, int]:
    """Latent frames, height and width of the recipe's video. Raises UserError: sizes that the
    autoencoder or the patches cannot divide."""
    temporal, spatial = family_named(family).COMPRESSION
    unit = 2 * spatial
    if recipe.height % unit or recipe.width % unit or (recipe.frames - 1) % temporal:
        raise UserError(
            f"The recipe {recipe.name!r} has {recipe.frames} frames of {recipe.height}x"
            f"{recipe.width}; frames must be {temporal}k + 1, height and width multiples of {unit}."
        )
    return (
        (recipe.frames - 1) // temporal + 1, recipe.height // spatial, recipe.width // spatial
    )


def state_memory(
    recipe: StageRecipe, assumed: Assumptions, parameters: int, trained: int, block: int
) -> dict[str, float]:
    """GiB of weights, gradients, optimiser and average on one GPU.

    float32 weights and AdamW's two moments, as accelerate keeps them under autocast, which adds
    a bfloat16 copy of the weights in use; DeepSpeed keeps bfloat16 weights and float32 masters.
    Frozen weights (LoRA) are bfloat16 under `bf16`.

    Args:
        block: parameters of the largest block, which FSDP gathers (two, as it reads ahead).
    """
    mixed = recipe.precision == "bf16"
    frozen = (parameters - trained if recipe.lora_rank else 0) * (2 if mixed else 4)
    parts = assumed.gpus if assumed.strategy != "ddp" else 1
    average = 4 * trained if recipe.ema and recipe.ema_device == "same" else 0
    if assumed.strategy == "zero2":
        sizes = {
            "weights": frozen + 2 * trained, "gradients": 2 * trained / parts,
            "optimiser": 12 * trained / parts, "average": average,
        }
    else:
        copy = 2 * trained if mixed and assumed.strategy == "ddp" else 0
        gathered = 2 * block * (2 if mixed else 4) if assumed.strategy == "fsdp" else 0
        sizes = {
            "weights": (frozen + 4 * trained) / parts + copy + gathered,
            "gradients": 4 * trained / parts, "optimiser": 8 * trained / parts,
            "average": average / parts,
        }
    return {name: size / GIB for name, size in sizes.items()}


def adapter_parameters(transformer: nn.Module, recipe: StageRecipe) -> int:
    """Parameters of the recipe's LoRA adapters."""
    ends = adapters.targets(recipe)
    return sum(
        recipe.lora_rank * (module.in_features + module.out_features)
        for name, module in transformer.named_modules()
        if isinstance(module, nn.Linear)
        and any(name == t or name.endswith(f".{t}") for t in ends)
    )
