"""idbench measures identity-preserving video generation."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from idbench.evaluate import evaluate, score
    from idbench.results import Results, load

__version__ = "0.1.0"
__all__ = ["Results", "__version__", "evaluate", "load", "score"]

_EXPORTS = {
    "Results": "idbench.results", "load": "idbench.results",
    "evaluate": "idbench.evaluate", "score": "idbench.evaluate",
}


def __getattr__(name: str) -> Any:
    # Loaded when asked for: `import idbench` imports nothing else.
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)  # what completion offers


class _Package(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        # Importing the module idbench.evaluate must not hide the function of the same name.
        if name in _EXPORTS and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
