"""Options that several commands share, and the names that a shell offers for them.

The completers run at every press of the tab key: they read only names, and import no network, torch
or pandas.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from idbench import prompts, yaml_text
from idbench.errors import UserError
from idbench.names import DEFAULT_PROTOCOL

if TYPE_CHECKING:
    from idbench.engines import Engine

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def completing(names: Callable[[click.Context], Iterable[str]]) -> Complete:
    """A `shell_complete` of click, of the names that begin with what was typed."""

    def complete(
        context: click.Context, parameter: click.Parameter, typed: str
    ) -> list[CompletionItem]:
        try:
            return [CompletionItem(name) for name in names(context) if name.startswith(typed)]
        except Exception:
            return []  # a broken suite or package must not break the user's shell

    return complete


@completing
def model_names(_: click.Context) -> list[str]:
    from idbench.embedded import entries
    from idbench.registry import MODELS

    # Only Concat-ID's variants are listed: asking other models would import them.
    prefix = "transformer_"
    variants = [f"concat_id@{n.removeprefix(prefix)}" for n in entries() if n.startswith(prefix)]
    return sorted([*MODELS.targets(), *variants])


@completing
def metric_names(_: click.Context) -> list[str]:
    from idbench.registry import METRICS

    return [text for name in METRICS.targets() for text in (name, f"+{name}")]


@completing
def protocol_names(_: click.Context) -> list[str]:
    from idbench.metrics.protocols import PROTOCOLS

    return list(PROTOCOLS)


suite_names = completing(lambda _: prompts.suite_names())


@completing
def split_names(context: click.Context) -> list[str]:
    """Splits of the suite that the line names, or of the default one."""
    suite = context.params.get("suite") or "avatars"
    folder = Path(suite) if Path(suite).is_dir() else prompts.SUITES / suite
    content = yaml_text.parse((folder / "suite.yaml").read_text(encoding="utf-8"))
    return [str(name) for name in content["splits"]]


@completing
def recipe_names(_: click.Context) -> list[str]:
    from idbench.recipes import recipe_files

    return list(recipe_files())


PATH = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
COUNT = click.IntRange(min=1)

runs_argument = click.argument("run", nargs=-1, required=True, type=PATH)
suite_option = click.option(
    "--suite", default="avatars", shell_complete=suite_names, help="Name or folder of a suite.")
limit_option = click.option("--limit", type=COUNT, help="Use only the first N samples.")
SEED = click.IntRange(0, 999_999_999)
seed_option = click.option("--seed", type=SEED, default=0, help="Random seed.")
seeds_option = click.option(
    "--seed", "--seeds", "seeds", default="0", metavar="N[,N...]",
    callback=lambda ctx, parameter, text: parse_seeds(text),
    help="Another seed gives other videos of the same samples; with several, such as 0,1,2, each "
         "sample is generated with each.",
)
out_option = click.option(
    "--out", type=PATH,
    help="The run folder. Default: a folder under runs/ named after the run.",
)
protocol_option = click.option(
    "--protocol", default=DEFAULT_PROTOCOL, shell_complete=protocol_names,
    help="Scoring protocol; see `idbench list protocols`.",
)
metric_option = click.option(
    "--metric", "metrics", multiple=True, metavar="NAME", shell_complete=metric_names,
    help="Compute only this metric; +NAME adds it to the defaults. Repeatable. See `idbench list "
         "metrics`; metrics beyond the paper are computed only on request.",
)
compared_option = click.option(
    "--metric", "metrics", multiple=True, metavar="NAME", shell_complete=metric_names,
    help="Compare only this metric; +NAME adds it to the defaults, which are those of tables. "
         "Repeatable.",
)
weights_option = click.option(
    "--weights", "weights", multiple=True, metavar="NETWORK=SOURCE",
    help="Weights of a metric's network, such as arcface=insightface:FOLDER, or `published`: those "
         "of `idbench weights get published`. Repeatable. Default: the embedded weights. See "
         "docs/networks.md.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def settings_option(what: str) -> Callable[..., Any]:
    """`--set KEY=VALUE`, described as `what`."""
    return click.option(
        "--set", "settings", multiple=True, metavar="KEY=VALUE", help=f"{what} Repeatable.")


set_option = settings_option("A setting, such as steps=20.")
device_option = click.option(
    "--device", default="auto", metavar="auto|cpu|cuda[:N]|mps",
    help="Where networks run; auto is a CUDA GPU if there is one, else the CPU.",
)
shard_option = click.option(
    "--shard", metavar="I/N",
    help="Do only samples I, I + N, I + 2 N, ...; other processes do the rest, in the same run "
         "folder or in folders that `idbench merge` joins.",
)


ENGINE = (
    click.option(
        "--engine", type=click.Choice(["local", "ray"]), default="local",
        help="Where samples are generated and scored: in this process, or by workers of Ray.",
    ),
    click.option("--workers", type=COUNT,
                 help="Ray: number of workers. Default: one a GPU, or one a processor."),
    click.option("--gpus-per-worker", type=click.FloatRange(min=0),
                 help="Ray: GPUs of each worker, also a fraction. Default: 1 if there are any."),
    click.option("--cpus-per-worker", type=COUNT,
                 help="Ray: processors of each worker. Default: 1."),
    click.option("--address", metavar="auto|HOST:PORT",
                 help="Ray: a running cluster. Default: one is started on this machine."),
)
"""Options of engines; `engine_of` takes them."""
WORKERS = ("workers", "gpus_per_worker", "cpus_per_worker", "address")


def engine_of(asked: dict[str, Any]) -> Engine:
    """The engine that the options name; takes them out of `asked`."""
    from idbench.engines import make_engine

    workers = {name: asked.pop(name) for name in WORKERS}
    return make_engine(
        asked.pop("engine"), asked.pop("batch", None), asked.pop("device"), **workers)


def parse_seeds(text: str) -> list[int]:
    """"0,1,2" -> [0, 1, 2]. Raises UserError: not different whole numbers of 0 or more."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise UserError(
            f"--seed {text[:40]} must be a whole number from 0 to 999999999, or several, such as "
            "0,1,2."
        )
    seeds = [int(part) for part in parts]
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seed {text[:40]} names a seed twice.")
    return seeds


def sharing(*options: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that adds `options` in the order given."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return add


def parse_settings(settings: tuple[str, ...]) -> dict[str, Any]:
    """("steps=20", ...) -> {"steps": 20}; values are read as YAML. Raises UserError: no `=`, or a
    value that is not YAML."""
    parsed: dict[str, Any] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UserError(f"--set {text[:60]} is not KEY=VALUE; write it as --set steps=20.")
        if key in parsed:
            raise UserError(f"--set {key} is given twice; leave one out.")
        try:
            # YAML takes 1e-3, without a point, as text.
            exponent = re.fullmatch(r"\s*[-+]?[0-9]+[eE][-+]?[0-9]{1,3}\s*", value)
            parsed[key] = float(value) if exponent else yaml_text.parse(value)
            json.dumps(parsed[key], default=str, allow_nan=False)
        except (yaml_text.YAMLError, ValueError, TypeError, RecursionError) as error:
            raise UserError(
                f"The value of --set {key} is not plain YAML ({value[:60]}); quote it."
            ) from error
    return parsed
