"""What many tests of a process ask for with the same arguments is computed once."""

from __future__ import annotations

import pickle
from types import ModuleType
from typing import Any

import pytest


def once(patch: pytest.MonkeyPatch, module: ModuleType, name: str) -> None:
    """Replace a function of a module: for arguments of the same content it returns what it
    returned before."""
    compute, made = getattr(module, name), {}

    def kept(*arguments: Any) -> Any:
        content = pickle.dumps(arguments)
        if content not in made:
            made[content] = compute(*arguments)
        return made[content]

    patch.setattr(module, name, kept)
