"""The command line. Commands are imported when called, so that --help needs no network."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence

import click

from idbench import __version__
from idbench.errors import UserError
from idbench.names import nearest

COMMANDS = {
    "run": "idbench.commands.run:run",
    "score": "idbench.commands.score:score",
    "table": "idbench.commands.table:table",
    "report": "idbench.commands.report:report",
    "check": "idbench.commands.check:check",
    "diff": "idbench.commands.diff:diff",
    "leaderboard": "idbench.commands.leaderboard:leaderboard",
    "figure": "idbench.commands.figure:figure",
    "study": "idbench.commands.study:study",
    "list": "idbench.commands.listing:listing",
    "train": "idbench.commands.train:train",
    "pairs": "idbench.commands.pairs:pairs",
    "convert": "idbench.commands.convert:convert",
    "doctor": "idbench.commands.doctor:doctor",
    "suites": "idbench.commands.suites:suites",
    "validate-metrics": "idbench.commands.validate_metrics:validate_metrics",
}


class LazyGroup(click.Group):
    """A group whose commands are imported by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            match = nearest(args[0], COMMANDS)
            hint = f"did you mean {match!r}? " if match else ""
            ctx.fail(f"No such command {args[0]!r}: {hint}Known: {', '.join(COMMANDS)}.")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="idbench")
def cli() -> None:
    """Measures identity-preserving video generation: who is in the video, and does it obey.

    Start with: idbench run --model concat_id --split multi
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script. Exit 0: done; 2: a mistake that the message mends; 130: Ctrl-C."""
    _quiet_libraries()
    try:
        code = cli.main(
            args=None if arguments is None else list(arguments),
            prog_name="idbench", standalone_mode=False,
        )
    except click.ClickException as error:
        _say(f"Error: {error.format_message()}")
        sys.exit(2)
    except UserError as error:
        _say(f"Error: {error}")
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        _say("Interrupted. What is finished is kept: run the same command again to go on.")
        sys.exit(130)
    except BrokenPipeError:
        # The reader (head, less) has gone; nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _say("Error: The disk is full; free some space and run the same command again.")
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)


def _say(text: str) -> None:
    click.echo(text, err=True)


def _quiet_libraries() -> None:
    """Nothing is fetched behind the user's back, and libraries keep their bars to themselves."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


if __name__ == "__main__":
    main()
