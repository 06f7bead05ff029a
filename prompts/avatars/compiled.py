"""`march.render_frame`, compiled by one process while others wait for what it leaves on the disk.

Compiling takes ten seconds of a core. Processes that begin together, such as workers that render
the same data, would each spend them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from . import march

_here: set[str] = set()
"""Folders of compiled code that this process has read or written."""


def render_frame(*arguments: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `march.render_frame`."""
    folder = march.render_frame.stats.cache_path
    if folder is None or folder in _here:
        return march.render_frame(*arguments)
    with FileLock(Path(folder) / "render_frame.lock"):
        made = march.render_frame(*arguments)
    _here.add(folder)
    return made
