"""The parts of a training session: samples, accelerate, family, optimisers, autoencoder, log."""

from __future__ import annotations

import importlib.util
import json
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType
from diffusers import CogVideoXDPMScheduler
from diffusers.models.normalization import RMSNorm
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy

from idbench import embedded
from idbench.errors import UserError, explained
from idbench.models.concat_id import networks
from idbench.models.concat_id.families import CogVideoX, Family, Wan, family_named
from idbench.models.concat_id.families.wan21 import build_flow_scheduler
from idbench.models.concat_id.training import components, network
from idbench.models.concat_id.training.recipe import SceneRecipe, StageRecipe
from idbench.models.concat_id.training.samples import Cache
from idbench.models.concat_id.training.scene_samples import SceneSamples
from idbench.names import one_of
from idbench.training.resumable_loop import Log
from idbench.training.save import saying_full

Samples = Cache | SceneSamples
"""What a stage trains on, whatever it is stored in: a cache on disk, or scenes in memory."""


def open_samples(recipe: StageRecipe, state_dir: Path) -> Samples:
    """What the recipe trains on. Raises UserError: it is missing, damaged, or does not fit the
    recipe."""
    samples: Samples
    if isinstance(recipe, SceneRecipe):
        samples = SceneSamples(recipe, state_dir.parent)
    else:
        samples = Cache.open(Path(recipe.cache))
    samples.check(recipe)
    return samples


def restart_of_embedded(recipe: StageRecipe, state_dir: Path) -> int:
    """The step of the embedded weights, where this recipe wrote them and restarts from them. Raises
    UserError: it does not, so without a checkpoint there is nothing to resume."""
    known = embedded.entries().get(recipe.entry or "")
    if known and known["recipe"] == recipe.name and recipe.restarts_at(known["steps"]):
        return int(known["steps"])
    raise UserError(f"There is no checkpoint in {state_dir} to resume from; leave out --resume.")


def make_family(recipe: StageRecipe) -> Family:
    """The network's family with its noise schedule. CogVideoX's is that of the recipe's folder, or
    else that of CogVideoX-5B, which the embedded networks use too."""
    family = family_named(network.configuration(recipe)[0])
    if recipe.levels is not None and not issubclass(family, CogVideoX):
        raise UserError(
            f"The recipe {recipe.name!r} has `levels`, which only CogVideoX's schedule has; use "
            "time_shift for Wan."
        )
    if family is Wan:
        return Wan(build_flow_scheduler(recipe.time_shift))
    folder = Path(recipe.parts or "") / "scheduler"
    if recipe.parts in (None, "embedded") or not folder.is_dir():
        return family(networks.build_scheduler())
    with explained(f"{folder} cannot be read", "copy it again"):
        return family(CogVideoXDPMScheduler.from_pretrained(folder))


def make_accelerator(recipe: StageRecipe, state_dir: Path) -> Accelerator:
    """accelerate, as the recipe and its launcher set it up."""
    with saying_full(state_dir / "log.jsonl"):
        state_dir.mkdir(parents=True, exist_ok=True)
    made = Accelerator(
        mixed_precision=recipe.precision, cpu=recipe.device == "cpu", project_dir=state_dir,
        log_with=list(tracker_arguments(0)),
        # Without it every gradient is held twice.
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
    )
    if made.is_fsdp2 and recipe.precision == "bf16":
        # Sums of gradients and the times of noise need more digits than bfloat16 has.
        made.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(
            torch.bfloat16, torch.float32, cast_forward_inputs=False
        )
    if made.num_processes > 1 and (recipe.minutes or recipe.checkpoint_minutes):
        raise UserError(
            f"The recipe {recipe.name!r} has a limit in minutes, which several processes cannot "
            "keep together; leave out minutes and checkpoint_minutes."
        )
    made.gradient_accumulation_steps = recipe.accumulation(made.num_processes)
    if made.distributed_type == DistributedType.DEEPSPEED:
        # accelerate would read these from a data loader; ours is its own.
        config = made.state.deepspeed_plugin.deepspeed_config
        config["train_micro_batch_size_per_gpu"] = recipe.batch
        config["gradient_clipping"] = recipe.clip
    return made


