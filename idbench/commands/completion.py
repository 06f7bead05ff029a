"""`idbench completion`: the script that completes commands and names in a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from idbench.errors import UserError

SHELLS = ("bash", "zsh", "fish")


@click.command(short_help="Print a shell completion script.")
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
    from idbench.cli import cli

    made = get_completion_class(shell)
    if made is None:
        raise UserError(f"This version of click has no completion for {shell}; update click.")
    click.echo(made(cli, {}, "idbench", "_IDBENCH_COMPLETE").source())
