"""`idbench completion`: the script with which a shell completes idbench's commands and names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from idbench.errors import UserError

SHELLS = ("bash", "zsh", "fish")


@click.command(short_help="Print the script that completes names in a shell.")
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
        raise UserError(f"This click cannot complete in {shell}; update click.")
    click.echo(made(cli, {}, "idbench", "_IDBENCH_COMPLETE").source())
