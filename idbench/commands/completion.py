"""Shell completion: the names that a shell offers, and the command that prints its script.

The completers run at every press of the tab key: they read only names, and import no network, torch
or pandas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

import idbench.prompts
from idbench.cli import cli
from idbench.errors import UserError
from idbench.output import echo

SHELLS = ("bash", "zsh", "fish")
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
def models(_: click.Context) -> list[str]:
    from idbench.embedded import entries
    from idbench.registry import MODELS

    # Only Concat-ID's variants are listed: asking other models would import them.
    prefix = "transformer_"
    variants = [f"concat_id@{n.removeprefix(prefix)}" for n in entries() if n.startswith(prefix)]
    return sorted([*MODELS.targets(), *variants])


@completing
def metrics(_: click.Context) -> list[str]:
    from idbench.registry import METRICS

    return [text for name in METRICS.targets() for text in (name, f"+{name}")]


@completing
def protocols(_: click.Context) -> list[str]:
    from idbench.metrics.protocols import PROTOCOLS

    return list(PROTOCOLS)


@completing
def suites(_: click.Context) -> list[str]:
    return sorted(path.parent.name for path in _suites_folder().glob("*/suite.yaml"))


def _suites_folder() -> Path:
    return Path(str(idbench.prompts.__file__)).parent / "suites"


@completing
def splits(context: click.Context) -> list[str]:
    """Splits of the suite that the line names, or of the default one."""
    from idbench import yaml_text

    suite = context.params.get("suite") or "avatars"
    folder = Path(suite) if Path(suite).is_dir() else _suites_folder() / suite
    content = yaml_text.parse((folder / "suite.yaml").read_text(encoding="utf-8"))
    return [str(name) for name in content["splits"]]


@completing
def recipes(_: click.Context) -> list[str]:
    from idbench.recipes import recipe_files

    return list(recipe_files())


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the completion script of SHELL, for its start-up file.

    \b
    bash   idbench completion bash > ~/.idbench-complete.bash
           echo ". ~/.idbench-complete.bash" >> ~/.bashrc
    zsh    idbench completion zsh > ~/.idbench-complete.zsh
           echo ". ~/.idbench-complete.zsh" >> ~/.zshrc
    fish   idbench completion fish > ~/.config/fish/completions/idbench.fish
    """
    made = get_completion_class(shell)
    if made is None:
        raise UserError(f"This version of click has no completion for {shell}; update click.")
    echo(made(cli, {}, "idbench", "_IDBENCH_COMPLETE").source())
