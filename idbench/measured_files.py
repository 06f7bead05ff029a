"""Where measurements are read from: run folders, reference files, bundles and submissions."""

from __future__ import annotations

from pathlib import Path

from idbench import gate_cached, gate_reference
from idbench.measurements import Measurement, of_run
from idbench.runs import Run


def read(path: Path) -> Measurement:
    """What was measured, of a run folder, a reference file, cached embeddings, or a submission.
    Raises UserError: there is nothing of the kind, or it is damaged or of a newer idbench."""
    path = Path(path)
    if path.is_dir() and not (path / "run.json").is_file():
        for name in ("results.json", "reference.json"):
            if (path / name).is_file():
                return gate_reference.read(path / name)
    if path.suffix == ".zip" and path.is_file():
        return gate_cached.read(path)
    return gate_reference.read(path) if path.is_file() else of_run(Run.open(path))
