"""Engines by name."""

from __future__ import annotations

from typing import Any

from idbench.devices import AUTO
from idbench.engine import Engine, LocalEngine
from idbench.errors import UserError
from idbench.names import unknown
from idbench.ray_engine import RayEngine

ENGINES = ("local", "ray")


def make_engine(
    engine: str | Engine, batch: int | None = None, device: str = AUTO, **workers: Any
) -> Engine:
    """The engine of that name, or the given one; `workers` are options of `RayEngine`. Raises
    UserError: an unknown engine, options of another one, no Ray, or no such device."""
    if not isinstance(engine, str):
        return engine
    given = {name: value for name, value in workers.items() if value is not None}
    if engine == "ray":
        return RayEngine(device=device, **given)
    if engine != LocalEngine.name:
        raise unknown("engine", engine, ENGINES)
    if given:
        name = next(iter(given)).replace("_", "-")
        raise UserError(f"--{name} belongs to --engine ray; add that, or leave it out.")
    return LocalEngine(batch, device)
