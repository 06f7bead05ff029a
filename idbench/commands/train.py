"""`idbench train`: train a network by its recipe, or evaluate the trained one."""

from __future__ import annotations

import json
from pathlib import Path

import click

from idbench.commands import options as opt


@click.command(short_help="Train an embedded network by its recipe.")
@click.argument("recipe")
@click.option("--resume", is_flag=True, help="Go on from the state of the last training.")
@click.option("--evaluate", is_flag=True, help="Train nothing; measure the trained weights.")
@click.option(
    "--state", type=click.Path(path_type=Path),
    help="Folder of the training's state. Without it: .training/RECIPE.",
)
@opt.sharing(opt.set_option, opt.json_option)
def train(
    recipe: str, resume: bool, evaluate: bool, state: Path | None, settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train by RECIPE (see `idbench list recipes`, or a YAML file) and print what was measured."""
    from idbench.errors import UserError
    from idbench.names import unknown
    from idbench.recipes import load_recipe, load_trainer

    name, content = load_recipe(recipe)
    changes = opt.parse_settings(settings)
    for key in changes:
        if key not in content:
            raise unknown(f"setting of recipe {name}", key, content)
    content = {**content, **changes, "name": content.get("name", name)}
    folder = state or Path(".training") / name
    if resume and not evaluate and not folder.is_dir():
        raise UserError(f"There is no state in {folder} to resume; leave out --resume.")
    if not evaluate:
        folder.mkdir(parents=True, exist_ok=True)
    trainer = load_trainer(name, content)
    try:
        measured = dict(trainer(content, folder, resume, evaluate))
    except KeyboardInterrupt:
        click.echo(f"Interrupted. Go on with: idbench train {recipe} --resume", err=True)
        raise SystemExit(130) from None
    if as_json:
        click.echo(json.dumps(measured, indent=2, default=str))
        return
    click.echo(f"{name}:")
    for key, value in measured.items():
        click.echo(f"  {key}: {value:.4g}" if isinstance(value, float) else f"  {key}: {value}")