def reshard(network: torch.nn.Module) -> None:
    """Drop the whole weights that FSDP has gathered; the parts of the processes stay."""
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def make_optimisers(
    transformer: torch.nn.Module, recipe: StageRecipe, accelerator: Accelerator
) -> list[torch.optim.Optimizer]:
    """AdamW; with `muon`, for all but the matrices of the blocks and of the modules `muon_also`,
    which Muon updates.

    Muon orthogonalises the momentum (Jordan et al., 2024). Its updates are scaled to the size of
    AdamW's, so that one learning rate serves both. Raises UserError: `muon_also` names a module
    that the network does not have."""
    live = [(n, p) for n, p in transformer.named_parameters() if p.requires_grad]
    of_muon: set[str] = set()
    if recipe.optimiser == "muon":
        known = {part for name, _ in live for part in name.split(".")[:-1]}
        for name in recipe.muon_also:
            one_of(f"module in muon_also of recipe {recipe.name}", name, known)
        of_muon = {*network.BLOCKS, *recipe.muon_also}
    kept = set() if recipe.decay_all else _undecayed(transformer)
    matrices, norms, without, rest = [], [], [], []
    for name, parameter in live:
        if parameter.ndim == 2 and of_muon & set(name.split(".")):
            matrices.append(parameter)
        elif recipe.norm_rate != 1 and (".norm_q." in name or ".norm_k." in name):
            norms.append(parameter)
        elif id(parameter) in kept:
            without.append(parameter)
        else:
            rest.append(parameter)
    groups = [group for group in (
        {"params": rest, "weight_decay": recipe.weight_decay},
        {"params": without, "weight_decay": 0.0},
        {"params": norms, "weight_decay": 0.0, "factor": recipe.norm_rate},
    ) if group["params"]]
    made: list[torch.optim.Optimizer] = [torch.optim.AdamW(
        groups, lr=recipe.learning_rate, betas=recipe.betas,
        fused=None if accelerator.is_fsdp2 else True,
    )]
    if matrices:
        made.append(torch.optim.Muon(
            matrices, lr=recipe.learning_rate, weight_decay=recipe.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ))
    return made


def _undecayed(network: torch.nn.Module) -> set[int]:
    """The ids of the biases and of the parameters of norms.

    Source: `get_params_for_weight_decay_optimization` of SwissArmyTransformer.
    """
    norms = (torch.nn.LayerNorm, torch.nn.RMSNorm, RMSNorm)
    return {
        id(parameter) for module in network.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if name == "bias" or isinstance(module, norms)
    }


def make_autoencoder(recipe: StageRecipe, device: torch.device) -> components.Autoencoder | None:
    """The autoencoder that encodes references and shows validation samples; None: not needed.
    Raises UserError: it is needed, and the recipe names none."""
    needed = recipe.references > 0 and recipe.reference_noise == "fresh"
    if recipe.parts is None and needed:
        raise UserError(
            f"The recipe {recipe.name!r} draws fresh reference noise but names no autoencoder; set "
            "`components` to a diffusers folder."
        )
    if recipe.parts is None or not (needed or recipe.validate_every):
        return None
    return components.load_autoencoder(recipe.parts, device)


class Trackers(Log):
    """The log, and accelerate's trackers: TensorBoard where it is installed; on the main process
    alone."""

    def __init__(self, accelerator: Accelerator, recipe: StageRecipe, path: Path) -> None:
        super().__init__(path, recipe.steps)
        self.accelerator, self.recipe = accelerator, recipe

    def start(self, step: int) -> None:
        """Start, or continue at `step`. Raises DiskFull, as `write` does."""
        if self.accelerator.is_main_process:
            self.cut(step)
        flat = {
            key: value if isinstance(value, int | float | str) else json.dumps(value)
            for key, value in asdict(self.recipe).items()
        }
        _silence_tensorboard()
        with saying_full(self.path):
            self.accelerator.init_trackers(self.recipe.name, flat, tracker_arguments(step))

    def write(self, step: int, **values: Any) -> None:
        if self.accelerator.is_main_process:
            super().write(step, **values)
        with saying_full(self.path):
            self.accelerator.log(values, step=step)


def tracker_arguments(step: int) -> dict[str, dict[str, Any]]:
    """accelerate's trackers to use, with their arguments for a session that starts at `step`."""
    if importlib.util.find_spec("tensorboard") is None:
        return {}
    return {"tensorboard": {"purge_step": step + 1}}


def _silence_tensorboard() -> None:
    """Print no traceback of the thread that writes TensorBoard's files: what it could not write is
    raised again at the next write."""
    before = threading.excepthook

    def hook(failure: threading.ExceptHookArgs) -> None:
        if not type(failure.thread).__module__.startswith("tensorboard."):
            before(failure)

    threading.excepthook = hook
