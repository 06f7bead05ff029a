"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import yaml

from idbench.commands import completing
from idbench.errors import UserError

suite_option = click.option(
    "--suite", default="avatars", show_default=True, shell_complete=completing.suites,
    help="Name of an installed suite, or the folder of one.",
)
limit_option = click.option(
    "--limit", type=click.IntRange(min=1), help="Only the first so many samples."
)
seed_option = click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True,
    help="Another seed gives other videos of the same samples.",
)
out_option = click.option(
    "--out", type=click.Path(path_type=Path),
    help="The run folder. Without it: a folder under runs/ named after what is run.",
)
protocol_option = click.option(
    "--protocol", default="strict-v1", show_default=True, shell_complete=completing.protocols,
    help="How it is scored; see `idbench list protocols`.",
)
metric_option = click.option(
    "--metric", "metrics", multiple=True, metavar="NAME", shell_complete=completing.metrics,
    help="Only this metric, or +NAME: this one besides the usual ones; may be repeated. See "
         "`idbench list metrics`; those beyond the paper are computed only when named.",
)
weights_option = click.option(
    "--weights", "weights", multiple=True, metavar="NETWORK=SOURCE",
    help="A metric's network from your own file, such as arcface=insightface:FOLDER; may be "
         "repeated. Without it: the embedded ones. See docs/networks.md.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as JSON, no bars and no words."
)
set_option = click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE",
    help="A setting, such as steps=20. May be repeated.",
)


def sharing(*options: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that adds `options` in the order given."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return add


def parse_settings(settings: tuple[str, ...]) -> dict[str, Any]:
    """("steps=20", ...) -> {"steps": 20}; values are read as YAML.

    Raises:
        UserError: no `=`, or a value that is no YAML.
    """
    parsed: dict[str, Any] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UserError(f"--set {text} is no KEY=VALUE; write for example --set steps=20.")
        try:
            parsed[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"The value of --set {text} cannot be read; quote it.") from error
    return parsed
