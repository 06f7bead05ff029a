"""`idbench train`: train a network by its recipe, or evaluate the trained one."""

from __future__ import annotations

import contextlib
import shutil
import sys
from pathlib import Path
from typing import Any

import click

from idbench.commands import options as opt
from idbench.errors import UserError
from idbench.files import check_new_folder, disk_errors
from idbench.names import one_of
from idbench.output import echo, echo_json
from idbench.recipes import load_recipe, load_trainer

STATE = (
    "log.jsonl", "cache.json", "checkpoint.pt", "checkpoints", "samples/??/*.safetensors",
    "*/[0-9][0-9][0-9]*/*", "*/events.out.tfevents.*",
)
"""By these the folder of a training, a cache or a data set is known, also an unfinished one."""


@click.command()
@click.argument("recipe", shell_complete=opt.recipe_names)
@click.option("--resume", is_flag=True, help="Continue from the last checkpoint.")
@click.option("--evaluate", is_flag=True, help="Do not train; only measure the trained weights.")
@click.option("--state", type=opt.PATH,
              help="Folder of the training state. Default: .training/RECIPE.")
@click.option("--plan", is_flag=True, help="Do not train; print the cost of a stage.")
@click.option("--gpus", type=int, default=8, help="For --plan: number of GPUs.")
@click.option("--strategy", default="ddp", help="For --plan: ddp, fsdp, or zero2 (DeepSpeed).")
@click.option("--mfu", type=float, default=0.4,
              help="For --plan: model FLOPs utilisation, the share of the GPU's peak reached.")
@click.option("--peak-tflops", type=float, default=989.0,
              help="For --plan: peak of one GPU in bfloat16 (H100 and H800: 989).")
@click.option("--gpu-memory", "memory", type=float, default=80.0,
              help="For --plan: GiB of memory per GPU.")
@click.option("--overhead", type=float, default=4.0,
              help="For --plan: GiB per GPU for CUDA, the autoencoder and memory fragmentation.")
@opt.sharing(opt.set_option, opt.json_option)
def train(
    recipe: str, resume: bool, evaluate: bool, state: Path | None, plan: bool,
    settings: tuple[str, ...], as_json: bool, **hardware: Any,
) -> None:
    """Train RECIPE (a name from `idbench list recipes`, or a YAML file) and print measurements."""
    name, content = load_recipe(recipe)
    changes = opt.parse_settings(settings)
    trainer = load_trainer(name, {**content, **changes})
    known = getattr(trainer, "settings", content)  # a trainer may have fields with defaults
    for key in changes:
        one_of(f"setting of recipe {name}", key, known)
    content = {**content, **changes, "name": content.get("name", name)}
    if plan:
        if not hasattr(trainer, "plan"):
            raise UserError(
                f"The recipe {name!r} has no plan; use --plan with stages such as cogvideox_stage1."
            )
        planned = trainer.plan(content, **hardware)
        if as_json:
            echo_json(planned.as_dict())
        else:
            echo("\n  ".join([f"{name}:", *planned.lines()]))
        return
    folder = state or Path(".training") / name
    # With phases, the embedded weights may serve instead of a state: the trainer checks that.
    if resume and not evaluate and not folder.is_dir() and not content.get("phases"):
        raise UserError(f"There is no state in {folder} to resume; leave out --resume.")
    made = not folder.exists()
    if not evaluate:
        if not resume:
            check_new_folder(folder, STATE)
        if isinstance(out := content.get("out"), str) and out:  # of a cache that is put elsewhere
            check_new_folder(Path(out), STATE)
        with disk_errors(folder / "log.jsonl"):
            folder.mkdir(parents=True, exist_ok=True)
    try:
        # What trainers print is not part of the JSON.
        with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout):
            measured = dict(trainer(content, folder, resume, evaluate))
    except KeyboardInterrupt as error:
        text = str(error) or "Interrupted. Continue with the same command and --resume."
        echo(text, err=True)
        raise SystemExit(130) from None
    except UserError:
        held = any(path.is_file() and path.stat().st_size for path in folder.rglob("*"))
        if made and not held:  # refused before it held something
            shutil.rmtree(folder, ignore_errors=True)
        raise
    if not measured:  # a further process of several
        return
    if as_json:
        echo_json(measured)
        return
    echo(f"{name}:")
    for key, value in measured.items():
        echo(f"  {key}: {value:.4g}" if isinstance(value, float) else f"  {key}: {value}")
