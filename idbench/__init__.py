"""idbench measures identity-preserving video generation."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from idbench.api import Results, load

__version__ = "0.1.0"
__all__ = ["Results", "__version__", "load"]


def __getattr__(name: str) -> Any:
    # Loaded when asked for: `import idbench` imports nothing else.
    if name in ("Results", "load"):
        from idbench import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
