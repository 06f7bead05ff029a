"""What a session of training is made of: accelerate, the loss, and the wish to stop."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy

from idbench.models.concat_id.families import Family
from idbench.models.concat_id.training import checkpoint, components, network
from idbench.models.concat_id.training.recipe import StageRecipe
from idbench.models.concat_id.training.trackers import tracker_arguments

if TYPE_CHECKING:
    from idbench.models.concat_id.training.loop import Session


def make_family(recipe: StageRecipe) -> Family:
    """The network's family with its noise schedule."""
    source = recipe.components or recipe.init
    plain = None if source is None or source.startswith("embedded") else source
    return components.load_family(network.configuration(recipe)[0], plain, recipe.time_shift)


def make_accelerator(recipe: StageRecipe, state_dir: Path) -> Accelerator:
    with checkpoint.saying_full(state_dir / "log.jsonl"):
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


@contextmanager
def asked_to_stop(session: Session) -> Iterator[None]:
    """SIGTERM and Ctrl-C end the training after the present step; a second Ctrl-C at once."""
    before: dict[int, Any] = {}

    def ask(number: int, frame: Any) -> None:
        session.stop = True
        signal.signal(number, before[number])

    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, ask)
    except ValueError:  # not in the main thread: the caller handles signals
        pass
    try:
        yield
    finally:
        for asked, handler in before.items():
            signal.signal(asked, handler)
