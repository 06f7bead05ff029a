"""`idbench completion`: the script by which a shell completes names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from idbench.cli import cli
from idbench.errors import UserError
from idbench.output import echo


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
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
