"""The command line. Commands are imported when called, so that --help needs no network."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import click

from idbench import __version__, output
from idbench.errors import UserError, is_out_of_memory
from idbench.files import TOO_MANY_FILES
from idbench.names import nearest

COMMANDS = {
    "run": "Generate the videos of a split, score them, print the table.",
    "score": "Score existing videos.",
    "merge": "Join the run folders of shards into one.",
    "table": "Print the table of runs, with published results.",
    "reproduce": "Reproduce the paper's tables on avatars, as one page.",
    "report": "Build an HTML report of runs.",
    "check": "Fail if a run is worse than a reference (regression gate for CI).",
    "diff": "Show how two runs differ, and which samples changed most.",
    "leaderboard": "Rank runs and submissions on a sortable page.",
    "figure": "Draw figures for papers.",
    "export": "Export a run to Hugging Face datasets or TensorBoard.",
    "study": "Run a blind human study of videos.",
    "list": "List models, metrics, suites, protocols, weights, recipes, ...",
    "train": "Train a network from a recipe.",
    "pairs": "Build training pairs from videos.",
    "convert": "Convert released Concat-ID checkpoints to model folders and back.",
    "doctor": "Check the installation and weights.",
    "completion": "Print a shell completion script.",
    "suites": "Import or check a suite of your own.",
    "weights": "List, download, check and locate published weights.",
    "validate-metrics": "Measure what metrics can tell apart, on avatars.",
}
"""The commands with their short help; --help imports none of them."""

FAULT = 70
"""Exit code of an unexpected error (EX_SOFTWARE in sysexits.h)."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, such as from a scheduler at a job's time limit: handled as Ctrl-C."""


class ReaderGone(Exception):
    """The reader of the output (head, less) closed the pipe."""


class LazyGroup(click.Group):
    """A group whose commands are imported by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        name = "listing" if cmd_name == "list" else cmd_name.replace("-", "_")
        command = getattr(importlib.import_module(f"idbench.commands.{name}"), name)
        command.short_help = COMMANDS[cmd_name]
        return _with_level(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderGone from error  # click would exit with 1, which means a failed check here
        except EOFError as error:
            # click reads it as Ctrl-D; here it comes from a truncated file.
            raise RuntimeError(f"a file is truncated: {error}") from error

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
            raise click.UsageError("Pass --quiet or --verbose, not both.", ctx)
        output.set_level(wanted)


LEVELS = [
    click.Option(
        names, is_flag=True, expose_value=False, is_eager=True, callback=_set_level, help=meaning)
    for names, meaning in (
        (["-q", "--quiet"], "Print only results and errors."),
        (["-v", "--verbose"], "Also print library messages and tracebacks."),
    )
]
"""Options of every command, before or after its name."""


def _with_level(command: click.Command) -> click.Command:
    """`command` and its subcommands, with `LEVELS` added."""
    if LEVELS[0] not in command.params:
        command.params.extend(LEVELS)
        if isinstance(command, click.Group):
            for below in command.commands.values():
                _with_level(below)
    return command


@click.group(
    cls=LazyGroup, params=[*LEVELS],
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.version_option(__version__, prog_name="idbench")
def cli() -> None:
    """Benchmark identity-preserving video generation.

    Start with: idbench run --model concat_id --split multi
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script; docs/command-line.md lists its exit codes."""
    _quiet_libraries()
    output.prepare_streams()
    output.set_level(output.USUAL)
    try:
        with _terminating():
            code = cli.main(
                args=None if arguments is None else list(arguments),
                prog_name="idbench", standalone_mode=False,
            )
    except click.exceptions.NoArgsIsHelpError as error:
        output.echo(error.format_message(), err=True)
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort) as error:
        terminated = isinstance(error.__cause__ or error, Terminated)  # click wraps it
        what = "Terminated" if terminated else "Interrupted"
        _say(f"{what}. Finished work is kept; run the same command again to resume.")
        sys.exit(143 if terminated else 130)
    except ReaderGone:
        # Nothing can be written any more, not even by the interpreter at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        told = _told(error)
        if told is None:
            traceback.print_exc()
            _say("This is a bug in idbench or in a package it calls, not an error in your input.")
            sys.exit(FAULT)  # not Python's 1: the gate's 1 means that a model regressed
        if isinstance(error, UserError) and output.level() == output.VERBOSE:
            traceback.print_exc()
        _say(f"Error: {told}")
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)


def _told(error: Exception) -> str | None:
    """What is wrong and how to fix it, as a sentence; None: not an error of the user."""
    if isinstance(error, click.ClickException):
        missing = isinstance(error, click.MissingParameter) and error.ctx
        hint = f" See `{missing.command_path} --help`." if missing else ""
        return f"{error.format_message()}{hint}"
    if isinstance(error, UserError):
        return str(error)
    if is_out_of_memory(error):
        return ("The memory is full; close other programs or use a machine with more memory, and "
                "run the same command again.")
    if isinstance(error, OSError):
        if error.errno == errno.ENOSPC:
            return "The disk is full; free some space and run the same command again."
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return TOO_MANY_FILES
        name = str(error.filename or "A file")
        shown = name if len(name) <= 200 else f"{name[:200]}..."
        return f"{shown} cannot be used ({error.strerror or error}); check the path and the disk."
    if isinstance(error, UnicodeEncodeError) or any(
            words in str(error) for words in ("embedded null", "surrogates not allowed")):
        return "A name or path contains a character that is not text; correct it."
    if isinstance(error, ImportError) and not str(error.name).startswith("idbench"):
        return f"A package cannot be loaded ({error}); run `idbench doctor`."
    return None


@contextmanager
def _terminating() -> Iterator[None]:
    """While it lasts, SIGTERM raises `Terminated`, so that what is held is released."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(text: str) -> None:
    """Print one line: a line break in a name must not begin another."""
    text = " ".join(text.splitlines())
    output.echo(text, err=True)


def _quiet_libraries() -> None:
    """Keep libraries from downloading, printing progress bars and reserving memory."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    os.environ["MPLBACKEND"] = "agg"  # a notebook's own backend may be missing here
    # Arrow's usual allocator reserves 1 GB: with a limit of 2 GB, OpenBLAS would then hang.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


if __name__ == "__main__":
    main()
