"""Everything that `idbench validate-metrics` measures, as one page with its data."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from idbench import __version__, embedded
from idbench.metrics import arcsim
from idbench.metrics.networks.weight_sources import NETWORKS
from idbench.metrics.protocols import get_protocol
from idbench.metrics.validation import agreement, experiments, findings, validation_page
from idbench.metrics.validation.controls import read_controls
from idbench.metrics.validation.identity_claims import METRICS, with_identity
from idbench.metrics.validation.readers import readers
from idbench.progress import steps as progress
from idbench.runs import Run


class Validation(NamedTuple):
    """What was found, about what, and the page and the JSON file that hold it."""

    found: findings.Findings
    about: dict[str, Any]
    html: Path
    data: Path


def validate(
    output: Path, sizes: experiments.Sizes, protocol: str, controls: int = 0,
    runs: Sequence[Path] = (), quiet: bool = False,
) -> Validation:
    """Vary avatars, read them by every metric of `protocol`, and write the page into `output`.

    Args:
        controls: identities whose parts are exchanged; 0: none.
        runs: folders of runs whose videos are also read by dlib.
        quiet: print no progress.
    Raises UserError: an unknown protocol, a folder that holds no run, an output that is in use.
    """
    validation_page.paths(output)  # refuse before the long part
    defined = get_protocol(protocol)
    if not defined.defines(arcsim.METRIC):
        controls = 0
    opened = [Run.open(folder) for folder in runs]
    with progress("videos", sum(len(run.sample_ids) for run in opened), quiet) as step:
        seen = agreement.read_runs(opened, readers(), step) if opened else []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with progress("faces", sizes.people, quiet) as step:
            readings = experiments.read_faces(sizes, folder, defined.name, step)
        with progress("prompts", sizes.clips, quiet) as step:
            preferences = experiments.read_prompts(sizes, folder / "cache", defined.name, step)
    with progress("controls", controls, quiet) as step:
        exchanged = read_controls(controls, sizes.seed, readers(), step) if controls else []
    agreed = agreement.agreements(seen, METRICS) if opened else []
    found = with_identity(findings.find(readings, preferences), exchanged, agreed)
    about = {
        "idbench": __version__, "protocol": defined.name,
        "sizes": {**vars(sizes), "controls": controls}, "runs": [run.name for run in opened],
        "weights": {n: embedded.entry(n)["sha256"] for n in NETWORKS},
    }
    return Validation(found, about, *validation_page.write(output, found, about))
