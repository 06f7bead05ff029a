"""The command line. Commands are imported when called, so that --help needs no network."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence

import click

from idbench import __version__, output
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
    "export": "idbench.commands.export:export",
    "study": "idbench.commands.study:study",
    "list": "idbench.commands.listing:listing",
    "train": "idbench.commands.train:train",
    "pairs": "idbench.commands.pairs:pairs",
    "convert": "idbench.commands.convert:convert",
    "doctor": "idbench.commands.doctor:doctor",
    "completion": "idbench.commands.completion:completion",
    "suites": "idbench.commands.suites:suites",
    "validate-metrics": "idbench.commands.validate_metrics:validate_metrics",
}


SHORT_HELP = {
    "run": "Generate the videos of a split, score them, print the table.",
    "score": "Score finished videos, from anywhere.",
    "table": "Print the table of runs, with the published rows beside it.",
    "report": "Build the HTML report of runs.",
    "check": "Fail when a run is worse than a reference: the gate for CI.",
    "diff": "Show what differs between two runs, and which samples moved most.",
    "leaderboard": "Rank runs and submissions on one sortable page.",
    "figure": "Draw figures of runs for papers.",
    "export": "Write a run for Hugging Face datasets or TensorBoard.",
    "study": "Let people compare the videos of runs, blind.",
    "list": "List models, metrics, suites, protocols, weights, recipes.",
    "train": "Train an embedded network by its recipe.",
    "pairs": "Build training pairs from a folder of videos.",
    "convert": "Convert released Concat-ID checkpoints to model folders and back.",
    "doctor": "Check that everything a run needs is here and undamaged.",
    "completion": "Print the script that completes names in a shell.",
    "suites": "Make a suite of your own photographs, or check one.",
    "validate-metrics": "Measure what the metrics are worth, on avatars.",
}
"""Each command's own short help, so that --help imports none of them."""

FAULT = 70
"""Exit code of an error that nobody foresaw (EX_SOFTWARE of sysexits.h)."""


class ReaderGone(Exception):
    """Whatever read the output (head, less) has gone."""


class LazyGroup(click.Group):
    """A group whose commands are imported by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        return _with_level(getattr(importlib.import_module(module), attribute))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = []
        for name in COMMANDS:
            short = SHORT_HELP.get(name)
            command = None if short else self.get_command(ctx, name)
            rows.append((name, command.get_short_help_str() if command else short or ""))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderGone from error  # click would end with 1, which is a judgement here
        except EOFError as error:
            # click takes it for Ctrl-D; here it comes from a file that was cut off.
            raise RuntimeError(f"a file ends too early: {error}") from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            match = nearest(args[0], COMMANDS)
            hint = f"did you mean {match!r}? " if match else ""
            ctx.fail(f"No such command {args[0]!r}: {hint}Known: {', '.join(COMMANDS)}.")
        return super().resolve_command(ctx, args)


def _set_level(ctx: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given:
        wanted = output.QUIET if parameter.name == "quiet" else output.VERBOSE
        if output.level() == -wanted:
            raise click.UsageError("Give --quiet or --verbose, not both.", ctx)
        output.set_level(wanted)


LEVELS = (
    click.Option(
        ["-q", "--quiet"], is_flag=True, expose_value=False, is_eager=True, callback=_set_level,
        help="Only results and errors.",
    ),
    click.Option(
        ["-v", "--verbose"], is_flag=True, expose_value=False, is_eager=True, callback=_set_level,
        help="Also what libraries say, and where an error came from.",
    ),
)
"""Options of every command: before its name or after."""


def _with_level(command: click.Command) -> click.Command:
    """`command`, and what is under it, with `LEVELS`."""
    if LEVELS[0] not in command.params:
        command.params.extend(LEVELS)
        if isinstance(command, click.Group):
            for below in command.commands.values():
                _with_level(below)
    return command


@click.group(
    cls=LazyGroup, params=list(LEVELS), context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="idbench")
def cli() -> None:
    """Measures identity-preserving video generation: who is in the video, and does it obey.

    Start with: idbench run --model concat_id --split multi
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script; docs/command-line.md lists its exit codes."""
    _quiet_libraries()
    output.set_level(output.USUAL)
    try:
        code = cli.main(
            args=None if arguments is None else list(arguments),
            prog_name="idbench", standalone_mode=False,
        )
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(2)
    except click.ClickException as error:
        _say(f"Error: {error.format_message()}")
        sys.exit(2)
    except UserError as error:
        if output.level() == output.VERBOSE:
            traceback.print_exc()
        _say(f"Error: {error}")
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        _say("Interrupted. What is finished is kept: run the same command again to go on.")
        sys.exit(130)
    except ReaderGone:
        # Nothing more can be said to it, also not by the interpreter as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            _say("Error: The disk is full; free some space and run the same command again.")
            sys.exit(2)
        # Not Python's 1: the gate's 1 means that a model regressed.
        traceback.print_exc()
        _say("This is a fault of idbench or of a package it calls, not of what you gave it.")
        sys.exit(FAULT)
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
