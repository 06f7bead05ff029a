"""Checkpoints that are whole or not there, whatever kills the training.

    STATE/checkpoints/00001200/    accelerate's state of network and optimiser, for every process
        average.R.safetensors      averaged weights (of process R where weights are sharded)
        checkpoint.json            written last: step, seconds, losses not yet logged, what was
                                   trained, sizes of files

The folder is written under another name and renamed; the older ones are removed afterwards.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor

from idbench.errors import UserError
from idbench.files import DiskFull, read_json, saying_disk_full, write_json
from idbench.models.concat_id.state import averaging_weight
from idbench.models.concat_id.training.recipe import StageRecipe, differences

FILE = "checkpoint.json"
FIXED = (
    "network", "reference_adaln", "references", "lora_rank", "seed", "global_batch", "steps",
    "learning_rate", "warmup", "averaged", "processes",
)
"""What must not change from one session of a training to the next."""


def described(recipe: StageRecipe, processes: int) -> dict[str, Any]:
    """The values of `FIXED`."""
    values = {name: getattr(recipe, name, None) for name in FIXED}
    return {**values, "averaged": recipe.ema > 0, "processes": processes}


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint below `folder`, or None."""
    whole = sorted(p.parent for p in folder.glob(f"*/{FILE}") if p.parent.name.isdigit())
    return whole[-1] if whole else None


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether each process holds only a part of the weights or of the optimiser's state."""
    return accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)


def own_part(parameter: torch.Tensor) -> torch.Tensor:
    """The part of a parameter that this process holds, in the parameter's own memory."""
    data = parameter.detach()
    return data.to_local() if isinstance(data, DTensor) else data


class Average:
    """Exponential moving average of parameters in float32, of each process's own part.

    Args:
        device: where it is kept; None means with the parameters.
    """

    def __init__(
        self, parameters: Sequence[torch.Tensor], decay: float, device: str | None = None
    ) -> None:
        self.decay, self.live = decay, list(parameters)
        # A copy also where nothing has to be converted.
        self.values = [
            torch.empty_like(p, dtype=torch.float32, device=device or p.device).copy_(p)
            for p in map(own_part, parameters)
        ]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters as they are after `step` steps."""
        weight = averaging_weight(self.decay, step)
        for value, parameter in zip(self.values, self.live, strict=True):
            value.lerp_(own_part(parameter).to(value.device, torch.float32), weight)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The parameters are the averaged ones while the block runs."""
        held = [own_part(p).to("cpu", copy=True) for p in self.live]
        self._write(self.values)
        try:
            yield
        finally:
            self._write(held)

    @torch.no_grad()
    def _write(self, values: list[torch.Tensor]) -> None:
        for value, parameter in zip(values, self.live, strict=True):
            own_part(parameter).copy_(value)


def save(
    folder: Path, accelerator: Accelerator, average: Average | None, said: Mapping[str, Any],
    keep: int,
) -> Path:
    """Write a checkpoint below `folder`; every process calls this.

    Args:
        said: of checkpoint.json: `step`, which names it, and further values; `fixed` as of
            `described`.
        keep: so many of the latest stay.

    Raises:
        DiskFull: nothing is left half written, older checkpoints stay.
    """
    name = f"{said['step']:08d}"
    target, temporary = folder / name, folder / f".{name}.part"
    main = accelerator.is_main_process
    if main:
        shutil.rmtree(temporary, ignore_errors=True)
        with saying_disk_full(temporary):
            temporary.mkdir(parents=True)
    accelerator.wait_for_everyone()
    try:
        with saying_full(temporary):
            accelerator.save_state(str(temporary))
            sharded = is_sharded(accelerator)
            if average is not None and (main or sharded):
                values = {str(i): v.cpu().contiguous() for i, v in enumerate(average.values)}
                rank = accelerator.process_index if sharded else 0
                save_file(values, temporary / f"average.{rank}.safetensors")
            accelerator.wait_for_everyone()
            if main:
                sizes = {str(p.relative_to(temporary)): p.stat().st_size
                         for p in sorted(temporary.rglob("*")) if p.is_file()}
                for file in sizes:
                    _to_disk(temporary / file)
                write_json(temporary / FILE, {"version": 1, **said, "files": sizes})
                shutil.rmtree(target, ignore_errors=True)
                os.replace(temporary, target)
                _to_disk(folder)
    finally:
        if main:
            shutil.rmtree(temporary, ignore_errors=True)
    if main:
        for old in sorted(p for p in folder.iterdir() if p.name.isdigit())[:-keep]:
            shutil.rmtree(old, ignore_errors=True)
        for stale in folder.glob(".*.part"):  # of a session that was killed
            shutil.rmtree(stale, ignore_errors=True)
    accelerator.wait_for_everyone()
    return target


def check(folder: Path, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """What checkpoint.json says.

    Raises:
        UserError: a file is missing or cut off, or another training wrote it.
    """
    said = read_json(folder / FILE)
    for name, size in said.get("files", {}).items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            raise UserError(
                f"The checkpoint {folder} is damaged ({name} is missing or cut off); remove that "
                "folder, the one before it is then used."
            )
    before = said.get("fixed", {})
    unlike = differences(fixed, before, FIXED)
    if unlike:
        raise UserError(
            f"The checkpoint {folder} is of another training ({'; '.join(unlike)}); set it back, "
            "or start anew with another --state."
        )
    return said


def restore(folder: Path, accelerator: Accelerator, average: Average | None) -> None:
    """Load what `save` wrote into the prepared network, its optimiser and its average.

    Raises:
        UserError: the files do not fit or cannot be read.
    """
    try:
        accelerator.load_state(str(folder))
        if average is not None:
            rank = accelerator.process_index if is_sharded(accelerator) else 0
            stored = load_file(folder / f"average.{rank}.safetensors")
            for i, value in enumerate(average.values):
                value.copy_(stored[str(i)])
    except (OSError, SafetensorError, RuntimeError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"The checkpoint {folder} cannot be loaded ({reason}); remove that folder, the one "
            "before it is then used."
        ) from error


@contextmanager
def saying_full(path: Path) -> Iterator[None]:
    """`saying_disk_full` for libraries that hide the system's error number."""
    with saying_disk_full(path):
        try:
            yield
        except (RuntimeError, SafetensorError) as error:
            words = str(error)
            full = shutil.disk_usage(path.parent).free < 2**20
            if full or "No space left" in words or "os error 28" in words:
                raise DiskFull(
                    f"The disk with {path.parent} is full; free some space and go on with "
                    "--resume: older checkpoints are kept."
                ) from error
            raise


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
