"""Checkpoints that are complete or absent, whatever kills the training.

    STATE/checkpoints/00001200/    accelerate's state of network and optimisers, of every process
        average.R.safetensors      averaged weights (of process R if weights are sharded)
        checkpoint.json            written last: progress, what is trained, sizes of the files

The folder is written under another name, then renamed; older ones are removed afterwards.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import DistributedType
from safetensors.torch import load_file, save_file

from idbench.errors import UserError, explained
from idbench.files import read_json, write_json
from idbench.models.concat_id.training.recipe import StageRecipe
from idbench.training.fit import Average
from idbench.training.resumable_loop import Progress
from idbench.training.save import saying_full, sync

FILE = "checkpoint.json"
FIXED = (
    "network", "reference_adaln", "references", "lora_rank", "seed", "global_batch", "steps",
    "learning_rate", "warmup", "averaged", "processes", "optimiser", "decay_all", "levels",
)
"""What must stay the same between the sessions of a training."""


def described(recipe: StageRecipe, processes: int) -> dict[str, Any]:
    """The values of `FIXED`."""
    values = asdict(recipe) | {"averaged": recipe.ema > 0, "processes": processes}
    return {name: values[name] for name in FIXED}


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint in `folder`, or None."""
    whole = sorted(p.parent for p in folder.glob(f"*/{FILE}") if p.parent.name.isdigit())
    return whole[-1] if whole else None


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether each process holds only a part of the weights or of the optimiser's state."""
    return accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)


def save(
    folder: Path, accelerator: Accelerator, average: Average | None, progress: Progress,
    fixed: Mapping[str, Any], keep: int,
) -> Path:
    """Write a checkpoint into `folder`; every process calls this.

    Args:
        fixed: from `described`.
        keep: number of recent checkpoints to keep.

    Raises DiskFull: nothing is left half written, older checkpoints stay.
    """
    name = f"{progress.step:08d}"
    target, temporary = folder / name, folder / f".{name}.part"
    main = accelerator.is_main_process
    if main:
        shutil.rmtree(temporary, ignore_errors=True)
        with saying_full(temporary):
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
                    sync(temporary / file)
                about = {"version": 1, **vars(progress), "fixed": dict(fixed), "files": sizes}
                write_json(temporary / FILE, about)
                shutil.rmtree(target, ignore_errors=True)
                os.replace(temporary, target)
                sync(folder)
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


def check(folder: Path, fixed: Mapping[str, Any]) -> Progress:
    """How far the training of a checkpoint is. Raises UserError: a file is missing or truncated, or
    another training wrote it."""
    stored = read_json(folder / FILE)
    for name, size in stored.get("files", {}).items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            raise UserError(
                f"The checkpoint {folder} is damaged ({name} is missing or truncated); remove that "
                "folder to use the one before it."
            )
    before = {"optimiser": "adamw", "decay_all": True, **stored.get("fixed", {})}
    unlike = [f"{name} {fixed.get(name)!r} instead of {before.get(name)!r}"
              for name in FIXED if fixed.get(name) != before.get(name)]
    if unlike:
        raise UserError(
            f"The checkpoint {folder} belongs to another training ({'; '.join(unlike)}); undo the "
            "change, or start a new training with another --state."
        )
    return Progress(stored["step"], stored["seconds"], stored.get("pending", []))


def restore(folder: Path, accelerator: Accelerator, average: Average | None) -> None:
    """Load what `save` wrote into the prepared network, its optimisers and its average. Raises
    UserError: the files do not fit or cannot be read."""
    what = f"The checkpoint {folder} cannot be loaded"
    with explained(what, "remove that folder to use the one before it"):
        accelerator.load_state(str(folder))
        if average is not None:
            rank = accelerator.process_index if is_sharded(accelerator) else 0
            stored = load_file(folder / f"average.{rank}.safetensors")
            average.load(stored[str(i)] for i in range(len(average.values)))
