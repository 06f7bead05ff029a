"""Processes that begin at once: forked from a server that has imported what they need.

A new interpreter spends seconds on torch and diffusers before it does anything.
"""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from typing import Any

_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload([
    "idbench.models.concat_id.training.loop", "idbench.models.concat_id.pairs.build",
])


def start(function: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Call a function of a module that an import finds, in a process of its own."""
    process = _CONTEXT.Process(target=function, args=arguments, daemon=True)
    process.start()
    return process
