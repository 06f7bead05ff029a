"""`idbench run`: generate, embed, score, and print the table."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from idbench.commands import completing
from idbench.commands import options as opt
from idbench.engine import ENGINES
from idbench.errors import UserError
from idbench.output import note

if TYPE_CHECKING:
    from idbench.types import Model, Sample


@click.command(short_help="Generate the videos of a split, score them, print the table.")
@click.option(
    "--model", required=True, metavar="NAME[@VARIANT]", shell_complete=completing.models,
    help="See `idbench list models`.",
)
@click.option(
    "--split", required=True, shell_complete=completing.splits,
    help="single, multi, multi3, tryon or background.",
)
@opt.sharing(
    opt.suite_option, opt.out_option, opt.limit_option, opt.seed_option, opt.set_option,
    opt.protocol_option, opt.metric_option, opt.weights_option,
)
@click.option(
    "--engine", type=click.Choice(list(ENGINES)), default="local", show_default=True,
    help="Where the samples are worked through.",
)
@click.option(
    "--batch", type=click.IntRange(min=1),
    help="Samples generated together; does not change what is generated. Without it: the "
         "model's own choice.",
)
@click.option("--retry-failed", is_flag=True, help="Try samples again that failed before.")
@click.option("--no-score", is_flag=True, help="Generate only; `idbench score RUN` scores later.")
@opt.json_option
def run(
    model: str, split: str, suite: str, out: Path | None, limit: int | None, seed: int,
    settings: tuple[str, ...], protocol: str, metrics: tuple[str, ...],
    weights: tuple[str, ...], engine: str, batch: int | None, retry_failed: bool,
    no_score: bool, as_json: bool,
) -> None:
    """Generate the videos of a split with a model, score them, and print the table.

    Started again, it goes on where it stopped; a finished run generates nothing.
    """
    from idbench import runs
    from idbench.commands.finishing import Scoring, finish
    from idbench.generate import generate, pending, with_id
    from idbench.registry import MODELS, split_variant
    from idbench.suite import load_suite
    from idbench.timings import Timings

    asked = None if no_score else Scoring.of(protocol, metrics, weights)
    base, variant = split_variant(model)
    target = MODELS.target(base)
    overrides = opt.parse_settings(settings)
    loaded = load_suite(suite)
    samples = loaded.samples(split, limit, seed)
    request = {
        "kind": "generate", "model": model, "settings": overrides,
        "package": f"{target.distribution} {target.version}",
        "weights": _manifest_hash(), "suite": loaded.sha256, "split": split, "seed": seed,
    }
    part = {
        "kind": "generate",
        "suite": {"name": loaded.name, "version": loaded.version, "sha256": loaded.sha256},
        "split": split, "seed": seed,
    }
    folder = out or Path("runs") / _folder_name(model, loaded.name, split, seed)
    with runs.locked(folder):
        timings = Timings()
        made: Model | None = None
        identity = _known_identity(folder, request)
        if identity is None:
            made = _make(model, overrides, samples, timings)
            identity = {**part, "model": _model_part(base, variant, made)}
        ids = [(s.id, runs.sample_id(s.id, identity["model"])) for s in samples]
        current = runs.start(
            folder, identity=identity, request=request, samples=ids, command=sys.argv[1:]
        )
        timings.include(current.meta["timings"])
        if asked:
            asked.check(current)
        wanted = set(pending(current, [i for _, i in ids], retry_failed))
        todo = [
            (suite_id, with_id(sample, run_id))
            for sample, (suite_id, run_id) in zip(samples, ids, strict=True)
            if run_id in wanted
        ]
        with finish(current, timings, asked, [i for _, i in ids], as_json):
            if todo:
                if made is None:
                    made = _make(model, overrides, samples, timings)
                    fresh = {**part, "model": _model_part(base, variant, made)}
                    changed = runs.first_difference(identity, fresh)
                    if changed:
                        raise UserError(
                            f"{folder} was begun with another model ({changed}); name another "
                            "folder with --out."
                        )
                _say(f"{len(todo)} of {len(ids)} videos to generate in {folder}", as_json)
                size = int(batch or getattr(made, "batch", None) or 4)
                generate(current, made, todo, ENGINES[engine](size), timings, quiet=as_json)
            else:
                _say(f"all {len(ids)} videos are there in {folder}", as_json)


def _make(
    model: str, overrides: Mapping[str, Any], samples: list[Sample], timings: Any
) -> Model:
    from idbench.registry import make_model

    with timings.phase("load"):
        made = make_model(model, overrides)
    most = max((len(s.references) for s in samples), default=0)
    if most > made.maximum_references:
        raise UserError(
            f"The model {model} takes at most {made.maximum_references} reference(s), the split "
            f"has samples with {most}; choose another variant of the model or another --split."
        )
    return made


def _model_part(base: str, variant: str | None, model: Model) -> dict[str, Any]:
    """What identifies the model, as JSON values."""
    part = {
        "name": base, "variant": variant, "revision": model.revision,
        "settings": dict(model.settings()), "weights": dict(model.weight_hashes()),
    }
    return json.loads(json.dumps(part, default=str))


def _known_identity(folder: Path, request: Mapping[str, Any]) -> dict[str, Any] | None:
    """The identity of the run in `folder` if the very same was asked for there before.

    So a finished run is recognised without importing the model.
    """
    from idbench.runs import Run

    if not (folder / "run.json").exists():
        return None
    meta: dict[str, Any] = Run.open(folder).meta
    return meta["identity"] if meta["request"] == request else None


def _manifest_hash() -> str | None:
    from idbench.embedded import weights_folder
    from idbench.files import sha256_file

    path = weights_folder() / "manifest.json"
    return sha256_file(path) if path.exists() else None


def _folder_name(model: str, suite: str, split: str, seed: int) -> str:
    return f"{model}-{suite}-{split}" + (f"-seed{seed}" if seed else "")


def _say(text: str, as_json: bool) -> None:
    if not as_json:
        note(text)
