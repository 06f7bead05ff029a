"""Processes that begin at once: forked from a server that has imported what they need.

A new interpreter spends seconds on torch and diffusers before it does anything.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload([
    "idbench.models.concat_id.training.loop", "idbench.models.concat_id.pairs.curation",
    "idbench.evaluate", "idbench.metrics.scorer", "idbench.reports.report_page",
    "torch.distributed.fsdp",
])


def start(function: Callable[..., None], *arguments: Any, daemon: bool = True) -> BaseProcess:
    """Call a function of a module that an import finds, in a process of its own.

    A `daemon` ends with this process, and can start no processes itself."""
    process = _CONTEXT.Process(target=function, args=arguments, daemon=daemon)
    process.start()
    return process


def fork_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the workers of `idbench.pools` begin at once too; tests/idbench/test_pools.py starts new
    interpreters."""
    monkeypatch.setattr("idbench.pools.get_context", lambda _: _CONTEXT)


def python(arguments: Sequence[str], environment: Mapping[str, str], output: str | Path) -> None:
    """For `start`: what `python ARGUMENTS` does (-m MODULE, -c CODE or a file, and their own
    arguments), in a session of its own; what it prints goes to the file `output`."""
    os.setsid()
    os.environ.update(environment)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    with open(output, "wb") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    option, *sys.argv = arguments
    if option == "-m":
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    elif option == "-c":
        exec(sys.argv[0], vars(sys.modules["__main__"]))
    else:
        sys.argv = list(arguments)
        runpy.run_path(option, run_name="__main__")
